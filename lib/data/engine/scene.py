"""Endless licence-free images with masks, to pretrain a promptable segmenter.

A scene is a background of one of the styles in `backgrounds.STYLES` and a few objects in it, each
with its own mask: whole shapes, a part inside a whole, cells and the cluster they form, vessel
trees, rings. Objects differ from the background by colour, texture, border or shading, and a
good share differ by next to nothing: where the image is silent, a segmenter must learn to
believe its prompt.

Everything follows from `(seed, index)`, so any worker makes the same image.
"""

from dataclasses import dataclass

import numpy as np

from .backgrounds import STYLES, background
from .degradation import clutter, degrade, field_of_view
from .painting import paint
from .shapes import cells, random_star, star, tree

MAX_MASKS = 8


@dataclass(frozen=True)
class Scene:
    """One generated image.

    `image`: `H x W x 3` uint8; `masks`: `K x H x W` bool, 1 <= K <= 8, overlapping where a part
    lies inside its whole; `style`: key of `backgrounds.STYLES`.
    """

    image: np.ndarray
    masks: np.ndarray
    style: str


def generate(seed, index, size=256):
    """The scene number `index` of the endless sequence that belongs to `seed`."""
    for attempt in range(10):
        rng = np.random.default_rng((seed, index, attempt))
        scene = _compose(rng, size)
        if scene is not None:
            return scene
    raise RuntimeError(f"no visible object in scene {index} of seed {seed}")


def _contrast(rng):
    """25 % hardly visible, 25 % low, the rest clear."""
    roll = rng.random()
    if roll < 0.25:
        return rng.uniform(0.0, 0.1)
    return rng.uniform(0.1, 0.35) if roll < 0.5 else rng.uniform(0.35, 1.0)


def _compose(rng, size):
    style = str(rng.choice(list(STYLES), p=np.array(list(STYLES.values()))))
    image, direction = background(rng, size, style)
    masks = []
    roll = rng.random()
    if (style == "microscopy" and roll < 0.75) or roll < 0.03:
        image, masks = _cell_scene(rng, image, direction, style)
    else:
        if style == "xray" and roll < 0.65:
            image, masks = _pair(rng, image, style)
        for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1])) - bool(masks)):
            image, new = _object(rng, image, direction, style)
            hidden = ~new[0]
            if rng.random() < 0.7:  # the newcomer covers what was there, unless transparent
                masks = [mask & hidden for mask in masks]
            masks += new
    view = field_of_view(rng, size, style)
    image = clutter(rng, image, style)
    image = degrade(rng, image, style) * view[..., None]
    masks = [mask & (view > 0) for mask in masks]
    keep = [mask for mask in masks if 0.0012 < mask.mean() < 0.75][:MAX_MASKS]
    if not keep:
        return None
    return Scene((image * 255 + 0.5).astype(np.uint8), np.stack(keep), style)


def _object(rng, image, direction, style):
    """One object, with a part in it or a ring around it now and then."""
    size = image.shape[0]
    contrast = _contrast(rng)
    roll = rng.random()
    if (style == "fundus" and roll < 0.4) or roll < 0.06:
        depth = tree(rng, size, rng.uniform(0.012, 0.07))
        return paint(rng, image, depth, direction, max(contrast, 0.25), style), [depth > 0]
    large = rng.random() < 0.45
    depth = random_star(rng, size, radius=rng.uniform(0.25, 0.8) if large else None)
    image = paint(rng, image, depth, direction, contrast, style)
    # people outline soft things generously
    margin = rng.uniform(0, 0.12) * depth.max() if rng.random() < 0.3 else 0.0
    masks = [depth > -margin]
    if rng.random() < (0.5 if style == "mri" else 0.12) and depth.max() > 8:
        image, parts = _compound(rng, image, depth, style)
        return image, masks + parts
    if rng.random() < 0.3 and depth.max() > 12:
        inside = depth - rng.uniform(0.15, 0.5) * depth.max()
        if rng.random() < 0.6:
            centre = np.array(np.unravel_index(depth.argmax(), depth.shape)) / size * 2 - 1
            radius = depth.max() / size * rng.uniform(0.5, 1.3)
            inside = np.minimum(random_star(rng, size, centre, radius), depth)
        other = direction * rng.choice([-1, 1]) + rng.normal(0, 0.2) * (style != "endoscopy")
        other = other.astype(np.float32)
        image = paint(rng, image, inside, other, max(contrast, _contrast(rng)), style)
        masks.append(inside > 0)
        if rng.random() < 0.5:
            masks.append((depth > 0) & (inside <= 0))
    return image, masks


def _compound(rng, image, depth, style):
    """Chambers and walls of unlike brightness that only together are the object."""
    size, parts = image.shape[0], []
    wall = depth - rng.uniform(0.1, 0.35) * depth.max()
    for _ in range(int(rng.integers(1, 4))):
        where = np.array(np.unravel_index(rng.choice(np.flatnonzero(wall > 0)), depth.shape))
        chamber = random_star(
            rng, size, where / size * 2 - 1, depth.max() / size * rng.uniform(0.8, 2.2)
        )
        chamber = np.minimum(chamber, wall)
        tone = np.full(3, rng.choice([-1, 1]) * rng.uniform(0.3, 1), np.float32)
        image = paint(rng, image, chamber, tone, max(_contrast(rng), 0.2), style)
        parts.append(chamber > 0)
    return image, parts


def _pair(rng, image, style):
    """Two tall objects side by side, mirrored with variation, as paired organs are."""
    size = image.shape[0]
    apart, height = rng.uniform(0.35, 0.6), rng.uniform(-0.25, 0.25)
    radius, stretch = rng.uniform(0.3, 0.6), rng.uniform(1.5, 3)
    contrast, masks = max(_contrast(rng), float(rng.choice([0.1, 0.5, 0.8]))), []
    dark = np.full(3, rng.uniform(-0.6, -0.3), np.float32)
    for side in (-1, 1):
        depth = star(
            rng,
            size,
            (height + rng.normal(0, 0.05), side * apart),
            radius * rng.uniform(0.85, 1),
            rng.choice(["blob", "lobed", "ellipse"]),
            1 / stretch,
            side * rng.uniform(-0.1, 0.35),
            warp=0.15,
        )
        if rng.random() < 0.5:  # a concave base
            bite = star(rng, size, (height + radius * 1.5, side * apart), radius, "ellipse", 1.5)
            depth = np.minimum(depth, -bite)
        image = paint(rng, image, depth, dark, contrast, style)
        masks.append(depth > 0)
    return image, masks


def _cell_scene(rng, image, direction, style):
    """Many cells, some touching: the largest are masks of their own, and so is the cluster."""
    size = image.shape[0]
    radius = np.exp(rng.uniform(np.log(0.035), np.log(0.2)))
    count = int(np.clip(rng.uniform(0.1, 1.0) / radius**2 * 0.4, 3, 60))
    cluster = None
    if rng.random() < 0.4:
        cluster = (*rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 0.6))
        count = max(3, int(count * cluster[2] ** 2))
    depth, labels = cells(rng, size, count, radius, cluster)
    image = paint(rng, image, depth, direction, max(_contrast(rng), 0.1), style)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    chosen = rng.permutation(np.argsort(areas)[::-1][: 2 * MAX_MASKS]) + 1
    level = rng.standard_normal(count + 1).astype(np.float32) * rng.uniform(0, 0.12)
    image = image + level[labels][..., None] * (labels > 0)[..., None]
    masks = [labels == label for label in chosen[: MAX_MASKS - 1]]
    if cluster is not None:
        masks.insert(0, labels > 0)
    return image, masks
