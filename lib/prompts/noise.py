"""Controlled damage to prompts: how much error in a prompt can SAM take?

Each function takes the prompts of one image, returns new ones and leaves the given ones as they
are. All randomness comes from the seed. Sizes are relative to the object, so that one number
means the same for a small and for a large one.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lib.prompts.from_masks import Prompt


def jitter_boxes(prompts: Sequence[Prompt], *, fraction: float, seed: int) -> list[Prompt]:
    """Move each side of each box by a normal error of ``fraction`` of the box's side.

    x errors scale with the width and y errors with the height (standard deviation). Corners are
    kept inside the image and in order. Prompts without a box stay as they are.
    """
    generator = _generator(seed, fraction=fraction)
    return [_jitter_box(prompt, fraction, generator) for prompt in prompts]


def move_points(prompts: Sequence[Prompt], *, fraction: float, seed: int) -> list[Prompt]:
    """Move each point by a normal error of ``fraction`` of the object's side, inside the image.

    x errors scale with the width of the component and y errors with its height. A moved positive
    point may leave its object: that is the error under study; labels do not change.
    """
    generator = _generator(seed, fraction=fraction)
    return [_move_points(prompt, fraction, generator) for prompt in prompts]


def drop_prompts(prompts: Sequence[Prompt], *, fraction: float, seed: int) -> list[Prompt]:
    """Forget each prompt with probability ``fraction``: objects that the network missed."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction}: expected a probability in [0, 1]")
    kept = np.random.default_rng(seed).random(len(prompts)) >= fraction
    return [prompt for prompt, keep in zip(prompts, kept, strict=True) if keep]


def add_false_positives(prompts: Sequence[Prompt], *, count: int, seed: int) -> list[Prompt]:
    """Add up to ``count`` prompts at places without an object.

    An invented prompt is a copy of a random given one, shifted to where its component's bounding
    rectangle meets no component: its kind and size are those of the real prompts. Where there is
    no room, or no prompt to copy, fewer are added. Invented prompts may overlap each other.
    """
    if count < 0:
        raise ValueError(f"count={count}: expected a number >= 0")
    generator = np.random.default_rng(seed)
    invented = []
    for _ in range(count if prompts else 0):
        template = prompts[generator.integers(len(prompts))]
        occupied = torch.stack([prompt.component for prompt in prompts]).any(dim=0).numpy()
        places = free_places(occupied, template.component.numpy())
        if len(places):
            invented.append(_shifted(template, *places[generator.integers(len(places))]))
    return [*prompts, *invented]


def free_places(occupied: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Shifts (rows, columns), N x 2, that bring a component to where nothing is occupied.

    Both arrays are H x W bool. Counts the occupied pixels under every position of the bounding
    rectangle with a summed-area table.
    """
    rows = np.flatnonzero(component.any(axis=1))
    columns = np.flatnonzero(component.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    table = np.pad(occupied.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    covered = (
        table[height:, width:]
        - table[:-height, width:]
        - table[height:, :-width]
        + table[:-height, :-width]
    )
    return np.argwhere(covered == 0) - np.array([rows[0], columns[0]])


def _jitter_box(prompt: Prompt, fraction: float, generator: np.random.Generator) -> Prompt:
    if prompt.box is None:
        return prompt
    x0, y0, x1, y1 = prompt.box.tolist()
    sides = np.array([x1 - x0 + 1, y1 - y0 + 1] * 2)
    moved = prompt.box + _normal(fraction * sides, generator)
    moved = _inside(moved.reshape(2, 2), prompt.component).sort(dim=0).values
    return replace(prompt, box=moved.reshape(4))


def _move_points(prompt: Prompt, fraction: float, generator: np.random.Generator) -> Prompt:
    if prompt.points is None:
        return prompt
    pixels = prompt.component.nonzero()
    height, width = (pixels.amax(dim=0) - pixels.amin(dim=0) + 1).tolist()
    scale = fraction * np.tile([width, height], (len(prompt.points), 1))
    return replace(
        prompt, points=_inside(prompt.points + _normal(scale, generator), prompt.component)
    )


def _shifted(prompt: Prompt, rows: int, columns: int) -> Prompt:
    """The same prompt elsewhere; points and box that would leave the image stop at its border."""
    shift = torch.tensor([columns, rows], dtype=torch.float32)
    points = box = logits = None
    if prompt.points is not None:
        points = _inside(prompt.points + shift, prompt.component)
    if prompt.box is not None:
        box = _inside(prompt.box.reshape(2, 2) + shift, prompt.component).reshape(4)
    if prompt.mask_logits is not None:
        lowest = float(prompt.mask_logits.min())
        logits = _shift_picture(prompt.mask_logits, rows, columns, fill=lowest)
    component = _shift_picture(prompt.component, rows, columns, fill=False)
    return replace(prompt, points=points, box=box, mask_logits=logits, component=component)


def _shift_picture(picture: Tensor, rows: int, columns: int, *, fill: float | bool) -> Tensor:
    """Move an H x W picture down and right (negative: up and left); what enters is ``fill``."""
    height, width = picture.shape
    moved = torch.full_like(picture, fill)
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = (
        picture[max(-rows, 0) : height + min(-rows, 0), max(-columns, 0) : width + min(-columns, 0)]
    )
    return moved


def _inside(xy: Tensor, picture: Tensor) -> Tensor:
    """Clip N x 2 coordinates to the pixels of the picture."""
    height, width = picture.shape
    return xy.clamp(min=torch.zeros(2), max=torch.tensor([width - 1.0, height - 1.0]))


def _normal(scale: np.ndarray, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(generator.normal(0.0, scale).astype(np.float32))


def _generator(seed: int, *, fraction: float) -> np.random.Generator:
    if fraction < 0:
        raise ValueError(f"fraction={fraction}: expected a standard deviation >= 0")
    return np.random.default_rng(seed)
