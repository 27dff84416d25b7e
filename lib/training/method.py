"""What a training method is: modules, optimisers, one training step, one prediction.

The loop (``lib.training.loop.fit``) owns what is the same for all methods: batches, devices,
precision, checkpoints, history. A method owns what its paper says. A method reads::

    class MeanTeacher(Method):
        def __init__(self, config, network): ...      # modules, then optimisers
        def step(self, batch, progress): ...          # the paper's equations, in its order
        def predict(self, image): ...                 # what the paper uses at inference
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

# How a method is asked for predictions belongs to its interface, so it is found here as well.
from lib.models.inference import inference as inference
from lib.training.schedules import cosine


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where the run stands: ``step`` counts from 0 to ``total - 1``."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """``step / total``, in [0, 1)."""
        return self.step / self.total


class Losses(dict):
    """Named losses of one step: ``Losses(total=a + b, supervised=a, pseudo=b)``.

    ``total`` (a scalar tensor) is differentiated by the loop; every entry, scalar tensor or number,
    is written to the history under its name.
    """

    @property
    def total(self) -> Tensor:
        """The scalar that the loop differentiates."""
        return self["total"]


class Method(nn.Module):
    """One training method. Subclasses write ``optimizers``, ``step`` and ``predict``.

    Everything that must survive a crash lives where ``state_dict`` finds it: in parameters,
    buffers (an exponential-moving-average teacher is a submodule without gradients), or, for
    anything else such as pseudo labels, in ``get_extra_state`` / ``set_extra_state`` built of
    tensors, numbers, strings, lists and dicts. Frozen foundation models stay outside
    (``lib.sam.frozen.FrozenSam`` is no module), so they are neither saved nor trained.
    """

    def __init__(self, config: Any = None):
        """Keep ``config``, a frozen dataclass of the method's hyper-parameters.

        It goes into records, and a checkpoint is only resumed by a method of equal ``config``.
        """
        super().__init__()
        self.config = config

    def forward(self, batch: Any, progress: Progress) -> Losses:
        """The training step: ``Method`` is called as a module so that Fabric can wrap the step."""
        return self.step(batch, progress)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimisers, built once in ``__init__``: every call returns the same objects.

        The loop zeroes all of them, differentiates ``Losses.total`` once, then steps all of them.
        A loss that must not reach a module is cut off inside ``step`` by ``detach``.
        """
        raise NotImplementedError

    def step(self, batch: Any, progress: Progress) -> Losses:
        """One training step in train mode, under the loop's precision.

        Args:
            batch: ``lib.data.batches.Batch`` on the loop's device; images are not augmented yet.
            progress: position in the run, for ramp-ups and for switches between phases.
        """
        raise NotImplementedError

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``B x C x H x W`` of ``image`` (``B x 3 x H x W`` in [0, 1]).

        Callers hold ``inference(method)``, which sets evaluation mode and stops gradients.
        """
        raise NotImplementedError

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of every network that learns, with gradients, for whoever wants to teach them.

        ``lib.training.sam_distillation`` adds its loss here. The default is the prediction;
        override it where that is a teacher's, or where several networks learn.
        """
        return [self.predict(image)]

    def learning_rate(self, progress: Progress) -> float:
        """Factor on every optimiser's own learning rate; the default is a cosine to zero."""
        return cosine(progress.fraction)

    def schedule(self, progress: Progress) -> None:
        """Set all learning rates; called before each step.

        The default applies ``learning_rate`` to every parameter group. Override it where
        optimisers follow different schedules. ``initial_lr`` is the key that torch's own
        schedulers use; it is part of the optimiser's state, so it survives a resume.
        """
        factor = self.learning_rate(progress)
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
                group["lr"] = group["initial_lr"] * factor

    def before_step(self, progress: Progress, stream: Any) -> None:
        """Work before a step, such as mining pseudo labels every so many steps.

        Args:
            stream: the run's ``lib.data.batches.BatchStream`` (``.dataset``, ``.labelled`` and
                ``.unlabelled`` indices).
        """

    def after_step(self, progress: Progress) -> None:
        """Work after the optimisers stepped, such as moving an averaged teacher."""

    def hyperparameters(self) -> dict[str, Any]:
        """``config`` as a plain dict, for records and to recognise the run's checkpoints."""
        return {} if self.config is None else dataclasses.asdict(self.config)
