"""Random shapes as depth fields: pixels inside are positive, in pixels from the border.

A depth field gives the mask (`depth > 0`), a soft border (a sigmoid of it) and a height for
shading, so one array serves all three. Positions and radii are in half sides of the image.
"""

import math

import numpy as np

from .fields import grid, noise

ANGLES = 360


def contour(rng, kind):
    """Radius over `ANGLES` directions, mean near 1, of a random closed contour."""
    theta = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    if kind == "ellipse":
        return np.ones(ANGLES, np.float32)
    if kind == "polygon":
        corners = int(rng.integers(3, 9))
        angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        x, y = np.cos(angles), np.sin(angles)
        x, y = x * (radii := rng.uniform(0.7, 1.2, corners)), y * radii
        dense = np.linspace(0, 1, 90)[:, None]
        px = (x * (1 - dense) + np.roll(x, -1) * dense).ravel()
        py = (y * (1 - dense) + np.roll(y, -1) * dense).ravel()
        return np.interp(
            theta, *_sorted(np.arctan2(py, px) % (2 * np.pi), np.hypot(px, py)), period=2 * np.pi
        ).astype(np.float32)
    highest, fall = {"blob": (5, 1.5), "lobed": (8, 1.0), "rough": (40, 1.4)}[kind]
    order = np.arange(2, highest + 1)
    strength = rng.uniform(0.06, 0.25) * rng.standard_normal(len(order)) / (order / 2) ** fall
    phase = rng.uniform(0, 2 * np.pi, len(order))
    waves = (strength[:, None] * np.cos(order[:, None] * theta + phase[:, None])).sum(0)
    return np.exp(np.clip(waves, -0.8, 0.6)).astype(np.float32)


def _sorted(angles, radii):
    order = np.argsort(angles)
    return angles[order], radii[order]


def star(rng, size, centre, radius, kind, stretch=1.0, angle=0.0, warp=0.0):
    """Depth field of a contour seen from `centre` (row, column), stretched and turned."""
    rows, columns = grid(size)
    y, x = rows - float(centre[0]), columns - float(centre[1])
    warp = float(warp)
    if warp:
        y = y + warp * radius * noise(rng, size, 5)
        x = x + warp * radius * noise(rng, size, 5)
    cos, sin = math.cos(angle), math.sin(angle)
    root = math.sqrt(stretch)
    u, v = (cos * x + sin * y) / root, (cos * y - sin * x) * root
    bins = (np.arctan2(v, u) * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
    limit = contour(rng, kind)[bins]
    return (limit * float(radius) - np.hypot(u, v)) * (size / 2)


def random_star(rng, size, centre=None, radius=None, stretch=2.2):
    """A `star` with everything drawn at random; also crescents, twins and cut-off shapes."""
    radius = float(np.exp(rng.uniform(np.log(0.1), np.log(0.8)))) if radius is None else radius
    if centre is None:
        centre = rng.uniform(-0.75, 0.75, 2)

    def one(where, r):
        return star(
            rng,
            size,
            where,
            r,
            rng.choice(
                ["ellipse", "blob", "lobed", "rough", "polygon"], p=[0.3, 0.44, 0.1, 0.1, 0.06]
            ),
            stretch=float(np.exp(rng.uniform(-np.log(stretch), np.log(stretch)))),
            angle=rng.uniform(0, np.pi),
            warp=rng.choice([0.0, 0.1, 0.22], p=[0.5, 0.3, 0.2]),
        )

    depth = one(centre, radius)
    other = centre + rng.uniform(0.5, 1.0) * radius * _direction(rng)
    roll = rng.random()
    if roll < 0.08:
        depth = np.maximum(depth, one(other, radius * rng.uniform(0.4, 0.9)))
    elif roll < 0.15:
        depth = np.minimum(depth, -one(other, radius * rng.uniform(0.5, 0.9)))
    return depth


def _direction(rng):
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def walk(rng, steps, start, heading, stride, bend):
    """A smooth path of `steps` points (`steps x 2`) whose heading drifts by `bend`."""
    turns = np.cumsum(
        np.cumsum(rng.normal(0, bend * 0.3, steps)) * 0.3 + rng.normal(0, bend, steps)
    )
    step = np.stack([np.sin(heading + turns), np.cos(heading + turns)], 1) * stride
    return np.asarray(start) + np.cumsum(step, 0)


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
    """Depth field of a branching vessel tree that thins from `width` outwards."""
    branches = int(rng.integers(3, 9)) if branches is None else branches
    edge = rng.uniform(0, 2 * np.pi)
    start = np.array([np.sin(edge), np.cos(edge)]) * rng.uniform(0, 1.0)
    heading = edge + np.pi + rng.normal(0, 0.5)
    paths = [walk(rng, 60, start, heading, 0.028, 0.1)]
    widths = [np.linspace(width, width * 0.5, 60)]
    for _ in range(branches - 1):
        parent = int(rng.integers(len(paths)))
        at = int(rng.integers(5, len(paths[parent]) - 5))
        tangent = paths[parent][at] - paths[parent][at - 1]
        turn = np.arctan2(*tangent) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        paths.append(walk(rng, 45, paths[parent][at], turn, 0.026, 0.1))
        widths.append(np.linspace(widths[parent][at] * 0.8, widths[parent][at] * 0.3, 45))
    return tubes(size, np.concatenate(paths), np.maximum(np.concatenate(widths), 0.006))


def cells(rng, size, count, radius, cluster=None):
    """Depth field and label map (0 = none) of `count` roundish cells that may touch."""
    depth = np.full((size, size), -99.0, np.float32)
    labels = np.zeros((size, size), np.int32)
    rows, columns = grid(size)
    for label in range(1, count + 1):
        spread = rng.uniform(-0.95, 0.95, 2)
        centre = spread if cluster is None else cluster[:2] + spread * cluster[2]
        r = radius * float(np.exp(rng.normal(0, 0.2)))
        low = np.clip(((centre - 2 * r + 1) / 2 * size).astype(int), 0, size)
        high = np.clip(((centre + 2 * r + 1) / 2 * size).astype(int) + 1, 0, size)
        window = (slice(low[0], high[0]), slice(low[1], high[1]))
        y, x = rows[window] - float(centre[0]), columns[window] - float(centre[1])
        if not y.size:
            continue
        angle, root = rng.uniform(0, np.pi), math.sqrt(rng.uniform(1, 1.9))
        cos, sin = math.cos(angle), math.sin(angle)
        u, v = (cos * x + sin * y) / root, (cos * y - sin * x) * root
        bins = (np.arctan2(v, u) * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        wobble = 1 + 0.5 * (contour(rng, "blob")[bins] - 1)
        own = (wobble * r - np.hypot(u, v)) * np.float32(size / 2)
        wins = own > np.maximum(depth[window], -3)
        depth[window] = np.where(own > depth[window], own, depth[window])
        labels[window] = np.where(wins & (own > 0), label, labels[window])
    return depth, labels
