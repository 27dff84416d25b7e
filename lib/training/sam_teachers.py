"""Two SAMs that can teach any network: a frozen one, and one that is adapted beside it.

`lib.training.sam_distillation` asks either for a `Lesson` on the images of a step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.losses.segmentation import bce_dice
from lib.prompts.class_boxes import class_boxes
from lib.prompts.from_masks import PromptConfig
from lib.sam.adapted import AdaptedSam
from lib.sam.frozen import FrozenSam, sam_fingerprint
from lib.training.prompted_sam import PromptedSam


class Lesson(NamedTuple):
    """What a teacher says of B images.

    logits: `B x C x H x W`. answered: `B` bool, False where it has nothing to say. loss: a scalar
    that the teacher itself learns from, or None.
    """

    logits: Tensor
    answered: Tensor
    loss: Tensor | None


class FrozenTeacher:
    """SAM as it is, prompted by points and boxes from the student's prediction.

    A plain object: it is neither saved nor trained.
    """

    def __init__(self, sam: FrozenSam, prompts: PromptConfig | None = None):
        """`prompts`: see `PromptedSam`."""
        self.prompted = PromptedSam(sam, prompts)

    def teach(self, images: Tensor, student: Tensor, masks: Tensor) -> Lesson:
        """SAM's logits; images in which the student finds nothing get no answer.

        Args:
            images: `B x 3 x H x W` in [0, 1].
            student: logits `B x C x H x W`.
            masks: not looked at.
        """
        logits, answered = self.prompted.logits(images, student.detach().float().softmax(dim=1))
        return Lesson(logits, answered, None)

    def answer(self, images: Tensor, student: Tensor, *, trained: int = 0) -> Tensor:
        """SAM's logits `B x C x H x W`; nothing is trained, so `trained` changes nothing."""
        return self.prompted.logits(images, student.detach().float().softmax(dim=1))[0]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """None: nothing is trained."""
        return []

    def description(self) -> dict[str, Any]:
        """Which SAM and which prompts, for records and to recognise a run's checkpoints."""
        sam = self.prompted.sam
        return {"sam": sam_fingerprint(sam.sam), "prompts": vars(self.prompted.prompts)}


class AdaptedTeacher(nn.Module):
    """SAM with trained adapters, prompted as in KnowSAM, taught by the labelled images.

    Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equations 7 and 8.
    """

    def __init__(
        self,
        sam: AdaptedSam,
        *,
        learning_rate: float = 1e-4,
        cross_entropy: float = 1.0,
        dice: float = 1.0,
    ):
        """Train the adapters and prompts of `sam` beside a student.

        Args:
            sam: with something to train in it.
            learning_rate: of Adam (the paper's).
            cross_entropy, dice: weights of the two parts of L_sam (equation 8).

        Raises:
            ValueError: nothing in `sam` can be trained.
        """
        super().__init__()
        if not list(sam.parameters()):
            raise ValueError(
                "this AdaptedSam has neither adapters nor learnable prompts to train: call "
                "lib.sam.adapters.add_adapters before, or pass a FrozenSam"
            )
        self.sam = sam
        self.cross_entropy, self.dice = cross_entropy, dice
        self._optimizer = torch.optim.Adam(sam.parameters(), lr=learning_rate)
        self._fingerprint = sam_fingerprint(sam.sam, without_trained=True)

    def teach(self, images: Tensor, student: Tensor, masks: Tensor) -> Lesson:
        """SAM's logits with the student's as mask prompts, and SAM's loss on labelled images.

        Args:
            images: `B x 3 x H x W` in [0, 1], the labelled ones first.
            student: logits `B x C x H x W`; no gradient reaches them.
            masks: `L x H x W` of the first L <= B images.
        """
        labelled = len(masks)
        logits = self.answer(images, student.detach(), trained=labelled)
        loss = bce_dice(logits[:labelled], masks, bce=self.cross_entropy, dice=self.dice)
        answered = torch.ones(len(images), dtype=torch.bool, device=images.device)
        return Lesson(logits, answered, loss)

    def answer(self, images: Tensor, student: Tensor, *, trained: int) -> Tensor:
        """SAM's logits `B x C x H x W`, with the whole gradient of the first `trained` images."""
        boxes = class_boxes(student) if self.sam.prompts is None else None
        return self.sam(images, student, boxes, learnt_from=trained)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over adapters and learnable prompts."""
        return [self._optimizer]

    def description(self) -> dict[str, Any]:
        """Which SAM and how it is trained; its frozen weights are in no checkpoint."""
        return {
            "sam": self._fingerprint,
            "learning_rate": self._optimizer.defaults["lr"],
            "cross_entropy": self.cross_entropy,
            "dice": self.dice,
        }


def teacher_of(sam: FrozenSam | AdaptedSam | FrozenTeacher | AdaptedTeacher):
    """The teacher that fits a SAM with its defaults; a teacher is given back as it is.

    Raises:
        TypeError: it is none of them.
    """
    if isinstance(sam, FrozenTeacher | AdaptedTeacher):
        return sam
    if isinstance(sam, FrozenSam):
        return FrozenTeacher(sam)
    if isinstance(sam, AdaptedSam):
        return AdaptedTeacher(sam)
    raise TypeError(
        f"sam is a {type(sam).__name__}: pass a FrozenSam, an AdaptedSam or one of the teachers "
        "of lib.training.sam_teachers"
    )
