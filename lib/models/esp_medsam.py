"""ESP-MedSAM: a light image encoder that prompts itself and decodes each modality by its own query.

Xu et al. 2024, arXiv 2407.14153 (from July 2025 "De-LightSAM"). Its parts:

* encoder: `lib.models.tiny_vit.TinyVitEncoder` (the student), or the adapted SAM that teaches it;
* prompts: `lib.prompts.self_patch.SelfPatchPrompts`, or None for no prompt at all;
* decoder: `lib.models.modality_decoder.ModalityDecoder`;
* classifier: `lib.models.modality_classifier.ModalityClassifier`.

`lib.training.esp_medsam.build` joins them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.models.tiny_vit import check_modality

UNKNOWN = -1  # index of an image whose modality the classifier has to find


@dataclass(frozen=True, eq=False)
class EspOutput:
    """What the model says about B images of H x W px.

    logits: B x 2 x H x W; the background's are 0, so the foreground's are those of its sigmoid.
    patch_logits: B x 1 x H/32 x W/32, > 0 where a patch holds some of the target; None without
        self-prompting.
    embedding: B x C x H/16 x W/16, before the prompt.
    """

    logits: Tensor
    patch_logits: Tensor | None
    embedding: Tensor


class EspMedSam(nn.Module):
    """Image and modality to mask, without a human prompt."""

    def __init__(
        self,
        *,
        encoder: nn.Module,
        prompts: nn.Module | None,
        decoder: nn.Module,
        classifier: nn.Module | None = None,
    ):
        """Join the parts; all of them have the same modalities and the same width."""
        super().__init__()
        self.encoder, self.prompts, self.decoder = encoder, prompts, decoder
        self.classifier = classifier

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities; the place of a name is its index."""
        return self.encoder.modalities

    def index(self, names: Sequence[str]) -> Tensor:
        """Indices of modalities by name, B int64.

        Raises:
            ValueError: for a name that the model does not know.
        """
        unknown = sorted(set(names) - set(self.modalities))
        if unknown:
            raise ValueError(
                f"unknown modality {', '.join(unknown)}; known: {', '.join(self.modalities)}. "
                "UNKNOWN and resolve let the classifier find it; add_modality adds it"
            )
        return torch.tensor([self.modalities.index(name) for name in names])

    def forward(self, image: Tensor, modality: Tensor, patches: Tensor | None = None) -> EspOutput:
        """Segment images of any mixture of modalities in one pass.

        Args:
            image: B x 3 x H x W in [0, 1], H and W multiples of 32.
            modality: B int64 in 0..K-1; see `index` and `resolve`.
            patches: true patches for prompts built with oracle=True, else None.

        Raises:
            ValueError: a wrong size, or an index of no known modality.
        """
        check_modality(modality, self.modalities, len(image))
        return self.decode(self.encoder(image, modality), modality, image.shape[-2:], patches)

    def decode(
        self,
        embedding: Tensor,
        modality: Tensor,
        size: Sequence[int],
        patches: Tensor | None = None,
    ) -> EspOutput:
        """Masks at `size` = (H, W) px from embeddings, such as another encoder's."""
        prompted, patch_logits = embedding, None
        if self.prompts is not None:
            dense, patch_logits = self.prompts(embedding, patches)
            prompted = embedding + dense
        low_res = self.decoder(prompted, modality.to(embedding.device))
        foreground = functional.interpolate(
            low_res, tuple(size), mode="bilinear", align_corners=False
        )
        logits = torch.cat([torch.zeros_like(foreground), foreground], dim=1)
        return EspOutput(logits, patch_logits, embedding)

    def classify(self, image: Tensor) -> Tensor:
        """Logits B x K of each image's modality, from the embedding that no controller touched.

        Raises:
            ValueError: if the model was built without a classifier.
        """
        if self.classifier is None:
            raise ValueError("this model has no modality classifier: give each image's modality")
        return self.classifier(self.encoder(image))

    def resolve(self, image: Tensor, modality: Tensor | None = None) -> Tensor:
        """Indices B int64 of known modalities: those given, and the classifier's for UNKNOWN (-1).

        `modality`: B int64; None means that all are unknown.
        """
        if modality is None:
            modality = torch.full((len(image),), UNKNOWN, device=image.device)
        missing = modality == UNKNOWN
        if not missing.any():
            return modality
        modality = modality.clone()
        rows = missing.nonzero()[:, 0].to(image.device)
        modality[missing] = self.classify(image[rows]).argmax(dim=1).to(modality.device)
        return modality

    def add_modality(self, name: str) -> int:
        """Add a controller, a query and a classifier output; returns the new index.

        Masks of the modalities before stay the same, bit for bit. The classifier has to be
        trained again: the new output competes with the old ones.
        """
        index = self.encoder.add_modality(name)
        if not self.decoder.one_query:
            self.decoder.add_modality()
        if self.classifier is not None:
            self.classifier.add_modality()
        return index
