"""URPC: one network predicts at several scales; they must agree where they are sure.

Luo et al. 2021, "Efficient Semi-Supervised Gross Target Volume of Nasopharyngeal Carcinoma
Segmentation via Uncertainty Rectified Pyramid Consistency", MICCAI, arXiv 2012.07042.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.data.batches import Batch
from lib.losses.consistency import pyramid_consistency
from lib.models.multi_scale import MultiScale
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
class UrpcConfig(SemiSupervisedConfig):
    """The family's settings (this paper's own optimiser and loss are the same), and the weight.

    consistency_weight: at the end of its ramp-up exp(-5 (1 - t / t_max)^2), over the whole run.
    """

    consistency_weight: float = 0.1


class Urpc(Method):
    """Uncertainty-rectified pyramid consistency."""

    def __init__(self, config: UrpcConfig, *, network: MultiScale):
        """Train `network` in place.

        Raises:
            ValueError: it predicts at no other scale than its own.
        """
        super().__init__(config)
        if not hasattr(network, "scales"):
            raise ValueError(
                f"network is a {type(network).__name__} with one scale: pass a "
                "lib.models.multi_scale.MultiScale"
            )
        self.network = network
        self._optimizer = sgd(config, network)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over the network."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """L = L_sup + lambda L_unsup."""
        config = self.config
        images, masks = labelled_view(batch)

        # The pyramid: S predictions at the size of the image.
        scales = self.network.scales(torch.cat([images, unlabelled_view(batch)]))

        # L_sup: every scale learns from the masks.
        labelled = len(images)
        supervised = sum(
            supervised_loss(logits[:labelled], masks, config) for logits in scales
        ) / len(scales)

        # L_unsup: distance to the mean of all scales, weighted by exp(-D_s), and D_s itself.
        rectified, uncertainty = pyramid_consistency([logits[labelled:] for logits in scales])

        weight = config.consistency_weight * sigmoid_ramp_up(progress.fraction)
        return Losses(
            total=supervised + weight * (rectified + uncertainty),
            supervised=supervised,
            consistency=rectified,
            uncertainty=uncertainty,
            consistency_weight=weight,
        )

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the finest scale."""
        return self.network(image)
