"""MC-Net+: three decoders of one encoder, each drawn to the sharpened answers of the others.

Wu et al. 2022, "Mutual Consistency Learning for Semi-supervised Medical Image Segmentation",
Medical Image Analysis, arXiv 2109.09960.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from lib.data.batches import Batch
from lib.losses.consistency import sharpen
from lib.models.multi_decoder import MultiDecoder
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
class McNetConfig(SemiSupervisedConfig):
    """The family's settings, and the paper's.

    cross_entropy, dice: the supervised loss is Dice alone, weight lambda = 1 (code for ACDC).
    temperature: T of the sharpening.
    consistency_weight: beta at the end of its ramp-up exp(-5 (1 - t / t_max)^2).
    """

    cross_entropy: float = 0.0
    dice: float = 1.0
    temperature: float = 0.1
    consistency_weight: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a temperature of 0."""
        super().__post_init__()
        if self.temperature == 0:
            raise ValueError("temperature must be above 0: 0 would divide by it")


class McNet(Method):
    """Mutual consistency of decoders that upsample differently."""

    def __init__(self, config: McNetConfig, *, network: MultiDecoder):
        """Train `network` in place.

        Raises:
            ValueError: it has one decoder only.
        """
        super().__init__(config)
        if not hasattr(network, "answers"):
            raise ValueError(
                f"network is a {type(network).__name__} with one decoder: pass a "
                "lib.models.multi_decoder.MultiDecoder"
            )
        self.network = network
        self._optimizer = sgd(config, network)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over encoder and decoders."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """L = lambda L_seg + beta L_mc."""
        config = self.config
        images, masks = labelled_view(batch)
        answers = self.network.answers(torch.cat([images, unlabelled_view(batch)]))

        # L_seg: every decoder learns from the masks.
        supervised = sum(
            supervised_loss(logits[: len(images)], masks, config) for logits in answers
        )

        # L_mc: every decoder's probabilities against every other's sharpened ones, on all images.
        # Both sides keep their gradient, as in the authors' code: the softer one moves more.
        probabilities = [logits.float().softmax(dim=1) for logits in answers]
        sharp = [sharpen(p, temperature=config.temperature) for p in probabilities]
        pairs = permutations(range(len(answers)), 2)
        consistency = sum(((probabilities[i] - sharp[j]) ** 2).mean() for i, j in pairs)

        weight = config.consistency_weight * sigmoid_ramp_up(progress.fraction)
        return Losses(
            total=supervised + weight * consistency,
            supervised=supervised,
            consistency=consistency,
            consistency_weight=weight,
        )

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the first decoder, as the authors' evaluation."""
        return self.network(image)

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of every decoder."""
        return self.network.answers(image)
