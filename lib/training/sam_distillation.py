"""SAM-induced knowledge distillation (SKD) as a plug-in for any method that has a student.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equations 9 and 10, and the paper's claim that they
help other semi-supervised methods too.

The wrapped method does not know. Its own step runs first, untouched; then its networks are asked
once more, on a view of the same batch that is augmented weakly or not at all, and SAM's softened
answer on that view is added as a target. The view does not come out of the method's step because
what a method feeds its networks may be noisy, recoloured or pasted together, which SAM has no
business to see; the weak view is pixel for pixel the one that the method drew itself, because
augmentation is a function of its key. The price is one more pass of the student, in training mode:
dropout is drawn anew, and BatchNorm's running statistics see the view too.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lib.data.batches import Batch
from lib.losses.distillation import TEMPERATURE, distillation_loss
from lib.sam.adapted import AdaptedSam
from lib.sam.frozen import FrozenSam
from lib.training.method import Losses, Method, Progress
from lib.training.sam_teachers import AdaptedTeacher, FrozenTeacher, teacher_of
from lib.training.schedules import linear
from lib.training.semi_supervised import labelled_view, unlabelled_view

VIEWS = ("weak", "plain")


@dataclass(frozen=True, kw_only=True)
class SamDistillationConfig:
    """Defaults are the paper's.

    weight: of L_kd beside the method's own loss (1 in equation 14). 0 switches SAM off altogether:
        the method trains as if alone, bit for bit, and at no cost.
    temperature: T, equation 9.
    view: "weak", as the paper's labelled images; or "plain", without augmentation: then a frozen
        SAM with a cache encodes each image once in the whole run.
    """

    weight: float = 1.0
    temperature: float = TEMPERATURE
    view: str = "weak"

    def __post_init__(self) -> None:
        """Refuse values that would silently do something else."""
        if self.weight < 0:
            raise ValueError(f"weight must be at least 0, not {self.weight}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, not {self.view!r}")


def sam_distillation(
    method: Method,
    sam: FrozenSam | AdaptedSam | FrozenTeacher | AdaptedTeacher,
    **settings,
) -> "SamDistillation":
    """`method` with SAM as one more teacher; it predicts as before, without SAM.

    Args:
        method: any; its `student_logits` says which networks are taught.
        sam: a frozen SAM, prompted from the students' predictions; an adapted one, which is
            trained beside them on the labelled images; or either as a teacher of one's own making.
        settings: changes of `SamDistillationConfig`.
    """
    return SamDistillation(
        SamDistillationConfig(**settings), method=method, teacher=teacher_of(sam)
    )


class SamDistillation(Method):
    """A method and a SAM that teaches its students."""

    def __init__(
        self,
        config: SamDistillationConfig,
        *,
        method: Method,
        teacher: FrozenTeacher | AdaptedTeacher,
    ):
        """Wrap `method`; its parts are trained and saved as before."""
        super().__init__(config)
        self.method = method
        self.teacher = teacher

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """The method's own step, then equations 7 to 10."""
        losses = self.method(batch, progress)
        if self.config.weight == 0:
            return losses
        images, masks = self.view(batch)
        students = self.method.student_logits(images)

        # Equation 7: SAM, prompted by what the students agree on, and equation 8, its own loss.
        lesson = self.teacher.teach(images, torch.stack(students).mean(dim=0).detach(), masks)

        # Equations 9 and 10: each student learns from SAM at temperature T. A mean over all images:
        # where SAM was not asked there is no difference to learn from.
        distilled = images.new_zeros(())
        if lesson.answered.any():
            distilled = (
                sum(
                    distillation_loss(
                        logits[lesson.answered],
                        lesson.logits[lesson.answered],
                        temperature=self.config.temperature,
                    )
                    for logits in students
                )
                * lesson.answered.float().mean()
            )
        total = losses.total + self.config.weight * distilled
        more = {"sam_distillation": distilled, "sam_answered": lesson.answered.float().mean()}
        if lesson.loss is not None:
            total = total + lesson.loss
            more["sam_loss"] = lesson.loss
        return Losses({**losses, "total": total, **more})

    def view(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images `(L + U) x 3 x H x W`, the labelled ones first, and the masks of those."""
        if self.config.view == "weak":
            images, masks = labelled_view(batch)
            parts = [images] if batch.unlabelled is None else [images, unlabelled_view(batch)]
        else:
            masks = batch.labelled.mask
            given = (batch.labelled, batch.unlabelled)
            parts = [part.image for part in given if part is not None]
        return torch.cat(parts), masks

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The method's, then the teacher's, unless the weight is 0 and it learns nothing."""
        if self.config.weight == 0:
            return self.method.optimizers()
        return [*self.method.optimizers(), *self.teacher.optimizers()]

    def schedule(self, progress: Progress) -> None:
        """The method's own schedule; a straight line to zero for the teacher, as in KnowSAM."""
        self.method.schedule(progress)
        for optimizer in self.teacher.optimizers():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
                group["lr"] = group["initial_lr"] * linear(progress.fraction)

    def before_step(self, progress: Progress, stream: Any) -> None:
        """The method's own."""
        self.method.before_step(progress, stream)

    def after_step(self, progress: Progress) -> None:
        """The method's own."""
        self.method.after_step(progress)

    def predict(self, image: Tensor) -> Tensor:
        """The method's own prediction: SAM is not needed."""
        return self.method.predict(image)

    def predict_with_sam(self, image: Tensor) -> Tensor:
        """The teacher's logits, prompted by what the students agree on, as in training."""
        students = torch.stack(self.method.student_logits(image)).mean(dim=0)
        return self.teacher.answer(image, students, trained=len(image))

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """The method's own students."""
        return self.method.student_logits(image)

    def hyperparameters(self) -> dict[str, Any]:
        """The method's, this file's and the teacher's."""
        return {
            "method": {"name": type(self.method).__name__, **self.method.hyperparameters()},
            "sam_distillation": asdict(self.config),
            "teacher": {"name": type(self.teacher).__name__, **self.teacher.description()},
        }
