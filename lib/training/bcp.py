"""BCP: labelled images with a piece of an unlabelled one, and the other way round.

Bai et al. 2023, "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR,
arXiv 2305.00673.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.augment import copy_paste_box
from lib.data.batches import Batch
from lib.losses.consistency import masked_cross_entropy, masked_dice_loss
from lib.prompts.from_masks import find_components
from lib.training.averaging import averaged_copy, move_average
from lib.training.method import Losses, Method, Progress, inference
from lib.training.schedules import linear
from lib.training.semi_supervised import (
    SemiSupervisedConfig,
    labelled_view,
    sgd,
    unlabelled_view,
)


@dataclass(frozen=True, kw_only=True)
class BcpConfig(SemiSupervisedConfig):
    """The family's settings (the paper's own but for its constant rate), and the paper's.

    box: beta, the sides of the pasted region as a share of the image's.
    unlabelled_weight: alpha, of the pixels with a pseudo label against 1 of those with a mask.
    decay: of the teacher's moving average.
    pretraining: fraction of the run on labelled images alone (10,000 of 40,000 steps on ACDC).
    largest_component: keep each class's largest component of a pseudo label alone.
    """

    box: float = 2 / 3
    unlabelled_weight: float = 0.5
    decay: float = 0.99
    pretraining: float = 0.25
    largest_component: bool = True


class Bcp(Method):
    """Bidirectional copy-paste in a Mean Teacher."""

    def __init__(self, config: BcpConfig, *, network: nn.Module):
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
        """First copy-paste among labelled images, then between labelled and unlabelled ones.

        Raises:
            ValueError: odd or unequal numbers of labelled and unlabelled images in the batch.
        """
        images, masks = labelled_view(batch)
        others = unlabelled_view(batch)
        _check_pairs(len(images), len(others))
        size = tuple(images.shape[-2:])
        box = copy_paste_box(size, key=(batch.seed, 0, batch.step, "box"), share=self.config.box)
        box = box.to(images.device)
        (image_i, image_j), (mask_i, mask_j) = images.chunk(2), masks.chunk(2)

        if self.pretrains(progress):
            mixed = torch.where(box, image_j, image_i)
            loss = self.mixed_loss(self.network(mixed), box, mask_j, mask_i, inside=1, outside=1)
            return Losses(total=loss, pretraining=loss)

        # Pseudo labels of the teacher.
        other_p, other_q = others.chunk(2)
        pseudo_p, pseudo_q = self.pseudo_labels(others).chunk(2)

        # Inward: a labelled piece on an unlabelled image; outward: an unlabelled piece on a
        # labelled image. Both in one pass.
        inward = torch.where(box, image_j, other_p)
        outward = torch.where(box, other_q, image_i)
        prediction_in, prediction_out = self.network(torch.cat([inward, outward])).chunk(2)

        # L_in and L_out: Dice and cross-entropy of both regions, pseudo labels with weight alpha.
        alpha = self.config.unlabelled_weight
        loss_in = self.mixed_loss(prediction_in, box, mask_j, pseudo_p, inside=1, outside=alpha)
        loss_out = self.mixed_loss(prediction_out, box, pseudo_q, mask_i, inside=alpha, outside=1)
        return Losses(total=loss_in + loss_out, inward=loss_in, outward=loss_out)

    def mixed_loss(
        self, logits: Tensor, box: Tensor, mask: Tensor, around: Tensor, *, inside, outside
    ) -> Tensor:
        """`inside` x loss of `mask` in the box + `outside` x loss of `around` elsewhere."""
        config, total = self.config, 0.0
        for target, keep, weight in ((mask, box, inside), (around, ~box, outside)):
            keep = keep.expand_as(target)
            entropy = masked_cross_entropy(logits, target, keep)
            dice = masked_dice_loss(logits, target, keep)
            total = total + weight * (config.cross_entropy * entropy + config.dice * dice)
        return total

    def pseudo_labels(self, images: Tensor) -> Tensor:
        """The teacher's likeliest classes `B x H x W`; of each class the largest component.

        In evaluation mode, so that a label does not depend on the batch; the authors' teacher keeps
        dropout and batch statistics here.
        """
        with inference(self.teacher):
            labels = self.teacher(images).argmax(dim=1)
        return largest_components(labels) if self.config.largest_component else labels

    def pretrains(self, progress: Progress) -> bool:
        """Whether the step still learns from labelled images alone."""
        return progress.fraction < self.config.pretraining

    def after_step(self, progress: Progress) -> None:
        """The teacher is the student while that is pretrained, then its moving average."""
        decay = 0.0 if self.pretrains(progress) else self.config.decay
        move_average(self.teacher, self.network, decay=decay)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the student, as the authors' evaluation."""
        return self.network(image)


def largest_components(labels: Tensor) -> Tensor:
    """Keep the largest 8-connected component of each class in `B x H x W` labels; the rest is 0."""
    kept = torch.zeros_like(labels)
    for row, label in enumerate(labels.cpu().numpy()):
        for number in range(1, int(label.max()) + 1):
            for component in find_components(label == number, min_area=0, keep=1):
                kept[row][torch.from_numpy(component)] = number
    return kept


def _check_pairs(labelled: int, unlabelled: int) -> None:
    if labelled != unlabelled or labelled % 2:
        raise ValueError(
            f"the batch has {labelled} labelled and {unlabelled} unlabelled images, but BCP mixes "
            "pairs of both: build the BatchStream with labelled_batch equal to unlabelled_batch "
            "and even"
        )
