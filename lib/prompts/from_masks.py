"""Prompts for SAM from a network's prediction: components, then points, box or mask logits.

Coordinates are pixel indices of the probability map in ``(x, y)`` order, x to the right and y
down, as `SamPredictor` takes them: ``(0, 0)`` is the top-left pixel. SAM's prompt encoder itself
adds 0.5 to move an index to the centre of its pixel, so nothing is added here. A box is
``(x0, y0, x1, y1)`` and **inclusive**: the indices of the first and the last column and row that
belong to the object, as in segment-anything's `batched_mask_to_box`. A single pixel at (4, 7)
has the box ``(4, 7, 4, 7)``.

The paper on knowledge mining (Mao et al. 2025, arXiv 2503.06816) names points and boxes but not
how they are chosen; every rule and default below is this project's choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from lib.prompts.points import POINT_RULES, pick_points

NEGATIVE_REGIONS = ("outside_box", "outside_object")
MASK_CLIP = 0.01  # probabilities are clipped to [0.01, 0.99] before they become logits


@dataclass
class Prompt:
    """One object's prompt, in pixel indices of the ``H x W`` picture it was made from."""

    points: Tensor | None  # N x 2 float32 (x, y)
    labels: Tensor | None  # N int64: 1 = on the object, 0 = on the background
    box: Tensor | None  # 4 float32 (x0, y0, x1, y1), inclusive
    mask_logits: Tensor | None  # H x W float32, object > 0; never a 0/1 mask
    component: Tensor  # H x W bool: the connected component that gave rise to the prompt


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a probability map becomes prompts.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    mode: str = "points+box"  # "points", "box", "mask", or several of them joined by "+"
    positives: int = 3  # points on the object
    negatives: int = 0  # points on the background
    point_rule: str = "distance"  # see lib.prompts.points
    negative_region: str = "outside_box"  # or "outside_object": background inside the box
    padding: float = 0.0  # each side of the box moves out by this share of the box's side
    threshold: float = 0.5  # foreground = probability > threshold
    min_area: float = 0.002  # smaller components are dropped; share of the image's pixels
    keep: int = 3  # only the largest components are kept (polyps 3, lungs 2)
    mask_bound: float = 10.0  # mask logits lie in [-bound, bound], about SAM's own range
    seed: int = 0  # of the rule "random"

    def __post_init__(self) -> None:
        """Refuse values that would give silent nonsense."""
        unknown = self.parts - {"points", "box", "mask"}
        if unknown or len(self.parts) != len(self.mode.split("+")):
            raise ValueError(
                f"PromptConfig.mode={self.mode!r}: give 'points', 'box', 'mask' or several of "
                "them joined by '+', each once"
            )
        _require(self.point_rule in POINT_RULES, "point_rule", self.point_rule, POINT_RULES)
        _require(
            self.negative_region in NEGATIVE_REGIONS,
            "negative_region",
            self.negative_region,
            NEGATIVE_REGIONS,
        )
        _require(0 < self.threshold < 1, "threshold", self.threshold, "a number in (0, 1)")
        _require(0 <= self.min_area < 1, "min_area", self.min_area, "a share in [0, 1)")
        _require(self.padding >= 0, "padding", self.padding, "a share >= 0")
        _require(self.keep >= 1, "keep", self.keep, "a number >= 1")
        _require(self.mask_bound > 0, "mask_bound", self.mask_bound, "a number > 0")
        lowest = 1 if "points" in self.parts else 0
        _require(self.positives >= lowest, "positives", self.positives, f"a number >= {lowest}")
        _require(self.negatives >= 0, "negatives", self.negatives, "a number >= 0")

    @property
    def parts(self) -> frozenset[str]:
        """The mode as a set: a subset of {"points", "box", "mask"}."""
        return frozenset(self.mode.split("+"))


@dataclass
class PromptBatch:
    """Prompts of several images, flat, as batched decoding wants them."""

    prompts: list[Prompt]
    image_index: list[int]  # the image of each prompt, ascending
    without_prompt: list[int]  # images in which nothing was found


def prompts_from_probability(probability: Tensor, config: PromptConfig) -> list[Prompt]:
    """One prompt for each kept component of the predicted foreground, largest first.

    Args:
        probability: H x W float in [0, 1], the predicted probability of the foreground.
        config: the rules.

    Returns:
        Prompts on the CPU. An empty list when nothing is found: an image without a prediction
        gets no prompt, rather than an invented one.

    Raises:
        ValueError: not two-dimensional, not floating point, NaN, or outside [0, 1].
    """
    values = _checked(probability)
    foreground = values > config.threshold
    generator = np.random.default_rng(config.seed)
    return [
        _prompt(values, foreground, component, config, generator)
        for component in find_components(foreground, min_area=config.min_area, keep=config.keep)
    ]


def against_others(probabilities: Tensor, label: int) -> Tensor:
    """H x W: above 1/2 exactly where `label` is the likeliest of C x H x W class probabilities.

    Of two classes that is the probability itself. Of more, a class may win with less than 1/2.
    """
    if len(probabilities) == 2:
        return probabilities[label]
    others = torch.cat([probabilities[:label], probabilities[label + 1 :]]).amax(dim=0)
    return probabilities[label] / (probabilities[label] + others)


def prompts_from_mask(mask: Tensor, config: PromptConfig) -> list[Prompt]:
    """Prompts from an H x W mask (bool or integer, foreground > 0).

    For upper bounds and demonstrations. Prompts from the true masks of unlabelled images would
    be a leak when used in training.
    """
    if mask.is_floating_point():
        raise ValueError("mask is floating point: use prompts_from_probability for probabilities")
    return prompts_from_probability((mask > 0).float(), config)


def prompts_for_images(
    probabilities: Sequence[Tensor] | Tensor, config: PromptConfig
) -> PromptBatch:
    """Prompts of several images: B x H x W, or B maps of any sizes."""
    batch = PromptBatch(prompts=[], image_index=[], without_prompt=[])
    for index, probability in enumerate(probabilities):
        prompts = prompts_from_probability(probability, config)
        batch.prompts += prompts
        batch.image_index += [index] * len(prompts)
        if not prompts:
            batch.without_prompt.append(index)
    return batch


def find_components(foreground: np.ndarray, *, min_area: float, keep: int) -> list[np.ndarray]:
    """The ``keep`` largest 8-connected components (H x W bool each), largest first.

    Components below ``min_area`` (share of the image) are dropped. Equal areas stay in reading
    order of their first pixel.
    """
    numbered = label(foreground, connectivity=2)
    areas = np.bincount(numbered.ravel())[1:]
    order = np.argsort(-areas, kind="stable")[:keep]
    return [numbered == i + 1 for i in order if areas[i] >= min_area * foreground.size]


def tight_box(component: np.ndarray, *, padding: float = 0.0) -> np.ndarray:
    """Inclusive box (x0, y0, x1, y1), float32, padded by a share of its sides, inside the image."""
    height, width = component.shape
    rows = np.flatnonzero(component.any(axis=1))
    columns = np.flatnonzero(component.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float32)
    margin = padding * np.array([_side(box[0], box[2]), _side(box[1], box[3])])
    box += np.concatenate([-margin, margin]).astype(np.float32)
    return box.clip(0, np.array([width - 1, height - 1] * 2, dtype=np.float32))


def _side(first: float, last: float) -> float:
    """Number of pixels from index ``first`` to index ``last``, both included."""
    return last - first + 1


def mask_logits(
    probability: np.ndarray, component: np.ndarray, *, threshold: float, bound: float
) -> np.ndarray:
    """The probability map (H x W) as a mask prompt for one component, in [-bound, bound].

    SAM was trained with its own mask logits as mask prompts; a 0/1 mask would say "hardly
    foreground" everywhere. Here the logit of the probability, measured from the threshold, is
    clipped where a probability of 0.99 lies at threshold 0.5, and scaled so that this clip
    becomes ``bound``. Foreground of *other* components turns negative: each object is asked for
    alone.
    """
    clipped = probability.clip(MASK_CLIP, 1 - MASK_CLIP)
    largest = np.log((1 - MASK_CLIP) / MASK_CLIP)
    logits = np.log(clipped / (1 - clipped)) - np.log(threshold / (1 - threshold))
    logits = logits.clip(-largest, largest) * (bound / largest)
    other = (logits > 0) & ~component
    return np.where(other, -logits, logits).astype(np.float32)


def _prompt(
    probability: np.ndarray,
    foreground: np.ndarray,
    component: np.ndarray,
    config: PromptConfig,
    generator: np.random.Generator,
) -> Prompt:
    box = tight_box(component, padding=config.padding)
    points = labels = logits = None
    if "points" in config.parts:
        points, labels = _points(foreground, component, box, config, generator)
    if "mask" in config.parts:
        logits = torch.from_numpy(
            mask_logits(probability, component, threshold=config.threshold, bound=config.mask_bound)
        )
    return Prompt(
        points=points,
        labels=labels,
        box=torch.from_numpy(box) if "box" in config.parts else None,
        mask_logits=logits,
        component=torch.from_numpy(component),
    )


def _points(
    foreground: np.ndarray,
    component: np.ndarray,
    box: np.ndarray,
    config: PromptConfig,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    positive = pick_points(component, config.positives, rule=config.point_rule, generator=generator)
    # The centroid of the background means nothing, so negatives are spread unless random.
    rule = "random" if config.point_rule == "random" else "distance"
    region = negative_region(foreground, box, config.negative_region)
    negative = pick_points(region, config.negatives, rule=rule, generator=generator)
    points = torch.from_numpy(np.concatenate([positive, negative]))
    return points, torch.tensor([1] * len(positive) + [0] * len(negative))


def negative_region(foreground: np.ndarray, box: np.ndarray, where: str) -> np.ndarray:
    """Background pixels (H x W bool) in which negative points may lie; possibly none.

    ``"outside_object"``: inside the box. ``"outside_box"``: around it, up to half a box side
    away (at least one pixel), since a negative point far from the object says little.
    """
    inside = _filled(foreground.shape, box)
    if where == "outside_object":
        return inside & ~foreground
    sides = np.array([_side(box[0], box[2]), _side(box[1], box[3])])
    margin = np.maximum(sides / 2, 1)
    around = _filled(foreground.shape, box + np.concatenate([-margin, margin]))
    return around & ~inside & ~foreground


def _filled(shape: tuple[int, int], box: np.ndarray) -> np.ndarray:
    """Pixels whose centres lie in the inclusive box."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    x0, y0, x1, y1 = box
    return (rows >= y0) & (rows <= y1) & (columns >= x0) & (columns <= x1)


def _checked(probability: Tensor) -> np.ndarray:
    if probability.ndim != 2 or not probability.is_floating_point():
        raise ValueError(
            f"probability has shape {tuple(probability.shape)} and type {probability.dtype}: give "
            "one H x W floating-point map, e.g. logits.softmax(1)[i, 1]"
        )
    values = probability.detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError(
            "probability holds NaN or infinite values: the network that predicted it has diverged"
        )
    # Resizing a probability map may leave [0, 1] by rounding errors, and by no more.
    if values.size == 0 or values.min() < -1e-4 or values.max() > 1 + 1e-4:
        raise ValueError(
            "probability is empty or leaves [0, 1]: apply softmax or sigmoid to logits first"
        )
    return values.clip(0, 1)


def _require(condition: bool, name: str, value: object, allowed: object) -> None:
    if not condition:
        raise ValueError(f"PromptConfig.{name}={value!r}: expected {allowed}")
