"""A Mean Teacher that a frozen SAM assists: most at first, less and less later.

After Zhang et al. 2023, "SemiSAM: Enhancing Semi-Supervised Medical Image Segmentation via
SAM-Assisted Consistency Regularization", arXiv 2312.06316, in two dimensions. Prompts come from
the student's own predictions, as the paper says; a script that its authors released clicks on the
true masks of unlabelled images instead.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.data.batches import Batch
from lib.losses.consistency import squared_error
from lib.prompts.from_masks import PromptConfig
from lib.sam.frozen import FrozenSam, sam_fingerprint
from lib.training.averaging import averaged_copy, early_decay, move_average
from lib.training.mean_teacher import MeanTeacherConfig, noisy
from lib.training.method import Losses, Method, Progress
from lib.training.prompted_sam import PromptedSam
from lib.training.schedules import linear, sigmoid_ramp_up
from lib.training.semi_supervised import labelled_view, sgd, supervised_loss, unlabelled_view


@dataclass(frozen=True, kw_only=True)
class SemiSamConfig(MeanTeacherConfig):
    """Mean Teacher's settings, and SAM's.

    sam_weight: of SAM's term at the start (authors' code: half of 0.1); it falls to nearly nothing
        as exp(-5 t^2), the consistency's ramp-up run backwards.
    prompts: how the student's predictions become prompts.
    """

    sam_weight: float = 0.05
    prompts: PromptConfig = field(default_factory=PromptConfig)


class SemiSam(Method):
    """A student learns from masks, from its moving average and from a frozen SAM."""

    def __init__(self, config: SemiSamConfig, *, network: nn.Module, sam: FrozenSam):
        """Train `network` (`B x 3 x H x W` in [0, 1] to logits) in place; `sam` stays outside."""
        super().__init__(config)
        self.network = network
        self.teacher = averaged_copy(network)
        self._prompted = PromptedSam(sam, config.prompts)
        self._optimizer = sgd(config, network)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over the student; the teacher and SAM have no gradient."""
        return [self._optimizer]

    def hyperparameters(self) -> dict[str, Any]:
        """The configuration, and which SAM."""
        fingerprint = sam_fingerprint(self._prompted.sam.sam)
        return {**super().hyperparameters(), "sam": fingerprint}

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Supervised loss, Mean Teacher's consistency, and consistency with SAM."""
        config = self.config
        images, masks = labelled_view(batch)
        others = unlabelled_view(batch)
        logits = self.network(torch.cat([images, others]))
        logits, student = logits.split([len(images), len(others)])
        student = student.float().softmax(dim=1)
        supervised = supervised_loss(logits, masks, config)

        # Mean Teacher.
        with torch.no_grad():
            teacher = self.teacher(noisy(others, config.noise))
        consistency = squared_error(student, teacher.float().softmax(dim=1))

        # SAM's masks, prompted by the student; where the student finds nothing SAM is not asked.
        sam, answered = self._prompted.logits(others, student)
        sam = functional.one_hot(sam.argmax(dim=1), sam.shape[1]).movedim(-1, 1)
        keep = answered[:, None, None].expand(-1, *student.shape[2:])
        assisted = squared_error(student, sam.to(student), keep=keep)

        weight = config.consistency_weight * sigmoid_ramp_up(
            progress.fraction, length=config.ramp_up
        )
        sam_weight = config.sam_weight * sigmoid_ramp_up(1 - progress.fraction)
        return Losses(
            total=supervised + weight * consistency + sam_weight * assisted,
            supervised=supervised,
            consistency=consistency,
            consistency_weight=weight,
            sam=assisted,
            sam_weight=sam_weight,
            sam_answered=answered.float().mean(),
        )

    def after_step(self, progress: Progress) -> None:
        """Move the teacher."""
        decay = early_decay(self.config.decay, progress.step)
        move_average(self.teacher, self.network, decay=decay)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the teacher, or of the student if the configuration says so."""
        network = self.teacher if self.config.predict_with_teacher else self.network
        return network(image)

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of the student."""
        return [self.network(image)]

    def predict_with_sam(self, image: Tensor) -> Tensor:
        """SAM's logits, prompted by the student."""
        student = self.network(image).float().softmax(dim=1)
        return self._prompted.logits(image, student)[0]
