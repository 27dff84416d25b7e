"""The family's baseline: the same network, optimiser and steps, on the labelled images alone.

`lib.training.supervised` is the baseline of Knowledge Mining, with that method's optimiser.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.batches import Batch
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import linear
from lib.training.semi_supervised import (
    SemiSupervisedConfig,
    labelled_view,
    sgd,
    supervised_loss,
)


@dataclass(frozen=True, kw_only=True)
class SupervisedBaselineConfig(SemiSupervisedConfig):
    """The family's settings; unlabelled images are not even loaded."""

    unlabelled_batch: int = 0

    @classmethod
    def quick(cls, **changes) -> "SupervisedBaselineConfig":
        """A short run for the CPU: small images, few steps."""
        return super().quick(**{"unlabelled_batch": 0, **changes})


class SupervisedBaseline(Method):
    """One network, one loss."""

    def __init__(self, config: SupervisedBaselineConfig, *, network: nn.Module):
        """Train `network` (`B x 3 x H x W` in [0, 1] to logits) in place."""
        super().__init__(config)
        self.network = network
        self._optimizer = sgd(config, network)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over the network."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """The supervised loss; an unlabelled part of the batch is not looked at."""
        images, masks = labelled_view(batch)
        return Losses(total=supervised_loss(self.network(images), masks, self.config))

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the network."""
        return self.network(image)
