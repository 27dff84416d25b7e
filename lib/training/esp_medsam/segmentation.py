"""ESP-MedSAM from masks: stage B (medical teacher), stage D (fine-tuning), and no distillation.

Xu et al. 2024, arXiv 2407.14153. The losses are those of the same group's released code; how long
and at what rate teacher and student are trained on masks is not known. One method serves three:
the model decides which, and `train` which of its parts learn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.augment import weak_batch
from lib.data.batches import Batch
from lib.losses.mask_and_patch import mask_loss, patch_loss
from lib.models.esp_medsam import EspMedSam
from lib.prompts.self_patch import patch_targets
from lib.training.esp_medsam.parts import train_only
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import cosine

TRAIN = ("all", "heads", "new modality")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Loss weights as released; the rest are our choices, see the two class methods.

    train: "all" of the model (of a teacher: all but the frozen SAM); "heads": prompts and decoder
        over a fixed encoder; "new modality": only the controller and query added last, so that
        all others stay as they are.
    learning_rate: of Adam, at the top of the cosine. warmup: fraction of the run that it rises.
    dice, focal: weights in the mask loss. patch: weight of the patch loss, which a model without
        self-prompting has not (a later version of the released losses: 0.5).
    batch, steps: whoever builds the stream and calls `fit` reads them from here.
    """

    train: str = "all"
    learning_rate: float = 5e-4
    warmup: float = 0.05
    dice: float = 0.8
    focal: float = 0.2
    patch: float = 1.0
    batch: int = 12
    steps: int = 10_000

    def __post_init__(self) -> None:
        """Refuse an unknown choice of parts."""
        if self.train not in TRAIN:
            raise ValueError(f"train must be one of {', '.join(TRAIN)}, not {self.train!r}")

    @classmethod
    def fine_tune(cls, **changes) -> "SegmentationConfig":
        """Stage D: a fifth of the rate and of the steps, from trained weights."""
        return cls(**{"learning_rate": 1e-4, "steps": 2_000, **changes})

    @classmethod
    def quick(cls, **changes) -> "SegmentationConfig":
        """A short run for the CPU."""
        return cls(**{"batch": 6, "steps": 100, **changes})


class EspSegmentation(Method):
    """Mask loss, and patch loss on the self-patch prompts, over mixed batches of modalities."""

    def __init__(self, config: SegmentationConfig, *, model: EspMedSam, modality: Tensor):
        """Train `model`, a student or a teacher, in place.

        Args:
            modality: the model's index of every image of the data set, see `build.modality_of`.

        Raises:
            ValueError: for train="new modality" where none was added.
        """
        super().__init__(config)
        self.model, self.modality_of = model, modality
        trained = _trained(model, config.train)
        train_only(model, trained)
        self._optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over the parts that train."""
        return [self._optimizer]

    def hyperparameters(self) -> dict:
        """Also the model's switches that change no weight: by weights alone two runs look alike."""
        switches = {"oracle": self._oracle, "isolated": self.model.decoder.isolated}
        return super().hyperparameters() | switches

    def learning_rate(self, progress: Progress) -> float:
        """A cosine to zero, after the warm-up."""
        return cosine(progress.fraction, warmup=self.config.warmup)

    def train(self, mode: bool = True) -> "EspSegmentation":
        """Training mode; an encoder that does not train keeps its BatchNorm statistics."""
        super().train(mode)
        if self.config.train != "all":
            self.model.encoder.eval()
        return self

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Both losses on weakly augmented labelled images."""
        config, labelled = self.config, batch.labelled
        images, masks = weak_batch(
            labelled.image,
            labelled.mask,
            seed=batch.seed,
            epoch=labelled.epoch,
            indices=labelled.index,
        )
        modality = self.modality_of[labelled.index.cpu()].to(images.device)
        patches = patch_targets(masks)
        output = self.model(images, modality, patches if self._oracle else None)
        mask = mask_loss(output.logits, masks, dice=config.dice, focal=config.focal)
        if output.patch_logits is None:
            return Losses(total=mask, mask=mask)
        patch = patch_loss(output.patch_logits, patches)
        return Losses(total=mask + config.patch * patch, mask=mask, patch=patch)

    def predict(self, image: Tensor) -> Tensor:
        """Logits B x 2 x H x W with the modality that the classifier finds.

        For images of known modality call `model(image, modality)`.
        """
        return self.model(image, self.model.resolve(image)).logits

    @property
    def _oracle(self) -> bool:
        return self.model.prompts is not None and self.model.prompts.oracle


def _trained(model: EspMedSam, train: str) -> list[nn.Parameter]:
    heads = [*(model.prompts.parameters() if model.prompts is not None else ())]
    heads += model.decoder.parameters()
    if train == "all":
        return [*model.encoder.parameters(), *heads]
    if train == "heads":
        return heads
    own = list(model.encoder.controllers[-1].parameters())
    if model.decoder.one_query:  # the query is everybody's
        return own
    if len(model.decoder.queries) == 1:
        raise ValueError(
            'train="new modality" trains what add_modality added, but nothing was added: call '
            "model.add_modality(name) first"
        )
    own.append(model.decoder.queries[-1])
    if model.decoder.own_hyper:
        own += model.decoder.hyper[-1].parameters()
    return own
