"""Every kind of model of this project as one module from images to logits."""

import torch
from torch import Tensor, nn

from lib.models.co_training import CoPrediction
from lib.models.esp_medsam import EspMedSam
from lib.models.inference import inference


class Logits(nn.Module):
    """`B x 3 x H x W` in [0, 1] to logits `B x C x H x W`, whatever `model` is."""

    def __init__(self, model: nn.Module):
        """`model`: a training method, of which `predict` is asked; KnowSAM's students; a network.

        It is kept, not copied.

        Raises:
            ValueError: for an ESP-MedSAM, which asks for a modality besides the image.
        """
        super().__init__()
        if isinstance(model, EspMedSam):
            raise ValueError(
                "an EspMedSam asks for each image's modality, which an exported file cannot: wrap "
                f"it in FixedModality(model, NAME), NAME being one of {', '.join(model.modalities)}"
            )
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Logits; of students that are fused, the fusion's."""
        output = getattr(self.model, "predict", self.model)(image)
        return output.fused if isinstance(output, CoPrediction) else output


class FixedModality(nn.Module):
    """An ESP-MedSAM for images of one modality, without its classifier.

    Xu et al. 2024, arXiv 2407.14153. Which controller and which query work is settled here, not by
    an input, so that the model can leave Python.
    """

    def __init__(self, model: EspMedSam, modality: str):
        """`modality`: by name.

        Raises:
            ValueError: for a name that the model does not know, or prompts from true masks.
        """
        super().__init__()
        self.index = int(model.index([modality]))
        if model.prompts is not None and model.prompts.oracle:
            raise ValueError("prompts built with oracle=True need true masks and cannot predict")
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Logits `B x 2 x H x W`; H and W are multiples of 32."""
        embedding = self.model.encoder.embed_one(image, self.index)
        modality = torch.full((image.shape[0],), self.index, device=image.device)
        return self.model.decode(embedding, modality, image.shape[-2:]).logits


def try_size(network: nn.Module, images: Tensor) -> Tensor:
    """Logits of `images`, on the CPU.

    Raises:
        ValueError: `network` does not take images of that size, or its logits are not finite.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    try:
        with inference(network):
            logits = network(images.to(device)).cpu()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"size={images.shape[-1]}: the model does not take such images: {error}"
        ) from error
    if not torch.isfinite(logits).all():
        raise ValueError("the model's logits are not finite: its training broke down")
    return logits
