"""UA-MT: a Mean Teacher that is only believed where it is sure.

Yu et al. 2019, "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium
Segmentation", MICCAI, arXiv 1907.07034. Equations 1 to 3.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.batches import Batch
from lib.losses.consistency import squared_error
from lib.training.averaging import averaged_copy, early_decay, move_average
from lib.training.mean_teacher import MeanTeacherConfig, noisy
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import linear, sigmoid_ramp_up
from lib.training.semi_supervised import labelled_view, sgd, supervised_loss, unlabelled_view


@dataclass(frozen=True, kw_only=True)
class UaMtConfig(MeanTeacherConfig):
    """Mean Teacher's settings (decay, weight and noise are this paper's), and of the uncertainty.

    passes: T, the teacher's stochastic passes.
    first_threshold, last_threshold: H at the start and, after a ramp-up over the run, at the end,
        as shares of U_max, the entropy of a uniform distribution over all classes (paper: ln 2,
        for two classes).
    """

    passes: int = 8
    first_threshold: float = 0.75
    last_threshold: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a number of passes below 1."""
        super().__post_init__()
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, not {self.passes}")


class UaMt(Method):
    """Mean Teacher whose consistency cost leaves out what the teacher is unsure of."""

    def __init__(self, config: UaMtConfig, *, network: nn.Module):
        """Train `network` in place; its dropout layers are what makes the passes differ."""
        super().__init__(config)
        self.network = network
        self.teacher = averaged_copy(network)
        self._optimizer = sgd(config, network)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over the student; the teacher has no gradient."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Equations 1 to 3."""
        config = self.config
        images, masks = labelled_view(batch)
        others = unlabelled_view(batch)

        logits = self.network(torch.cat([images, others]))
        logits, student = logits.split([len(images), len(others)])
        supervised = supervised_loss(logits, masks, config)
        with torch.no_grad():
            teacher = self.teacher(noisy(others, config.noise)).float().softmax(dim=1)

        # Equation 2: the mean of T passes with dropout and noise, and its entropy.
        uncertainty = self.uncertainty(others)

        # Equation 3: the squared error where the uncertainty is below H.
        certain = uncertainty < self.threshold(progress, classes=logits.shape[1])
        consistency = squared_error(student.float().softmax(dim=1), teacher, keep=certain)

        # Equation 1, with lambda(t) = 0.1 exp(-5 (1 - t / t_max)^2).
        weight = config.consistency_weight * sigmoid_ramp_up(
            progress.fraction, length=config.ramp_up
        )
        return Losses(
            total=supervised + weight * consistency,
            supervised=supervised,
            consistency=consistency,
            consistency_weight=weight,
            certain=certain.float().mean(),
        )

    @torch.no_grad()
    def uncertainty(self, images: Tensor) -> Tensor:
        """Entropy `B x H x W` in nats of the teacher's mean prediction over T noisy passes."""
        passes = range(self.config.passes)
        mean = sum(
            self.teacher(noisy(images, self.config.noise)).float().softmax(dim=1) for _ in passes
        ) / len(passes)
        return torch.special.entr(mean).sum(dim=1)

    def threshold(self, progress: Progress, *, classes: int) -> float:
        """H, which rises from 3/4 of U_max = ln C to all of it; then no pixel is left out."""
        first, last = self.config.first_threshold, self.config.last_threshold
        share = first + (last - first) * sigmoid_ramp_up(progress.fraction)
        return share * math.log(classes)

    def after_step(self, progress: Progress) -> None:
        """Move the teacher."""
        decay = early_decay(self.config.decay, progress.step)
        move_average(self.teacher, self.network, decay=decay)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the student, or of the teacher if the configuration says so."""
        network = self.teacher if self.config.predict_with_teacher else self.network
        return network(image)

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of the student."""
        return [self.network(image)]
