"""Training on the labelled images alone: the baseline that every other method must beat."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.augment import weak_batch
from lib.data.batches import Batch
from lib.losses.segmentation import bce_dice
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import cosine


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """Defaults are this project's choices, the same for the first training of Knowledge Mining.

    The paper (Mao et al. 2025, arXiv 2503.06816) was open to us by its abstract alone, which names
    a supervised loss but neither its formula nor the optimiser.

    learning_rate: of Adam (Kingma and Ba 2015), at the top of the cosine.
    warmup: fraction of the run over which the rate first rises from 0.
    bce, dice: weights of the two parts of the loss.
    batch: labelled images in a step; whoever builds the BatchStream reads it from here.
    steps: length of a run; whoever calls `fit` reads it from here.
    size: side of the images in pixels.
    """

    learning_rate: float = 1e-3
    warmup: float = 0.0
    bce: float = 0.5
    dice: float = 1.0
    batch: int = 16
    steps: int = 10_000
    size: int = 256

    @classmethod
    def quick(cls, **changes) -> "SupervisedConfig":
        """A short run for the CPU: small images, few steps."""
        return cls(**{"batch": 8, "steps": 120, "size": 96, **changes})


class Supervised(Method):
    """One network, one loss: cross-entropy and Dice on weakly augmented labelled images."""

    def __init__(self, config: SupervisedConfig, *, network: nn.Module):
        """Train ``network`` (``B x 3 x H x W`` in [0, 1] to logits) in place."""
        super().__init__(config)
        self.network = network
        self._optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over the network."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A cosine to zero, after the warm-up."""
        return cosine(progress.fraction, warmup=self.config.warmup)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """The supervised loss; an unlabelled part of the batch is not looked at."""
        labelled = batch.labelled
        images, masks = weak_batch(
            labelled.image,
            labelled.mask,
            seed=batch.seed,
            epoch=labelled.epoch,
            indices=labelled.index,
        )
        loss = bce_dice(self.network(images), masks, bce=self.config.bce, dice=self.config.dice)
        return Losses(total=loss)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the network."""
        return self.network(image)
