"""UniMatch: two strong views and a perturbation of the features, all taught by the weak view.

Yang et al. 2023, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation",
CVPR, arXiv 2208.09910.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.data.augment import CutMixConfig, StrongConfig, cutmix
from lib.data.batches import Batch
from lib.losses.consistency import confident_cross_entropy, masked_dice_loss, pseudo_labels
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

UNLABELLED_LOSSES = ("cross_entropy", "dice")


@dataclass(frozen=True, kw_only=True)
class UniMatchConfig(SemiSupervisedConfig):
    """The family's settings (its medical experiment has the same optimiser), and the paper's.

    threshold: tau, the least confidence of a pseudo label.
    feature_weight, image_weight: lambda and mu, weights of the two kinds of perturbation.
    feature_dropout: probability of dropping a channel of the encoder's features, at every level.
    unlabelled_loss: "cross_entropy", the paper's; or "dice" over the confident pixels, which the
        authors' code for medical images has.
    strong, cutmix: ranges of the strong views.
    """

    threshold: float = 0.95
    feature_weight: float = 0.5
    image_weight: float = 0.5
    feature_dropout: float = 0.5
    unlabelled_loss: str = "cross_entropy"
    strong: StrongConfig = field(default_factory=StrongConfig)
    cutmix: CutMixConfig = field(default_factory=CutMixConfig)

    def __post_init__(self) -> None:
        """Refuse an unknown loss."""
        super().__post_init__()
        if self.unlabelled_loss not in UNLABELLED_LOSSES:
            raise ValueError(
                f"unlabelled_loss must be one of {', '.join(UNLABELLED_LOSSES)}, not "
                f"{self.unlabelled_loss!r}"
            )


class UniMatch(Method):
    """Unified dual-stream perturbations of one network's images and features."""

    def __init__(self, config: UniMatchConfig, *, network: nn.Module):
        """Train `network` in place; it must have `encode` and `decode`, as `UNet2d` has.

        Raises:
            ValueError: it has not.
        """
        super().__init__(config)
        if not (hasattr(network, "encode") and hasattr(network, "decode")):
            raise ValueError(
                f"network is a {type(network).__name__} without encode and decode, between which "
                "UniMatch perturbs features: pass a UNet2d or a VNet2d"
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
        """L = (L_s + L_u) / 2."""
        config = self.config
        images, masks = labelled_view(batch)
        weak = unlabelled_view(batch)
        names = ("first", "second")
        boxes = [cutmix_view(batch, view=f"{n} cutmix", config=config.cutmix) for n in names]
        strong = [
            cutmix(box, strong_view(weak, batch, view=f"{name} strong", config=config.strong))
            for box, name in zip(boxes, names, strict=True)
        ]

        # p_w = h(e_w) and p_fp = h(P(e_w)): e_w are the encoder's features g(A_w(x)), h is the
        # decoder, P drops channels. Both pass the decoder together.
        features = self.network.encode(torch.cat([images, weak]))
        dropped = [
            functional.dropout2d(level[len(images) :], config.feature_dropout) for level in features
        ]
        decoded = self.network.decode(
            [torch.cat(pair) for pair in zip(features, dropped, strict=True)]
        )
        logits, p_w, p_fp = decoded.split([len(images), len(weak), len(weak)])

        # p_s1 and p_s2: two strong views of the same weak view.
        p_s1, p_s2 = self.network(torch.cat(strong)).chunk(2)

        # L_u: the weak view's confident predictions teach all three.
        p_w = p_w.detach()
        feature = self.consistency(p_fp, p_w)
        first, second = (
            self.consistency(p_s, cutmix(box, p_w))
            for p_s, box in ((p_s1, boxes[0]), (p_s2, boxes[1]))
        )
        image = (first + second) / 2
        supervised = supervised_loss(logits, masks, config)
        unlabelled = config.feature_weight * feature + config.image_weight * image

        _, confident = pseudo_labels(p_w, threshold=config.threshold)
        return Losses(
            total=(supervised + unlabelled) / 2,
            supervised=supervised,
            feature=feature,
            image=image,
            confident=confident.float().mean(),
        )

    def consistency(self, logits: Tensor, target: Tensor) -> Tensor:
        """H(p_w, p) of one perturbed prediction, where p_w is confident."""
        threshold = self.config.threshold
        if self.config.unlabelled_loss == "dice":
            return masked_dice_loss(logits, *pseudo_labels(target, threshold=threshold))
        return confident_cross_entropy(logits, target, threshold=threshold)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the network."""
        return self.network(image)
