"""Scores of one predicted mask, and their summary over a test set.

Rules of this project, the same for every method:

- Dice and IoU are computed per image on hard masks and averaged over images. Both masks empty
  scores 1, one empty scores 0.
- HD95 and ASD come from MONAI. Where an object is missed or invented no distance exists; the
  image diagonal is charged instead. (MONAI returns NaN or infinity there, and averaging without
  those images would make misses *improve* the mean.) Both empty scores 0.
- With several foreground classes each class is scored like a binary mask, and the image's score
  is the mean over the foreground classes.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence

import torch
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

SCORES = ("dice", "iou", "hd95", "asd")
COUNTS = ("intersection", "predicted", "true")


def score_image(
    prediction: Tensor,
    target: Tensor,
    *,
    classes: int = 2,
    spacing: float | tuple[float, float] = 1.0,
) -> dict[str, float]:
    """Score one predicted class map against the true one.

    Args:
        prediction: H x W, bool or integer class indices in [0, classes).
        target: the same.
        classes: number of classes, background (0) included.
        spacing: size of a pixel, or (row, column) sizes; distances come in its unit. The default
            gives distances in pixels.

    Returns:
        ``dice``, ``iou`` in [0, 1]; ``hd95`` (the larger of the two directed 95th percentiles of
        the border distances) and ``asd`` (mean over the border pixels of both masks) in the unit
        of ``spacing``; ``missed`` and ``invented``, 1.0 when an object is missed altogether or
        invented, else 0.0; the pixel counts ``intersection``, ``predicted`` and ``true``, from
        which `pooled_dice` is computed. With more than one foreground class, the scores are means
        over those classes, and every value appears once more for each class c as ``dice_c`` etc.,
        the counts only so.

    Raises:
        ValueError: shapes differ, a map is not H x W, holds probabilities or unknown classes.
    """
    _check(prediction, target, classes)
    prediction, target = prediction.cpu(), target.cpu()
    if classes == 2:
        return _score_mask(prediction == 1, target == 1, spacing)
    per_class = {c: _score_mask(prediction == c, target == c, spacing) for c in range(1, classes)}
    averaged = (*SCORES, "missed", "invented")
    mean = {key: sum(s[key] for s in per_class.values()) / len(per_class) for key in averaged}
    return mean | {f"{key}_{c}": v for c, s in per_class.items() for key, v in s.items()}


def summarise(per_image: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean scores over images, pooled Dice, and how often objects were missed or invented.

    ``miss_rate`` is the share of true objects (image and class) that were missed altogether,
    ``invention_rate`` the share of empty places in which something was predicted; NaN where the
    test set offers no such case. Keys of single classes (``dice_1``) are averaged as well.
    """
    if not per_image:
        raise ValueError("per_image is empty: there is nothing to summarise")
    keys = [key for key in per_image[0] if re.fullmatch(rf"({'|'.join(SCORES)})(_\d+)?", key)]
    summary = {key: sum(row[key] for row in per_image) / len(per_image) for key in keys}
    cells = [
        {key: row[key + suffix] for key in ("true", "missed", "invented")}
        for row in per_image
        for suffix in _class_suffixes(row)
    ]
    present = [cell["missed"] for cell in cells if cell["true"] > 0]
    absent = [cell["invented"] for cell in cells if cell["true"] == 0]
    return summary | {
        "pooled_dice": pooled_dice(per_image),
        "miss_rate": sum(present) / len(present) if present else math.nan,
        "invention_rate": sum(absent) / len(absent) if absent else math.nan,
        "images": len(per_image),
    }


def pooled_dice(per_image: Sequence[Mapping[str, float]]) -> float:
    """Dice of all images' pixels taken together (mean over foreground classes): large objects rule.

    Takes rows of `score_image`. 1 when nothing is there and nothing was predicted.
    """
    suffixes = _class_suffixes(per_image[0])
    dices = []
    for suffix in suffixes:
        intersection, predicted, true = (
            sum(row[key + suffix] for row in per_image) for key in COUNTS
        )
        dices.append(_dice(intersection, predicted, true))
    return sum(dices) / len(dices)


def area_ratio(per_image: Sequence[Mapping[str, float]]) -> float:
    """Foreground pixels predicted, all images and classes together, over those that are true.

    Takes rows of `score_image`. Above 1 the masks are too large on the whole; infinite or NaN where
    nothing is true.
    """
    suffixes = _class_suffixes(per_image[0])
    predicted, true = (
        sum(row[key + suffix] for row in per_image for suffix in suffixes)
        for key in ("predicted", "true")
    )
    if not true:
        return math.inf if predicted else math.nan
    return predicted / true


def _score_mask(prediction: Tensor, target: Tensor, spacing: float | tuple[float, float]) -> dict:
    """Scores of one class; both arguments H x W bool."""
    intersection = int((prediction & target).sum())
    predicted, true = int(prediction.sum()), int(target.sum())
    union = predicted + true - intersection
    hd95, asd = _distances(prediction, target, spacing)
    return {
        "dice": _dice(intersection, predicted, true),
        "iou": intersection / union if union else 1.0,
        "hd95": hd95,
        "asd": asd,
        "missed": float(true > 0 and predicted == 0),
        "invented": float(true == 0 and predicted > 0),
        "intersection": intersection,
        "predicted": predicted,
        "true": true,
    }


def _distances(
    prediction: Tensor, target: Tensor, spacing: float | tuple[float, float]
) -> tuple[float, float]:
    """HD95 and ASD of two H x W bool masks, defined also where a mask is empty."""
    rows, columns = spacing if isinstance(spacing, Sequence) else (spacing, spacing)
    if not (rows > 0 and columns > 0):
        raise ValueError(f"spacing={spacing}: expected the size of a pixel, > 0")
    found, there = bool(prediction.any()), bool(target.any())
    if not found and not there:
        return 0.0, 0.0
    if not (found and there):
        height, width = target.shape
        diagonal = math.hypot(height * rows, width * columns)
        return diagonal, diagonal
    # One call gives both directions' border distances, which HD95 and ASD share.
    with warnings.catch_warnings():
        # MONAI 1.6 warns about an argument that it passes to itself.
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        _, (to_target, to_prediction), _ = get_edge_surface_distance(
            prediction, target, spacing=(rows, columns), symmetric=True
        )
    hd95 = max(float(torch.quantile(d, 0.95)) for d in (to_target, to_prediction))
    return hd95, float(torch.cat([to_target, to_prediction]).mean())


def _dice(intersection: int, predicted: int, true: int) -> float:
    return 2 * intersection / (predicted + true) if predicted + true else 1.0


def _class_suffixes(row: Mapping[str, float]) -> list[str]:
    """[""] for a binary row, else ["_1", "_2", ...]."""
    return [""] if "true" in row else [key[4:] for key in row if re.fullmatch(r"true_\d+", key)]


def _check(prediction: Tensor, target: Tensor, classes: int) -> None:
    if classes < 2:
        raise ValueError(f"classes={classes}: expected at least 2, background included")
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.ndim != 2 or mask.is_floating_point():
            raise ValueError(
                f"{name} has shape {tuple(mask.shape)} and type {mask.dtype}: give an H x W class "
                "map, e.g. logits.argmax(1)[i]"
            )
        if mask.numel() == 0 or mask.min() < 0 or mask.max() >= classes:
            raise ValueError(
                f"{name} is empty or holds classes outside [0, {classes}): a mask stored as 0/255 "
                "must be thresholded, a label map needs its number of classes"
            )
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ: "
            "resize the prediction to the target's size"
        )
