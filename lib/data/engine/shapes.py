"""Random shapes as depth fields: pixels inside are positive, in pixels from the border.

A depth field gives the mask (`depth > 0`), a soft border (a step of it) and a height for
shading, so one array serves all three. Positions and radii are in half sides of the image.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from .fields import direction, grid, noise, sign

ANGLES = 360
LOW, HIGH = math.log(0.08), math.log(0.65)  # of a radius, in half sides of the image
KINDS = {"ellipse": 0.3, "blob": 0.42, "lobed": 0.08, "rough": 0.1, "polygon": 0.06, "box": 0.04}


def contour(rng, kind):
    """Radius over `ANGLES` directions, mean near 1, of a random closed contour."""
    theta = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    if kind == "ellipse":
        return np.ones(ANGLES, np.float32)
    if kind == "box":  # a rectangle with rounded corners
        power = rng.uniform(3, 8)
        sides = np.abs(np.cos(theta)) ** power + np.abs(np.sin(theta)) ** power
        return (0.9 * sides ** (-1 / power)).astype(np.float32)
    if kind == "polygon":
        return _polygon(rng, theta)
    highest, fall = {"blob": (5, 1.5), "lobed": (8, 1.0), "rough": (40, 1.4)}[kind]
    order = np.arange(2, highest + 1)
    strength = rng.uniform(0.06, 0.25) * rng.standard_normal(len(order)) / (order / 2) ** fall
    phase = rng.uniform(0, 2 * np.pi, len(order))
    waves = (strength[:, None] * np.cos(order[:, None] * theta + phase[:, None])).sum(0)
    return np.exp(np.clip(waves, -0.8, 0.6)).astype(np.float32)


def _polygon(rng, theta):
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    radii = rng.uniform(0.7, 1.2, corners)
    x, y = np.cos(angles) * radii, np.sin(angles) * radii
    along = np.linspace(0, 1, 90)[:, None]
    x = (x * (1 - along) + np.roll(x, -1) * along).ravel()
    y = (y * (1 - along) + np.roll(y, -1) * along).ravel()
    around = np.arctan2(y, x) % (2 * np.pi)
    order = np.argsort(around)
    radius = np.interp(theta, around[order], np.hypot(x, y)[order], period=2 * np.pi)
    return radius.astype(np.float32)


def star(rng, size, centre, radius, kind, *, stretch=1.0, angle=0.0, warp=0.0, taper=0.0):
    """Depth field of a contour seen from `centre` (row, column), stretched and turned.

    `stretch`: length over width; `taper`: how much wider one end is than the middle, below 1.
    """
    rows, columns = grid(size)
    y, x = rows - float(centre[0]), columns - float(centre[1])
    if warp:
        y = y + (warp * radius) * noise(rng, size, 5)
        x = x + (warp * radius) * noise(rng, size, 5)
    cos, sin, root = math.cos(angle), math.sin(angle), math.sqrt(stretch)
    u, v = (cos / root) * x + (sin / root) * y, (cos * root) * y - (sin * root) * x
    if taper:
        v = v * (1 + taper * np.clip(u * (1 / radius), -1, 1))
    bins = (np.arctan2(v, u) * (ANGLES / (2 * np.pi)) + ANGLES).astype(np.int32) % ANGLES
    limit = np.take(contour(rng, kind) * np.float32(radius), bins)
    return (limit - np.sqrt(u * u + v * v)) * np.float32(size / (2 * root))


def random_star(rng, size, centre=None, radius=None, stretch=2.2):
    """A `star` with everything drawn at random; also crescents and twins.

    Four in five lie mostly within the image where `centre` is not given.
    """
    if radius is None:
        # A large share of large ones: a segmenter that never met them gives parts of them.
        large = rng.random() < 0.4
        radius = rng.uniform(0.4, 0.95) if large else math.exp(rng.uniform(LOW, HIGH))
    if centre is None:
        reach = max(0.1, 0.95 - 0.9 * radius) if rng.random() < 0.8 else 0.95
        centre = rng.uniform(-reach, reach, 2)

    def one(where, r):
        return star(
            rng,
            size,
            where,
            r,
            draw(rng, KINDS),
            stretch=math.exp(rng.uniform(0, math.log(stretch))),
            angle=rng.uniform(0, math.pi),
            warp=max(0.0, rng.uniform(-0.2, 0.15)),
            taper=max(0.0, rng.uniform(-0.4, 0.4)),
        )

    depth = one(centre, radius)
    other = centre + rng.uniform(0.5, 1.0) * radius * direction(rng)
    roll = rng.random()
    if roll < 0.07:
        return np.maximum(depth, one(other, radius * rng.uniform(0.4, 0.9)))
    if roll < 0.11:
        return np.minimum(depth, -one(other, radius * rng.uniform(0.5, 0.9)))
    return depth


def draw(rng, chances):
    """A key of `chances` (key -> probability; they sum to 1)."""
    roll = rng.random()
    for key, chance in chances.items():
        roll -= chance
        if roll < 0:
            return key
    return key


def walk(rng, steps, start, heading, stride, bend):
    """A smooth path of `steps` points (`steps x 2`) whose heading drifts by `bend`."""
    drift = rng.normal(0, bend * 0.3, steps).cumsum() * 0.3 + rng.normal(0, bend, steps)
    turns = heading + drift.cumsum()
    return np.asarray(start) + stride * np.stack([np.sin(turns), np.cos(turns)], 1).cumsum(0)


def strokes(size, paths, widths):
    """Share of each pixel under lines: `H x W` float32 in [0, 1], drawn at twice the size.

    `paths`: arrays `n x 2` of (row, column) points; `widths`: an array `n` of half widths each.
    """
    canvas = Image.new("L", (2 * size, 2 * size))
    pen = ImageDraw.Draw(canvas)
    for path, width in zip(paths, widths, strict=True):
        points = ((path[:, ::-1] + 1) * size).tolist()
        thick = np.maximum(2 * size * np.asarray(width), 1).round().astype(int).tolist()
        for (x0, y0), (x1, y1), w in zip(points, points[1:], thick, strict=False):
            pen.line((x0, y0, x1, y1), fill=255, width=w)
            if w > 4:  # rounds the joints
                r = w / 2 - 0.5
                pen.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), fill=255)
    return np.asarray(canvas.reduce(2), np.float32) * np.float32(1 / 255)


def tubes(size, points, widths):
    """Depth field, in pixels, of tubes around `points` (`n x 2`) of half width `widths` (`n`).

    A sum of narrow Gaussians along a path is constant on it and falls off sideways, and a sum
    of separable Gaussians is one matrix product.
    """
    axis = grid(size)[1][0]
    widths = np.asarray(widths, np.float32)
    spacing = np.abs(np.diff(points, axis=0, append=points[-2:-1])).max(1).astype(np.float32)
    weight = np.minimum(spacing, widths) / (widths * math.sqrt(2 * math.pi))

    def profile(k):
        return np.exp(
            -0.5 * ((axis[None] - points[:, k, None].astype(np.float32)) / widths[:, None]) ** 2
        )

    level = (profile(0) * weight[:, None]).T @ profile(1)
    distance = np.sqrt(-2 * np.log(np.clip(level, 1e-6, 0.999)))
    return (1 - distance) * np.float32(widths.mean() * size / 2)


def tree(rng, size, width, branches=None):
    """Share of each pixel (`H x W` in [0, 1]) under a vessel tree that thins from `width` on."""
    branches = int(rng.integers(3, 14)) if branches is None else branches
    edge = rng.uniform(0, 2 * math.pi)
    start = np.array([math.sin(edge), math.cos(edge)]) * rng.uniform(0, 1.0)
    paths = [walk(rng, 50, start, edge + math.pi + rng.normal(0, 0.5), 0.034, 0.1)]
    widths = [np.linspace(width, width * 0.5, 50)]
    for _ in range(branches - 1):
        parent = int(rng.integers(len(paths)))
        at = int(rng.integers(4, len(paths[parent]) - 4))
        tangent = paths[parent][at] - paths[parent][at - 1]
        turn = math.atan2(*tangent) + sign(rng) * rng.uniform(0.4, 1.1)
        paths.append(walk(rng, 30, paths[parent][at], turn, 0.035, 0.12))
        widths.append(widths[parent][at] * np.linspace(0.85, 0.3, 30))
    return strokes(size, paths, [np.maximum(w, 0.003) for w in widths])


def cells(rng, size, count, radius, *, cluster=None, spread=0.2, stretch=1.9):
    """Depth field and label map (0 = none) of `count` roundish cells that may touch.

    `radius`: their typical radius, off by a factor of exp(normal error `spread`); `cluster`:
    (row, column, radius) to crowd them in.
    """
    depth = np.full((size, size), -99.0, np.float32)
    labels = np.zeros((size, size), np.int32)
    rows, columns = grid(size)
    for label in range(1, count + 1):
        where = rng.uniform(-1, 1, 2)
        centre = where if cluster is None else cluster[:2] + where * cluster[2]
        r = radius * math.exp(rng.normal(0, spread))
        low = np.clip(((centre - 2 * r + 1) / 2 * size).astype(int), 0, size)
        high = np.clip(((centre + 2 * r + 1) / 2 * size).astype(int) + 1, 0, size)
        window = (slice(low[0], high[0]), slice(low[1], high[1]))
        y, x = rows[window] - float(centre[0]), columns[window] - float(centre[1])
        if not y.size:
            continue
        angle, root = rng.uniform(0, math.pi), math.sqrt(rng.uniform(1, stretch))
        cos, sin = math.cos(angle), math.sin(angle)
        u, v = (cos / root) * x + (sin / root) * y, (cos * root) * y - (sin * root) * x
        bins = (np.arctan2(v, u) * (ANGLES / (2 * np.pi)) + ANGLES).astype(np.int32) % ANGLES
        wobble = np.take(1 + 0.5 * (contour(rng, "blob") - 1), bins)
        own = (wobble * np.float32(r) - np.sqrt(u * u + v * v)) * np.float32(size / 2)
        wins = own > np.maximum(depth[window], -3)
        depth[window] = np.maximum(own, depth[window])
        labels[window][wins & (own > 0)] = label
    return depth, labels
