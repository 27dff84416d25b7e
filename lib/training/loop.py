"""The training loop: everything that is the same for all methods."""

import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from lib.data.batches import Batch, BatchStream
from lib.evaluation.provenance import reset_peak_gpu_memory
from lib.training.checkpoint import Checkpoints
from lib.training.devices import StepPrecision, open_fabric, seed_step
from lib.training.errors import CheckpointError, TrainingError
from lib.training.history import History
from lib.training.interrupt import StopRequest
from lib.training.method import Losses, Method, Progress, inference
from lib.training.reporting import ProgressLine, Reporter
from lib.training.state import capture, describe_run, restore


def fit(
    method: Method,
    stream: BatchStream,
    *,
    steps: int,
    directory: Path | str | None = None,
    resume: bool = True,
    checkpoint_every: int = 200,
    validate: Callable[[Method], dict[str, float]] | None = None,
    validate_every: int | None = None,
    score: str = "dice",
    precision: str = "32-true",
    device: str = "auto",
    devices: int = 1,
    max_grad_norm: float | None = None,
    progress: bool | Reporter = True,
) -> History:
    """Train ``method`` for ``steps`` steps; afterwards it holds the last weights, where it was.

    On the CPU the result is bit-identical whether the run was uninterrupted or killed at any step
    and resumed. Global random generators are seeded at every step (``seed_step``).

    Args:
        stream: batches; batch number ``step`` depends on the stream's seed and on ``step`` alone.
        directory: where checkpoints go; None keeps none. Calling ``fit`` again with equal
            arguments resumes there, and returns at once if the run was complete.
        resume: False deletes the checkpoints in ``directory`` and starts over.
        checkpoint_every: steps between checkpoints; one more is written at the end.
        validate: scores of the method in evaluation mode, without gradients; the weights that
            are best by ``score`` (higher is better, the earlier of equals) are kept in
            ``History.best_state``. The test data have no business here. If it raises, the step is
            saved first, and resuming begins with the missing validation.
        validate_every: steps between validations, by default a tenth of the run; one more is made
            at the end.
        precision, device, devices: as in ``lib.training.devices.open_fabric``. With several
            devices each takes its share of every batch.
        max_grad_norm: largest gradient norm of an optimiser's parameters; longer ones are scaled.
        progress: True for a line, False for silence, or a reporter such as
            ``lib.display.progress.LiveCurve()``.

    Raises:
        TrainingError: if the loss or the weights stop being finite; the checkpoints from before
            are kept.
        CheckpointError: if the checkpoints in ``directory`` belong to another run or are all
            damaged, or if the last one could not be written.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the step is finished and saved.
    """
    validate_every = validate_every or max(1, steps // 10)
    for name, value in {"steps": steps, "checkpoint_every": checkpoint_every}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name in ("labelled_batch", "unlabelled_batch"):
        if getattr(stream, name) % devices:
            raise ValueError(f"{name} {getattr(stream, name)} does not divide by {devices} devices")
    fabric = open_fabric(device=device, devices=devices, precision=precision)
    optimizers = method.optimizers()
    fused = any(group.get("fused") for o in optimizers for group in o.param_groups)
    if max_grad_norm is not None and precision == "16-mixed" and fused:
        raise ValueError(
            "max_grad_norm cannot clip what a fused optimizer unscales itself in 16-mixed: train "
            "in bf16-mixed or 32-true, or without max_grad_norm"
        )
    home = next(method.parameters()).device
    module, *wrapped = fabric.setup(method, *optimizers)
    history = History(score=score)
    checkpoints, start = None, 0
    if directory is not None:
        settings = {"steps": steps, "precision": precision, "max_grad_norm": max_grad_norm}
        settings |= {"validate_every": validate_every if validate else None, "score": score}
        checkpoints = Checkpoints(directory, describe_run(method, stream, settings))
        if not resume and fabric.is_global_zero:
            checkpoints.clear()
        fabric.barrier()
        if state := checkpoints.latest():
            start = restore(state, method, optimizers, history, fabric)
    reporter = ProgressLine() if progress is True else progress or None
    method.train()
    reset_peak_gpu_memory()
    began = time.monotonic() - history.seconds

    def validate_if_due(done: int) -> None:
        if validate and (done % validate_every == 0 or done == steps):
            with inference(method):
                history.add_validation(done, validate(method), method)

    with StopRequest() as stop:
        try:
            if start and [row["step"] for row in history.validations[-1:]] != [start]:
                validate_if_due(start)
            for batch in stream.iterate(start, steps):
                position = Progress(batch.step, steps)
                seed_step(stream.seed, batch.step, fabric.global_rank)
                method.schedule(position)
                method.before_step(position, stream)
                batch = _share(batch, fabric).to(fabric.device)
                losses = module(batch, position)
                row = _numbers(losses, fabric)
                if not all(math.isfinite(value) for value in row.values()):
                    raise TrainingError(_not_finite(batch, row, steps, checkpoints))
                _update(fabric, module, losses, wrapped, max_grad_norm)
                method.after_step(position)

                done = batch.step + 1
                history.steps.append({"step": done, **row, **_rates(optimizers)})
                failure = None
                try:
                    validate_if_due(done)
                except Exception as error:
                    failure = error
                history.steps[-1]["seconds"] = time.monotonic() - began
                history.measure_memory()
                stopping = _any_device(stop.requested or failure is not None, fabric)
                due = done % checkpoint_every == 0 or done == steps or stopping
                if done == steps or (checkpoints and due):
                    _require_finite_weights(method, done, checkpoints)
                if checkpoints and due and fabric.is_global_zero:
                    checkpoints.save(done, capture(method, optimizers, history, fabric))
                if reporter and fabric.is_global_zero:
                    reporter.update(history, steps)
                if failure:
                    failure.add_note(_how_to_resume(done, steps, checkpoints))
                    raise failure
                if stopping and (done < steps or checkpoints):  # else the result would be lost
                    raise KeyboardInterrupt(_how_to_resume(done, steps, checkpoints))
        except TrainingError as error:
            error.history = history
            raise
        finally:
            method.to(home)  # who trained on a GPU goes on with CPU tensors as before
            if reporter:
                reporter.close()
    if checkpoints and checkpoints.failure:
        error = CheckpointError(
            f"training is complete but its last checkpoint could not be written to {directory} "
            f"({checkpoints.failure}); the method in memory holds the last weights"
        )
        error.history = history
        raise error
    return history


def _update(fabric: Fabric, module, losses: Losses, wrapped: list, max_grad_norm) -> None:
    """One backward pass, then every optimiser."""
    for optimizer in wrapped:
        optimizer.zero_grad()
    fabric.backward(losses.total)
    if max_grad_norm is not None:
        for optimizer in wrapped:
            fabric.clip_gradients(
                module, optimizer, max_norm=max_grad_norm, error_if_nonfinite=False
            )
    for optimizer in wrapped:
        optimizer.step()
    if isinstance(fabric.strategy.precision, StepPrecision):
        fabric.strategy.precision.update()


def _share(batch: Batch, fabric: Fabric) -> Batch:
    """This device's part of a batch; the parts of all devices together are the batch."""
    if fabric.world_size == 1:
        return batch

    def every_nth(part):
        rows = slice(fabric.global_rank, None, fabric.world_size)
        return part and replace(part, **{f.name: getattr(part, f.name)[rows] for f in fields(part)})

    return replace(
        batch, labelled=every_nth(batch.labelled), unlabelled=every_nth(batch.unlabelled)
    )


def _numbers(losses: Losses, fabric: Fabric) -> dict[str, float]:
    """Losses as Python numbers, tensors averaged over the devices, in one transfer."""
    tensors = {name: value for name, value in losses.items() if isinstance(value, torch.Tensor)}
    place = losses.total.device
    values = torch.stack([value.detach().float().to(place) for value in tensors.values()])
    if fabric.world_size > 1:
        values = fabric.all_reduce(values, reduce_op="mean")
    numbers = dict(zip(tensors, values.tolist(), strict=True))
    return {name: numbers.get(name, value) for name, value in losses.items()}


def _rates(optimizers: list[torch.optim.Optimizer]) -> dict[str, float]:
    """Learning rate of each optimiser's first group."""
    names = ["learning_rate", *(f"learning_rate_{i}" for i in range(2, len(optimizers) + 1))]
    return {n: o.param_groups[0]["lr"] for n, o in zip(names, optimizers, strict=True)}


def _any_device(flag: bool, fabric: Fabric) -> bool:
    """Whether any device has raised the flag: all must stop after the same step."""
    if fabric.world_size == 1:
        return flag
    raised = torch.tensor(float(flag), device=fabric.device)
    return bool(fabric.all_reduce(raised, reduce_op="sum"))


def _require_finite_weights(method: Method, done: int, checkpoints: Checkpoints) -> None:
    """A checkpoint of broken weights would push the last good one out."""
    numbers = [*method.named_parameters(), *method.named_buffers()]
    broken = [n for n, p in numbers if p.is_floating_point() and not torch.isfinite(p).all()]
    if broken:
        raise TrainingError(
            f"after step {done} the weights are not finite ({', '.join(broken[:5])}, "
            f"{len(broken)} in all); {_last_good(checkpoints)}"
        )


def _not_finite(batch: Batch, row: dict[str, float], steps: int, checkpoints) -> str:
    losses = ", ".join(f"{name} {value:g}" for name, value in row.items())
    message = (
        f"the loss is not finite at step {batch.step + 1} of {steps}: {losses}. "
        f"Labelled images: {', '.join(batch.labelled.names)}."
    )
    if batch.unlabelled is not None:
        message += f" Unlabelled images: {', '.join(batch.unlabelled.names)}."
    return f"{message} Try a lower learning rate or max_grad_norm; {_last_good(checkpoints)}"


def _last_good(checkpoints: Checkpoints | None) -> str:
    paths = checkpoints.paths() if checkpoints else []
    return f"the last good checkpoint is {paths[0]}" if paths else "there is no checkpoint yet"


def _how_to_resume(done: int, steps: int, checkpoints: Checkpoints | None) -> str:
    if checkpoints is None:
        return f"stopped after step {done} of {steps}; nothing is saved without a directory"
    if checkpoints.failure:
        return f"stopped after step {done} of {steps}; saving failed ({checkpoints.failure})"
    return (
        f"stopped after step {done} of {steps} and saved in {checkpoints.directory}; "
        "the same call of fit() goes on from there"
    )
