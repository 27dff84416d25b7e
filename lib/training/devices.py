"""Devices and precision: one Lightning Fabric for a run."""

import random
import warnings
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from lib.devices import find_device, has_bfloat16

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def open_fabric(*, device: str = "auto", devices: int = 1, precision: str = "32-true") -> Fabric:
    """A launched Fabric.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        devices: number of devices (CPU processes or GPUs) that share each batch. More than one is
            for scripts: Fabric starts the script once more for each further device.
        precision: "32-true", "bf16-mixed" (bfloat16 autocast) or "16-mixed" (float16 autocast with
            a loss scale, for GPUs without bfloat16, where "bf16-mixed" works slowly and warns).

    Raises:
        ValueError: for an unknown precision, or a device that this machine does not have.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    place = find_device(device)
    if precision == "bf16-mixed" and place.type == "cuda" and not has_bfloat16(place):
        warnings.warn(
            f"{torch.cuda.get_device_name(place)} has no instructions for bfloat16 and only "
            'imitates it, slowly: precision="16-mixed" is faster here',
            stacklevel=2,
        )
    mixed = None if precision == "32-true" else StepPrecision(precision, place.type)
    if devices > 1 and place.index is not None:
        raise ValueError(f"device={device!r} names one of devices={devices}: leave its number out")
    fabric = Fabric(
        accelerator=place.type,
        devices=[place.index] if place.type == "cuda" and place.index is not None else devices,
        # A method's step need not use every parameter (phases, ramp-ups).
        strategy=DDPStrategy(find_unused_parameters=True) if devices > 1 else "auto",
        plugins=[mixed] if mixed else None,
    )
    fabric.launch()
    return fabric


class StepPrecision(MixedPrecision):
    """Fabric's mixed precision for a whole training step with any number of optimisers.

    Two differences from the parent. The batch is not cast to 16 bits on its way in: augmentation
    works on full images, autocast casts where the network wants it. And the loss scale is updated
    once a step (``update``) instead of after each optimiser, so that all optimisers of one step
    divide by the same scale.
    """

    def convert_input(self, data: Any) -> Any:
        """Leave the batch as it is."""
        return data

    def optimizer_step(self, optimizer: Any, **kwargs: Any) -> Any:
        """Step unless gradients overflowed."""
        if self.scaler is None:
            return optimizer.step(**kwargs)
        return self.scaler.step(optimizer, **kwargs)

    def update(self) -> None:
        """Adjust the loss scale after all optimisers stepped."""
        if self.scaler is not None:
            self.scaler.update()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's, numpy's and Python's global generators for one step.

    Randomness of a step (dropout, mixing) is then a pure function of seed, step and device rank:
    a resumed run draws what the uninterrupted one drew, on every device, and how often a run
    validates or saves changes nothing.
    """
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint32)
    torch.manual_seed(int(state[0]))
    np.random.seed(state[0])  # noqa: NPY002 - libraries draw from the global generator
    random.seed(int(state[0]))
