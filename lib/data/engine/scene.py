"""Endless licence-free images with masks, to pretrain a promptable segmenter.

A scene is a background of one of the styles in `backgrounds.STYLES` and a few objects in it, each
with its own mask: whole shapes, a part inside a whole, cells and the cluster they form, vessel
trees, rings. Objects differ from the background by colour, texture, border or shading, and a
fifth differ by next to nothing: where the image is silent, a segmenter must learn to believe
its prompt.

Everything follows from `(seed, index)`, so any worker makes the same image.
"""

from dataclasses import dataclass

import numpy as np

from .backgrounds import STYLES, background
from .degradation import clutter, degrade, develop, field_of_view
from .objects import cell_group, lungs, single, strips, vessels
from .shapes import draw
from .style import HIDDEN, INGREDIENTS, Style

MAX_MASKS = 8
COUNTS = {1: 0.45, 2: 0.3, 3: 0.15, 4: 0.1}


@dataclass(frozen=True)
class Scene:
    """One generated image.

    `image`: `H x W x 3` uint8; `masks`: `K x H x W` bool, 1 <= K <= 8, overlapping where a part
    lies inside its whole; `style`: key of `backgrounds.STYLES`.
    """

    image: np.ndarray
    masks: np.ndarray
    style: str


def generate(seed, index, size=256, without=(), hidden=HIDDEN):
    """The scene number `index` of the endless sequence that belongs to `seed`.

    `size`: side in pixels, at most 512, a multiple of 8. `without`: keys of
    `style.INGREDIENTS` to leave out, `hidden`: share of the single objects that are hardly visible;
    both change all scenes.

    Raises:
        ValueError: for an unknown ingredient, or a share outside [0, 0.8].
    """
    if not 0 <= hidden <= 0.8:
        raise ValueError(f"hidden must be in [0, 0.8], got {hidden}: a sixth is faint, some clear")
    without = frozenset(without)
    if unknown := without - set(INGREDIENTS):
        raise ValueError(f"unknown ingredients {sorted(unknown)}: choose from {list(INGREDIENTS)}")
    for attempt in range(10):
        rng = np.random.default_rng((seed, index, attempt))
        scene = _compose(rng, size, without, hidden)
        if scene is not None:
            return scene
    raise RuntimeError(f"no visible object in scene {index} of seed {seed}")


def _compose(rng, size, without, hidden):
    style = Style(draw(rng, STYLES), without, hidden)
    image, tone = background(rng, size, style.name)
    image = np.ascontiguousarray(image, np.float32)
    masks = _objects(rng, image, tone, style)
    view = field_of_view(rng, size, style)
    clutter(rng, image, style)
    image = degrade(rng, image, style)
    if view is not None:
        image *= view
        masks = [mask & view for mask in masks]
    shares = [np.count_nonzero(mask) / mask.size for mask in masks]
    keep = [m for m, share in zip(masks, shares, strict=True) if 0.0012 < share < 0.75]
    if not keep:
        return None
    return Scene(develop(rng, image, style), np.stack(keep[:MAX_MASKS]), style.name)


def _objects(rng, image, tone, style):
    """Draw the objects of a scene and return their masks."""
    roll = rng.random()
    if (style.name == "microscopy" and roll < 0.85) or roll < 0.03:
        return cell_group(rng, image, tone, style)
    masks = []
    if style.name == "xray" and roll < 0.65:
        masks = lungs(rng, image, style)
        if roll < 0.5:
            return masks
    elif style.name == "fundus":
        masks = vessels(rng, image, tone, style)
    elif style.name == "texture" and roll < 0.15:
        masks = strips(rng, image, tone, style)
    for _ in range(draw(rng, COUNTS) - bool(masks)):
        new = single(rng, image, tone, style)
        if rng.random() < 0.6:  # the newcomer covers what was there, unless transparent
            masks = [mask & ~new[0] for mask in masks]
        masks += new
    return masks
