"""One stage of a training in several: resumed where it stopped, skipped when done, on record."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from torch import nn

from lib.data.batches import BatchStream
from lib.evaluation.provenance import provenance
from lib.files import replacing
from lib.fingerprint import tensors_fingerprint
from lib.training.history import History
from lib.training.loop import fit
from lib.training.method import Method
from lib.training.state import describe_run

RECORD = "stage.json"
DEPENDS = ("precision", "max_grad_norm")  # settings of `fit` that change its result


def run_stage(
    name: str,
    method: Method,
    stream: BatchStream,
    *,
    steps: int,
    directory: Path | str,
    teacher: str = "",
    **settings,
) -> dict:
    """Run `fit`, or find that it ran; afterwards `method` holds the trained weights.

    The folder of a stage is named by all that its result depends on: method, parameters, data,
    seed, steps, precision, the weights that it starts from, and its teacher. A stage that ran
    before is therefore not run again, one that was interrupted goes on, and after any change, be
    it in an earlier stage, it runs anew in a folder of its own. Variants share stages: a process
    waits for another one that is running the stage.

    Args:
        name: of the stage, the beginning of its folder's name.
        directory: holds the folders of all stages.
        teacher: fingerprint of the frozen model that the method learns from, if any.
        settings: of `fit`.

    Returns:
        The record, also written beside the checkpoints as ``stage.json``: what ran, from which
        weights to which, first and last losses, seconds, and under which code and packages.
    """
    start = weights_fingerprint(method)
    depends = {"steps": steps} | {key: settings[key] for key in DEPENDS if key in settings}
    run = {"stage": name, **describe_run(method, stream, depends)}
    run |= {"started_from": start, "teacher": teacher}
    key = hashlib.sha256(json.dumps(run, sort_keys=True, default=str).encode()).hexdigest()
    folder = Path(directory) / f"{name}-{key[:16]}"
    written = folder / RECORD
    shared = settings.get("devices", 1) == 1  # several devices of one run must not wait in turn
    with alone(folder) if shared else contextlib.nullcontext():
        found = json.loads(written.read_text("utf-8")) if written.is_file() else None
        under = provenance() if found is None else {}  # first: the checkout may change meanwhile
        history = fit(method, stream, steps=steps, directory=folder, **settings)
        ended = weights_fingerprint(method)
        if found is not None and found["ended_at"] == ended:
            return found
        record = {**run, **_summary(history), "ended_at": ended, **(under or provenance())}
        with replacing(written) as temporary:
            temporary.write_text(json.dumps(record, indent=1, default=str) + "\n", "utf-8")
    return record


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, and say so if another process has to finish first.

    Where no lock can be had (a folder that may only be read, some network disks) nobody waits.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process trains {folder.name}; waiting for it", flush=True)
        lock.acquire()
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all tensors in the module's state."""
    state = module.state_dict().items()  # a method's extra state need not be a tensor
    return tensors_fingerprint({name: t for name, t in state if hasattr(t, "shape")})


def _summary(history: History) -> dict:
    losses = [{k: v for k, v in row.items() if k != "seconds"} for row in history.steps]
    return {
        "first": losses[0],
        "last": losses[-1],
        "validations": history.validations,
        "seconds": history.seconds,
        "peak_memory_mb": history.peak_memory_mb,
        "peak_gpu_memory_mb": history.peak_gpu_memory_mb,
    }
