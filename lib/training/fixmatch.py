"""FixMatch: confident predictions on the weak view are the labels of the strong view.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
NeurIPS, arXiv 2001.07685, equations 3 and 4, taken to segmentation as by Yang et al. 2023
(UniMatch, arXiv 2208.09910): every pixel is a sample, and the strong view changes colours and
pastes regions (CutMix, French et al. 2020, arXiv 1906.01916), which moves no pixel.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib.data.augment import CutMixConfig, StrongConfig, cutmix
from lib.data.batches import Batch
from lib.losses.consistency import confident_cross_entropy, pseudo_labels
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import linear
from lib.training.semi_supervised import (
    SemiSupervisedConfig,
    cutmix_view,
    labelled_view,
    sgd,
    strong_view,
    supervised_loss,
    unlabelled_view,
)


@dataclass(frozen=True, kw_only=True)
class FixMatchConfig(SemiSupervisedConfig):
    """The family's settings, and those of pseudo labels (its optimiser is for classification).

    threshold: tau, the least confidence of a pseudo label (the paper's).
    unlabelled_weight: lambda_u (the paper's; no ramp-up: confidence has to grow first).
    strong, cutmix: ranges of the strong view.
    """

    threshold: float = 0.95
    unlabelled_weight: float = 1.0
    strong: StrongConfig = field(default_factory=StrongConfig)
    cutmix: CutMixConfig = field(default_factory=CutMixConfig)


class FixMatch(Method):
    """One network; the weak view teaches the strong view."""

    def __init__(self, config: FixMatchConfig, *, network: nn.Module):
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
        """l_s + lambda_u l_u."""
        config = self.config
        images, masks = labelled_view(batch)
        weak = unlabelled_view(batch)
        boxes = cutmix_view(batch, config=config.cutmix)
        strong = cutmix(boxes, strong_view(weak, batch, config=config.strong))

        # One pass over all views, so that BatchNorm sees one distribution.
        logits = self.network(torch.cat([images, weak, strong]))
        logits, weak, strong = logits.split([len(images), len(weak), len(strong)])

        # Equation 3: labelled images, weak view.
        supervised = supervised_loss(logits, masks, config)

        # Equation 4: the label of a pasted pixel comes from the image that it was taken from.
        target = cutmix(boxes, weak.detach())
        unlabelled = confident_cross_entropy(strong, target, threshold=config.threshold)

        _, confident = pseudo_labels(weak, threshold=config.threshold)
        return Losses(
            total=supervised + config.unlabelled_weight * unlabelled,
            supervised=supervised,
            unlabelled=unlabelled,
            confident=confident.float().mean(),
        )

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the network."""
        return self.network(image)
