"""Uncertainty of a mean over test images, and of the difference between two methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 5000


@dataclass(frozen=True)
class Difference:
    """Mean of a paired difference with its bootstrap interval, in the unit of the scores."""

    mean: float
    low: float
    high: float
    images: int


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: images are drawn anew with replacement.

    Deterministic for a seed. The interval speaks of other test images of the same kind, not of
    other training runs; seeds are the measure of those. Images of one patient are drawn apart from
    each other, so where several are scored (slices) the interval is somewhat too narrow.

    Raises:
        ValueError: fewer than two values, or a value that is not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("values: expected at least two finite numbers, one an image")
    interval = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=1000,  # bounds the memory of the resampled array
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_difference(
    ours: Mapping[str, float], baseline: Mapping[str, float], **settings
) -> Difference:
    """Mean of ours - baseline over the same images, with its bootstrap interval.

    Both map the image's name to its score. Pairing removes what the images share: some are hard
    for every method. ``settings`` go to `bootstrap_interval`.

    Raises:
        ValueError: the two were not scored on the same images.
    """
    if ours.keys() != baseline.keys():
        apart = sorted(ours.keys() ^ baseline.keys())
        raise ValueError(
            f"the methods were scored on different images ({len(apart)} in one only, e.g. "
            f"{apart[:3]}): compare runs on the same split"
        )
    differences = np.array([ours[name] - baseline[name] for name in sorted(ours)])
    low, high = bootstrap_interval(differences, **settings)
    return Difference(mean=float(differences.mean()), low=low, high=high, images=len(differences))
