"""Errors of a training run; their messages say what is kept and how to go on."""


class TrainingError(RuntimeError):
    """A run that cannot go on, such as one whose loss is no longer finite.

    Attributes:
        history: ``lib.training.history.History`` up to the failure, or None.
    """

    history = None


class CheckpointError(TrainingError):
    """A checkpoint that cannot be written, read, or used for this run."""
