"""CPS: two networks of the same form, each taught by the other's hard predictions.

Chen et al. 2021, "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision", CVPR,
arXiv 2106.01226.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.data.batches import Batch
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
class CpsConfig(SemiSupervisedConfig):
    """The family's settings, and those of cross pseudo supervision.

    cross_weight: lambda (the paper's 1.5 for PASCAL VOC; 6 for Cityscapes; SSL4MIS: 0.1).
    ramp_up: fraction of the run over which the weight rises as exp(-5 (1 - t)^2). The paper, whose
        encoders are pretrained, has none: 0. SSL4MIS: 1.
    """

    cross_weight: float = 1.5
    ramp_up: float = 0.0


class Cps(Method):
    """Two networks that differ in their initial weights."""

    def __init__(self, config: CpsConfig, *, network: nn.Module, second: nn.Module):
        """Train both networks in place; their first weights must differ.

        Raises:
            ValueError: the networks are equal, so that they would never disagree.
        """
        super().__init__(config)
        if _equal(network, second):
            raise ValueError("network and second have equal weights: build them from two seeds")
        self.network, self.second = network, second
        self._optimizer = sgd(config, network, second)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over both networks."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """L = L_s + lambda L_cps."""
        config = self.config
        images, masks = labelled_view(batch)
        together = torch.cat([images, unlabelled_view(batch)])

        # P_1 = f(X; theta_1), P_2 = f(X; theta_2).
        first, second = self.network(together), self.second(together)

        # L_s: both learn from the masks.
        supervised = sum(
            supervised_loss(logits[: len(images)], masks, config) for logits in (first, second)
        )

        # L_cps: each learns from the other's likeliest class Y, on labelled and unlabelled images.
        cross = functional.cross_entropy(first.float(), second.argmax(dim=1))
        cross = cross + functional.cross_entropy(second.float(), first.argmax(dim=1))

        weight = config.cross_weight * sigmoid_ramp_up(progress.fraction, length=config.ramp_up)
        return Losses(
            total=supervised + weight * cross,
            supervised=supervised,
            cross=cross,
            cross_weight=weight,
        )

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the first network, as the paper's evaluation does."""
        return self.network(image)

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of both networks."""
        return [self.network(image), self.second(image)]


def _equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        ours[name].shape == theirs[name].shape and torch.equal(ours[name], theirs[name])
        for name in ours
    )
