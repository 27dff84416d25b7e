"""A network and an adapted SAM that teach each other on unlabelled images.

After Miao et al. 2024, "Cross Prompting Consistency with Segment Anything Model for
Semi-supervised Medical Image Segmentation" (CPC-SAM), MICCAI, arXiv 2407.05416: one branch's
prediction prompts the other, and what comes of it is the first one's pseudo label. There both
branches are decoders of one SAM; here one of them is a small network, so that SAM is not needed
afterwards. The weights are this project's choice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.data.batches import Batch
from lib.losses.segmentation import bce_dice
from lib.sam.adapted import AdaptedSam
from lib.training.method import Losses, Method, Progress
from lib.training.sam_teachers import AdaptedTeacher
from lib.training.schedules import linear, sigmoid_ramp_up
from lib.training.semi_supervised import (
    SemiSupervisedConfig,
    labelled_view,
    sgd,
    supervised_loss,
    unlabelled_view,
)


@dataclass(frozen=True, kw_only=True)
class TwoWaySamConfig(SemiSupervisedConfig):
    """The family's settings, and those of the exchange.

    to_network, to_sam: weights of the pseudo labels that SAM gives to the network and that the
        network gives to SAM, after a ramp-up exp(-5 (1 - t)^2) over the run. With to_sam = 0 the
        exchange is one-way.
    sam_learning_rate: of Adam on SAM's adapters and prompts (KnowSAM's).
    """

    to_network: float = 1.0
    to_sam: float = 1.0
    sam_learning_rate: float = 1e-4


class TwoWaySam(Method):
    """Cross supervision of a network and of a SAM that it prompts."""

    def __init__(self, config: TwoWaySamConfig, *, network: nn.Module, sam: AdaptedSam):
        """Train `network` and the adapters and prompts of `sam` in place.

        Raises:
            ValueError: nothing in `sam` can be trained.
        """
        super().__init__(config)
        self.network = network
        self.sam = AdaptedTeacher(
            sam,
            learning_rate=config.sam_learning_rate,
            cross_entropy=config.cross_entropy,
            dice=config.dice,
        )
        self._optimizers = [sgd(config, network), *self.sam.optimizers()]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over the network, Adam over SAM's adapters and prompts."""
        return self._optimizers

    def hyperparameters(self) -> dict[str, Any]:
        """The configuration, and which SAM: its frozen weights are in no checkpoint."""
        return {**super().hyperparameters(), "sam": self.sam.description()}

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero for both."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Both learn from masks, and on unlabelled images each from the other."""
        config = self.config
        images, masks = labelled_view(batch)
        labelled = len(images)
        together = torch.cat([images, unlabelled_view(batch)])

        # The network's logits are SAM's prompts; no gradient takes that way back.
        network = self.network(together)
        sam = self.sam.answer(together, network.detach(), trained=len(together))

        # Labelled images: both learn from the masks.
        supervised = supervised_loss(network[:labelled], masks, config)
        sam_supervised = supervised_loss(sam[:labelled], masks, config)

        # Unlabelled images: each one's likeliest classes are the other's labels.
        to_network = self.exchanged(network[labelled:], sam[labelled:])
        to_sam = self.exchanged(sam[labelled:], network[labelled:])
        ramp = sigmoid_ramp_up(progress.fraction)
        crossed = config.to_network * to_network + config.to_sam * to_sam
        return Losses(
            total=supervised + sam_supervised + ramp * crossed,
            supervised=supervised,
            sam_supervised=sam_supervised,
            to_network=to_network,
            to_sam=to_sam,
            ramp=ramp,
        )

    def exchanged(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Cross-entropy and Dice of one's logits with the other's likeliest classes."""
        labels = teacher.detach().argmax(dim=1)
        return bce_dice(student, labels, bce=self.config.cross_entropy, dice=self.config.dice)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the network: SAM is not needed after training."""
        return self.network(image)

    def predict_with_sam(self, image: Tensor) -> Tensor:
        """SAM's logits, prompted by the network."""
        return self.sam.answer(image, self.network(image), trained=len(image))
