"""ESP-MedSAM, stage A: common knowledge. Plain SAM teaches the light encoder what images look like.

Xu et al. 2024, arXiv 2407.14153: the squared error between the embeddings, without masks and
without modality. The paper's figure shows SA-1B; the released code starts from MobileSAM, which
is such an encoder (`lib.models.mobile_sam_weights` loads it). No script of this stage was released:
the numbers below are our choices.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from lib.data.batches import Batch
from lib.models.tiny_vit import TinyVitEncoder
from lib.sam.frozen import FrozenSam
from lib.training.esp_medsam.parts import flipped_views, train_only
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import cosine


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """All of them our choices.

    learning_rate: of Adam, at the top of the cosine. warmup: fraction of the run that it rises.
    flip: probability of mirroring an image; no other augmentation, so that SAM's embeddings of the
        two views can be kept.
    batch, steps: whoever builds the stream and calls `fit` reads them from here.
    """

    learning_rate: float = 1e-3
    warmup: float = 0.05
    flip: float = 0.5
    batch: int = 12
    steps: int = 20_000

    @classmethod
    def quick(cls, **changes) -> "CommonConfig":
        """A short run for the CPU."""
        return cls(**{"batch": 6, "steps": 100, **changes})


class CommonDistillation(Method):
    """The student's embedding without controllers learns to equal SAM's.

    There is no mask to predict yet, so `predict` is not defined.
    """

    def __init__(self, config: CommonConfig, *, encoder: TinyVitEncoder, sam: FrozenSam):
        """Train all of `encoder` but its controllers, in place.

        Args:
            sam: the teacher, with the same width of embedding; give it a cache to encode each view
                of an image only once.
        """
        super().__init__(config)
        self.encoder, self._sam = encoder, sam
        train_only(encoder, encoder.shared_parameters())
        trained = encoder.shared_parameters()
        self._optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over backbone and neck."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A cosine to zero, after the warm-up."""
        return cosine(progress.fraction, warmup=self.config.warmup)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Mean squared error over all images of the batch; masks are not looked at."""
        images, _ = flipped_views(batch, self.config.flip)
        # Full precision whatever the loop's: a kept embedding must not depend on it.
        with torch.autocast(images.device.type, enabled=False):
            target = self._sam.encode(images).to(images.device)
        return Losses(total=embedding_error(self.encoder(images), target))


def embedding_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of embeddings B x C x h x w.

    Raises:
        ValueError: if they differ in shape.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's embedding is {tuple(student.shape)}, the teacher's "
            f"{tuple(teacher.shape)}: build the student with the teacher's width and open the "
            "data at the teacher's image size"
        )
    return functional.mse_loss(student.float(), teacher.float())
