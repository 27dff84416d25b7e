"""Mean Teacher: predict on noisy images as an average of the network's own past does.

Tarvainen and Valpola 2017, "Mean teachers are better role models", arXiv 1703.01780, in the form
for segmentation of UA-MT's authors and SSL4MIS (every pixel is a sample).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.batches import Batch
from lib.losses.consistency import squared_error
from lib.training.averaging import averaged_copy, early_decay, move_average
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import linear, sigmoid_ramp_up
from lib.training.semi_supervised import (
    SemiSupervisedConfig,
    labelled_view,
    sgd,
    supervised_loss,
    unlabelled_view,
)


@dataclass(frozen=True, kw_only=True)
class MeanTeacherConfig(SemiSupervisedConfig):
    """The family's settings, and those of the teacher.

    decay: alpha of the moving average. 0.99 is the paper's for the first part of a run and that
        of UA-MT and SSL4MIS; the paper's 0.999 afterwards is meant for 150,000 steps.
    consistency_weight: at the end of the ramp-up (UA-MT and SSL4MIS; the paper's 100 is for its
        classification, with the error summed).
    ramp_up: fraction of the run over which the weight rises (SSL4MIS: all of it).
    noise: deviation of the Gaussian noise on the teacher's images, cut off at twice that (UA-MT).
    predict_with_teacher: False predicts with the student, as UA-MT and SSL4MIS do. The paper finds
        the teacher a little better at the end of a long run; in one of a few hundred steps it still
        remembers the start.
    """

    decay: float = 0.99
    consistency_weight: float = 0.1
    ramp_up: float = 1.0
    noise: float = 0.1
    predict_with_teacher: bool = False


class MeanTeacher(Method):
    """A student learns from masks and from a teacher that is its own moving average."""

    def __init__(self, config: MeanTeacherConfig, *, network: nn.Module):
        """Train `network` (`B x 3 x H x W` in [0, 1] to logits) in place; copy the teacher."""
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
        """Supervised loss on labelled, consistency cost J on unlabelled images."""
        config = self.config
        images, masks = labelled_view(batch)
        others = unlabelled_view(batch)

        # One pass over both halves, so that BatchNorm sees one distribution.
        logits = self.network(torch.cat([images, others]))
        logits, student = logits.split([len(images), len(others)])
        supervised = supervised_loss(logits, masks, config)

        # J = E || f(x, theta', eta') - f(x, theta, eta) ||^2. The noise eta' of the teacher is
        # on the image and in its dropout, the student's eta in its dropout.
        with torch.no_grad():
            teacher = self.teacher(noisy(others, config.noise))
        consistency = squared_error(student.float().softmax(dim=1), teacher.float().softmax(dim=1))

        weight = config.consistency_weight * sigmoid_ramp_up(
            progress.fraction, length=config.ramp_up
        )
        return Losses(
            total=supervised + weight * consistency,
            supervised=supervised,
            consistency=consistency,
            consistency_weight=weight,
        )

    def after_step(self, progress: Progress) -> None:
        """theta'_t = alpha theta'_(t-1) + (1 - alpha) theta_t."""
        decay = early_decay(self.config.decay, progress.step)
        move_average(self.teacher, self.network, decay=decay)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the teacher, or of the student if the configuration says so."""
        network = self.teacher if self.config.predict_with_teacher else self.network
        return network(image)

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of the student."""
        return [self.network(image)]


def noisy(image: Tensor, deviation: float) -> Tensor:
    """The image with Gaussian noise, cut off at twice its deviation; values may leave [0, 1].

    Drawn from the global generator, which the loop seeds anew at every step.
    """
    noise = (deviation * torch.randn_like(image)).clamp(-2 * deviation, 2 * deviation)
    return image + noise
