"""Things with masks, at several levels of granularity: parts in wholes, wholes in groups.

Every function draws on `image` (`C x H x W`) in place and returns the masks (`H x W` bool) of
what it drew, the covering one first.
"""

import math

import numpy as np
from scipy.ndimage import label as components

from .fields import blur, colour, direction, grid, noise, sign, step
from .painting import paint, visibility
from .shapes import cells, draw, random_star, star, strokes, tree, tubes, walk
from .textures import texture

SMALLEST_CELL = 40  # px


def single(rng, image, tone, style):
    """One shape, often with a part in it; a group of unlike parts; a tube; a vessel tree."""
    size, roll = image.shape[1], rng.random()
    if roll < 0.05:
        return vessels(rng, image, tone, style)
    if roll < 0.09:
        return tube(rng, image, tone, style)
    if rng.random() < (0.5 if style.name == "mri" else 0.05):
        return ring(rng, image, style)
    strength = visibility(rng, style)
    depth = random_star(rng, size)
    tone = tone if rng.random() < 0.8 else -tone
    shown = depth
    if style.has("border") and rng.random() < 0.35:  # a border rougher than people outline it
        rough = texture(rng, size, "blotch" if rng.random() < 0.6 else "pink")
        shown = depth + rough * min(6.0, rng.uniform(0.01, 0.12) * float(depth.max()))
    paint(rng, image, shown, tone, strength, style)
    # people outline soft things generously
    margin = rng.uniform(0, 0.1) * float(depth.max()) if rng.random() < 0.3 else 0.0
    masks = [depth > -margin]
    if rng.random() < 0.35 and depth.max() > 10:
        masks += _parts(rng, image, depth, tone, strength, style)
    return masks


def _parts(rng, image, depth, tone, strength, style):
    """A core or some spots inside an object, and what is left of the object around them."""
    size, reach, masks = image.shape[1], float(depth.max()), []
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.4:
            inside = depth - rng.uniform(0.15, 0.6) * reach
        else:
            where = rng.choice(np.flatnonzero(depth > 0.4 * reach))
            centre = np.array(divmod(int(where), size)) / size * 2 - 1
            part = random_star(rng, size, centre, reach / size * rng.uniform(0.4, 1.3))
            inside = np.minimum(part, depth)
        other = tone * (1 if rng.random() < 0.4 else -1)
        paint(rng, image, inside, other, max(strength, visibility(rng, style)), style)
        masks = [mask & (inside <= 0) for mask in masks] + [inside > 0]
        if rng.random() < 0.5:
            break
    if rng.random() < 0.5:
        masks.append((depth > 0) & ~np.logical_or.reduce(masks))
    return masks


def ring(rng, image, style):
    """A wall around a chamber, and often a second chamber beside it: unlike parts of a whole."""
    size = image.shape[1]
    radius = math.exp(rng.uniform(math.log(0.09), math.log(0.4)))
    centre = rng.uniform(-0.6, 0.6, 2)
    outer = star(
        rng, size, centre, radius, "ellipse" if rng.random() < 0.5 else "blob",
        stretch=rng.uniform(1, 1.6), angle=rng.uniform(0, 3.2),
    )  # fmt: skip
    pool = outer - rng.uniform(0.15, 0.5) * float(outer.max())
    wall = np.minimum(outer, -pool)
    bright = np.full((len(image), 1, 1), sign(rng), np.float32)
    strength, masks = max(visibility(rng, style), 0.4), []
    if rng.random() < 0.6:
        where = centre + direction(rng) * radius * rng.uniform(0.7, 1.3)
        beside = np.minimum(random_star(rng, size, where, radius * rng.uniform(0.7, 1.2)), -outer)
        paint(rng, image, beside, bright, strength * rng.uniform(0.3, 1), style)
        masks = [(outer > 0) | (beside > 0), beside > 0]
    paint(rng, image, wall, -bright, strength * rng.uniform(0.2, 1.2), style)
    spots = texture(rng, size, "blotch") - rng.uniform(1, 3)  # muscle that reaches in
    shown = np.minimum(pool, -6 * spots) if rng.random() < 0.5 else pool
    paint(rng, image, shown, bright, strength, style)
    return [*masks, outer > 0, wall > 0, pool > 0]


def tube(rng, image, tone, style):
    """A winding tube of even width."""
    size = image.shape[1]
    path = walk(rng, 50, rng.uniform(-0.9, 0.9, 2), rng.uniform(0, 6.3), 0.035, 0.12)
    depth = tubes(size, path, np.full(50, rng.uniform(0.02, 0.12)))
    paint(rng, image, depth, tone, max(visibility(rng, style), 0.3), style)
    return [depth > 0]


def vessels(rng, image, tone, style):
    """A tree that branches and thins; in an eye several of them, dark, as one object."""
    size, number, widest = image.shape[1], 1, 0.06
    if style.name == "fundus":
        number, widest = int(rng.integers(2, 5)), 0.02
        tone = -colour(rng, (0.3, 0.6, 0.2), (0.6, 1.0, 0.6))
    width = math.exp(rng.uniform(math.log(0.008), math.log(widest)))
    share = np.maximum.reduce([tree(rng, size, width) for _ in range(number)])
    # No box says where a hidden vessel runs: all are clear. The thinnest cover pixels in part.
    paint(rng, image, 8 * (share - 0.3), tone, max(visibility(rng, style), 1.5), style)
    return [share > 0.3]


def lungs(rng, image, style):
    """Two tall fields, mostly dark, mirrored with variation, under ribs: each, and both."""
    size = image.shape[1]
    apart, height = rng.uniform(0.3, 0.5), rng.uniform(-0.3, 0.2)
    radius, stretch = rng.uniform(0.25, 0.48), rng.uniform(1.7, 3.2)
    long = radius * math.sqrt(stretch)
    strength = max(1.5 * visibility(rng, style, 0.1), 0.5)
    dark = np.full((len(image), 1, 1), -1 if rng.random() < 0.9 else 1, np.float32)
    taper, depths = rng.uniform(0, 0.5), []
    for side in (-1, 1):
        depth = star(
            rng, size, (height + rng.normal(0, 0.05), side * apart), radius * rng.uniform(0.85, 1),
            draw(rng, {"blob": 0.55, "ellipse": 0.25, "lobed": 0.1, "box": 0.1}),
            stretch=stretch, angle=math.pi / 2 + side * rng.uniform(-0.05, 0.3),
            warp=0.08, taper=-taper,
        )  # fmt: skip
        if rng.random() < 0.75:  # a concave base
            dome = (height + long * rng.uniform(0.9, 1.5), side * apart * rng.uniform(0.6, 1.1))
            bite = star(rng, size, dome, radius * rng.uniform(0.8, 1.4), "ellipse", stretch=1.5)
            depth = np.minimum(depth, -bite)
        if rng.random() < 0.5:  # the heart beside it
            heart = (height + long * rng.uniform(0.1, 0.7), rng.uniform(-0.05, 0.15))
            depth = np.minimum(depth, -star(rng, size, heart, rng.uniform(0.15, 0.3), "blob"))
        depths.append(depth)
    paint(rng, image, np.maximum(*depths), dark, strength, style)
    masks = [depth > 0 for depth in depths]
    fields = blur((masks[0] | masks[1]).astype(np.float32), 3)
    ribs = _ribs(rng, size, height) * rng.uniform(0.01, 0.12)
    if style.has("clutter"):
        image += ribs * (rng.uniform(0, 0.8) + fields)
    if style.has("clutter") and rng.random() < 0.6:
        branches = sum(tree(rng, size, rng.uniform(0.004, 0.012), 10) for _ in range(2))
        image += branches * fields * rng.uniform(0.03, 0.15)
    return [*masks, masks[0] | masks[1]] if rng.random() < 0.35 else masks


def _ribs(rng, size, height):
    """Bright bands that bend down to the sides: `H x W` in about [0, 1]."""
    rows, columns = grid(size)
    bend, period = rng.uniform(-0.2, 0.9), rng.uniform(0.12, 0.3)
    arc = rows - bend * columns * columns + 0.03 * noise(rng, size, 4)
    wave = np.sin(arc * (2 * math.pi / period) + rng.uniform(0, 6))
    bands = step((wave - rng.uniform(-0.2, 0.6)) * rng.uniform(3, 12))
    edges = bands * (1 - bands) * 3
    mixed = bands + rng.uniform(0, 1) * edges
    return mixed * step((0.9 - np.abs(rows - height)) * 8) * step(3 * noise(rng, size, 3) + 2)


def cell_group(rng, image, tone, style):
    """Many cells, some touching: cells of their own, those that touch as one, the cluster."""
    size = image.shape[1]
    radius = math.exp(rng.uniform(math.log(0.03), math.log(0.2)))
    count = int(np.clip(rng.uniform(0.05, 0.8) / radius**2 * 0.4, 3, 70))
    cluster = None
    if rng.random() < 0.3:
        cluster = (*rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 0.7))
        count = max(3, int(count * cluster[2] ** 2))
    stretch = rng.uniform(1.2, 3.5)
    depth, labels = cells(
        rng, size, count, radius, cluster=cluster, spread=rng.uniform(0.1, 0.4), stretch=stretch
    )
    nucleus = rng.uniform(0.3, 0.6) * float(depth.max()) if rng.random() < 0.15 else None
    before, strength = image.copy(), visibility(rng, style, 0.06)
    paint(rng, image, depth, tone, strength if strength < 0.3 else max(strength, 1.0), style)
    if nucleus:
        paint(rng, image, depth - nucleus, tone, max(visibility(rng, style), 0.7), style)
    own = np.exp(rng.standard_normal(count + 1) * rng.uniform(0, 0.5)).astype(np.float32)
    own[0] = 1
    image += (image - before) * (np.minimum(own, 2.5)[labels] - 1)  # some stand out more
    masks = _touching(rng, labels, count)
    if nucleus and masks:
        masks.insert(1, masks[0] & (depth > nucleus))
    if cluster is not None and rng.random() < 0.5:
        masks.insert(0, labels > 0)
    return masks


def _touching(rng, labels, count):
    """Up to four cells, each also with all that touch it where that is another mask."""
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    large = np.flatnonzero(areas >= SMALLEST_CELL)
    if not len(large):
        return []
    order = rng.permutation(large)
    order[0] = int(areas.argmax())
    groups, _ = components(labels > 0)
    masks = []
    for label in dict.fromkeys(order[:4].tolist()):
        cell = labels == label
        group = groups == groups[cell][0]
        masks.append(cell)
        if group.sum() > 1.1 * areas[label]:
            masks.append(group)
    return masks


def strips(rng, image, tone, style):
    """A few parallel bars or fibres, one mask each: long, thin, often cut by the border."""
    size, masks = image.shape[1], []
    angle, width = rng.uniform(0, math.pi), rng.uniform(0.015, 0.1)
    along = np.array([math.sin(angle), math.cos(angle)])
    across = np.array([along[1], -along[0]])
    start = rng.uniform(-0.5, 0.5, 2)
    for k in range(int(rng.integers(1, 5))):
        foot = start + across * k * width * rng.uniform(3, 5)
        path = np.stack(
            [foot - along * rng.uniform(0.2, 1.2), foot + along * rng.uniform(0.2, 1.2)]
        )
        share = strokes(size, [path], [np.full(2, width)])
        paint(rng, image, 8 * (share - 0.5), tone, max(visibility(rng, style), 0.3), style)
        masks.append(share > 0.5)
    return masks
