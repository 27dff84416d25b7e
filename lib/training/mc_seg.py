"""MC-seg: KnowSAM without SAM, its own row in every table of the paper.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742): multi-view co-training of two subnets and their
fusion. Where KnowSAM asks SAM for pseudo labels, MC-seg takes the fusion's; nothing is distilled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.data.batches import Batch
from lib.training.co_training import (
    CoTrainingConfig,
    build_students,
    consistency_loss,
    entropy_losses,
    exchange_loss,
    segmentation_loss,
    student_optimizer,
    views,
)
from lib.training.early_gradient import with_gradient
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import linear, sigmoid_ramp_up


@dataclass(frozen=True, kw_only=True)
class McSegConfig(CoTrainingConfig):
    """KnowSAM's configuration without SAM's part; defaults are the paper's."""


class McSeg(Method):
    """Two subnets that teach each other, and a module that fuses them."""

    def __init__(self, config: McSegConfig):
        """Build subnets, fusion and their optimiser."""
        super().__init__(config)
        self.students = build_students(config)
        self._optimizer = student_optimizer(self.students, config)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over subnets and fusion."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Equations 1 to 5 and 11 to 14 without SAM's terms.

        With exchanged patches, only `total` and `exchange` can still be differentiated: the other
        losses have passed on their gradients when the second pass begins.
        """
        config = self.config
        images, masks = views(batch, config)
        labelled = len(masks)

        # Equations 1 to 3: two predictions, their maps, their fusion.
        prediction = self.students(images)

        # Equations 4 and 12: subnets and fusion learn from labelled images.
        first, second, fused = (
            segmentation_loss(logits[:labelled], masks, config) for logits in prediction
        )

        # Equations 5, 13 and 14, on all images. A factor for the subnets, none for the fusion.
        entropy = entropy_losses(prediction, config)
        consistency = consistency_loss(prediction, config)
        weight = config.consistency_weight * sigmoid_ramp_up(progress.fraction)
        subnets = first + second + config.entropy_weight * entropy + weight * consistency
        total = config.subnet_share * subnets + fused
        losses = Losses(
            total=total,
            supervised=first + second + fused,
            entropy=entropy,
            consistency=consistency,
            consistency_weight=weight,
        )

        # Equation 11: more samples from exchanged patches, labelled by mask and fusion.
        if (
            config.exchange
            and len(images) > labelled
            and progress.fraction >= config.exchange_start
        ):
            total = with_gradient(total, self.students.parameters())
            losses["exchange"] = exchange_loss(
                self.students,
                images,
                masks,
                uncertain=prediction.fused,
                pseudo=prediction.fused[labelled:].argmax(dim=1),
                consistency_weight=weight,
                config=config,
            )
            losses["total"] = total + losses["exchange"]
        return losses

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of both subnets: those that a teacher teaches, not their fusion."""
        prediction = self.students(image)
        return [prediction.first, prediction.second]

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the fusion, Y_f."""
        return self.students(image).fused
