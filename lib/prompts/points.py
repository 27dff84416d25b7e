"""Where to click: rules that pick points inside a region, all of them deterministic.

The literature on mining prompts from predictions leaves the rule open, so three are offered:
the deepest point followed by farthest-point sampling, the centroid, and seeded random points.
Every function takes a boolean ``H x W`` array and returns ``N x 2`` float32 pixel indices in
``(x, y)`` order, ``N <= count``: a region of two pixels yields at most two points, never a
repeated one.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt

POINT_RULES = ("distance", "centroid", "random")

# Farthest-point sampling sees only pixels at least this share of the largest inscribed radius
# away from the region's border. A share, not a number of pixels, so that the rule does not
# depend on the image size. Our choice.
ERODED_SHARE = 0.3


def pick_points(
    region: np.ndarray, count: int, *, rule: str = "distance", generator: np.random.Generator
) -> np.ndarray:
    """Pick up to ``count`` points of ``region`` (H x W bool) by one of ``POINT_RULES``.

    ``"centroid"`` places the first point at the pixel of the region nearest to its centroid and
    spreads the others like ``"distance"``. ``generator`` is used by ``"random"`` only.
    """
    if count == 0 or not region.any():
        return np.zeros((0, 2), dtype=np.float32)
    if rule == "random":
        return random_points(region, count, generator)
    depth = border_distance(region)
    first = deepest_point(depth) if rule == "distance" else central_point(region)
    return spread_points(depth, first, count)


def border_distance(region: np.ndarray) -> np.ndarray:
    """Euclidean distance (pixels) of each pixel of ``region`` to the nearest pixel outside it.

    What lies beyond the image counts as outside, so that clicks keep away from the image border
    and a region that fills the image has a centre. Zero outside the region.
    """
    return distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


def deepest_point(depth: np.ndarray) -> tuple[int, int]:
    """Row and column of the largest ``depth``; of equals, the nearest to their region's centre.

    The second condition matters for bars and rectangles, whose deepest pixels form a line: its
    middle is the better click, not its end. Remaining ties go to the first in reading order.
    """
    return _nearest(np.argwhere(depth == depth.max()), _centroid(depth > 0))


def central_point(region: np.ndarray) -> tuple[int, int]:
    """Row and column of the pixel of ``region`` nearest to its centroid.

    The centroid of a ring or a crescent lies outside it; a click there would ask for the hole.
    """
    return _nearest(np.argwhere(region), _centroid(region))


def spread_points(depth: np.ndarray, first: tuple[int, int], count: int) -> np.ndarray:
    """Farthest-point sampling inside the eroded region, starting from ``first``.

    Each further point is the candidate whose distance to the nearest chosen point is largest
    (ties: reading order). When the eroded region has too few pixels the whole region is used.
    """
    candidates = np.argwhere(depth >= ERODED_SHARE * depth.max())
    if len(candidates) < count:
        candidates = np.argwhere(depth > 0)
    chosen = [np.asarray(first)]
    nearest = _squared_distance(candidates, chosen[0])
    while len(chosen) < count and nearest.max() > 0:
        chosen.append(candidates[nearest.argmax()])
        nearest = np.minimum(nearest, _squared_distance(candidates, chosen[-1]))
    return _to_xy(np.stack(chosen))


def random_points(region: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Uniformly random distinct pixels of ``region``."""
    pixels = np.argwhere(region)
    return _to_xy(generator.permutation(pixels)[:count])


def _centroid(region: np.ndarray) -> np.ndarray:
    return np.argwhere(region).mean(axis=0)


def _nearest(pixels: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    row, column = pixels[_squared_distance(pixels, target).argmin()]
    return int(row), int(column)


def _squared_distance(pixels: np.ndarray, target: np.ndarray) -> np.ndarray:
    return ((pixels - target) ** 2).sum(axis=1)


def _to_xy(rows_and_columns: np.ndarray) -> np.ndarray:
    return rows_and_columns[:, ::-1].astype(np.float32)
