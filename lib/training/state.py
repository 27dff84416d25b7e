"""The state of a run: what a checkpoint holds, and which run it belongs to."""

import hashlib
from typing import Any

from lightning_fabric import Fabric
from torch.optim import Optimizer

from lib.data.batches import BatchStream
from lib.training.errors import CheckpointError
from lib.training.history import History
from lib.training.method import Method


def describe_run(method: Method, stream: BatchStream, settings: dict[str, Any]) -> dict[str, Any]:
    """What must be equal for a checkpoint to be resumed."""
    indices = repr((list(stream.labelled), list(stream.unlabelled))).encode()
    return {
        "method": type(method).__name__,
        "parameters": method.hyperparameters(),
        "data": {
            "stream": type(stream).__name__,
            "fingerprint": stream.dataset.fingerprint(),
            "size": stream.dataset.size,
            "indices": hashlib.sha256(indices).hexdigest(),
            "labelled_batch": stream.labelled_batch,
            "unlabelled_batch": stream.unlabelled_batch,
        },
        "seed": stream.seed,
        **settings,
    }


def capture(
    method: Method, optimizers: list[Optimizer], history: History, fabric: Fabric
) -> dict[str, Any]:
    """Everything that a resumed run needs; random generators are seeded by the step itself."""
    return {
        "method": method.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "precision": fabric.strategy.precision.state_dict(),
        "history": vars(history),
    }


def restore(
    state: dict[str, Any],
    method: Method,
    optimizers: list[Optimizer],
    history: History,
    fabric: Fabric,
) -> int:
    """Put back what ``capture`` took; returns the number of steps done.

    Raises:
        CheckpointError: if the checkpoint's network has other parameters.
    """
    try:
        method.load_state_dict(state["method"])
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint's network is another one: {error}") from error
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    fabric.strategy.precision.load_state_dict(state["precision"])
    vars(history).update(state["history"])
    return state["step"]
