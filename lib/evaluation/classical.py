"""Segmentation without learning, from the same prompts: floors for a promptable network.

Neither method has seen an image before, and both look at this one only. What a network adds to
them, it has learnt.
"""

import cv2
import numpy as np
from skimage.draw import disk
from skimage.segmentation import random_walker

ITERATIONS = 5
CLICK_RADIUS = 4  # px at 256 px: a click means what lies around it
BETA = 130  # scikit-image's default: how much a difference in colour keeps the walker back


def grab_cut(image: np.ndarray, box) -> np.ndarray:
    """GrabCut (Rother et al., SIGGRAPH 2004): colour models of inside and outside, and a cut.

    `image`: `H x W x 3`, uint8; `box`: first and last column and row of the object, pixels. The
    outside is background for sure. Returns bool `H x W`.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)
    found = np.zeros((height, width), np.uint8)
    found[y0 : y1 + 1, x0 : x1 + 1] = cv2.GC_PR_FGD
    if found.all():  # no background to learn from
        return found > 0
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the colour models start from k-means
    cv2.grabCut(image, found, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return np.isin(found, (cv2.GC_FGD, cv2.GC_PR_FGD))


def random_walk(image: np.ndarray, points, labels) -> np.ndarray:
    """Random walker (Grady, PAMI 2006): which seed does a walker from this pixel meet first?

    `image`: `H x W x 3`, uint8; `points`: `k x 2` clicks (x, y) in pixels, `labels`: `k`, 1 on the
    object and 0 beside it. The border of the image counts as background, so that one click on
    the object suffices. Returns bool `H x W`: without any contrast, the clicks on the object alone.
    """
    seeds = np.zeros(image.shape[:2], np.int64)
    seeds[[0, -1]] = seeds[:, [0, -1]] = 2
    for (x, y), label in zip(points, labels, strict=True):
        around = disk((float(y), float(x)), CLICK_RADIUS, shape=seeds.shape)
        seeds[around] = 1 if label else 2
    if np.ptp(image) == 0 or not (seeds == 1).any():  # nothing leads a walker
        return seeds == 1
    # The direct solver is exact, and at these sizes faster than the iterative ones.
    return random_walker(image / 255, seeds, beta=BETA, mode="bf", channel_axis=-1) == 1
