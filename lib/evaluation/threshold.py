"""How far a mere threshold gets: the first question to ask of a segmentation data set.

Otsu's threshold (1979) is applied to each image on its own, to one of five channels, and either
what is brighter or what is darker is called the object. Where the best of these ten rules scores
high, a network that scores high has shown little.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from skimage.filters import threshold_otsu
from torch import Tensor


@dataclass(frozen=True)
class ThresholdBaseline:
    """The best rule of a data set, chosen with the true masks in hand: an upper bound.

    channel: "red", "green", "blue", "brightness" (their mean) or "saturation" (their range);
    polarity: "bright" or "dark", which side is the object; dice: mean over the images, in [0, 1].
    """

    channel: str
    polarity: str
    dice: float

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.dice:.2f} ({self.polarity} {self.channel})"

    def mask(self, image: Tensor) -> np.ndarray:
        """Return the rule's H x W bool mask of a 3 x H x W image in [0, 1]."""
        return threshold_masks(image)[self.channel, self.polarity]


def threshold_masks(image: Tensor) -> dict[tuple[str, str], np.ndarray]:
    """Return (channel, polarity) -> H x W bool mask of a 3 x H x W image in [0, 1]: ten rules."""
    red, green, blue = image.cpu().numpy()
    channels = {
        "red": red,
        "green": green,
        "blue": blue,
        "brightness": image.mean(0).cpu().numpy(),
        "saturation": (image.amax(0) - image.amin(0)).cpu().numpy(),
    }
    masks = {}
    for name, channel in channels.items():
        bright = channel > threshold_otsu(channel)
        masks[name, "bright"], masks[name, "dark"] = bright, ~bright
    return masks


def best_threshold(pairs: Iterable[tuple[Tensor, Tensor]]) -> ThresholdBaseline:
    """Return the rule with the highest mean Dice over pairs of image and true mask.

    pairs: images 3 x H x W in [0, 1] and masks H x W, foreground > 0; both empty scores 1.
    Raises ValueError when there are no pairs.
    """
    scores: dict[tuple[str, str], list[float]] = {}
    for image, mask in pairs:
        truth = mask.cpu().numpy() > 0
        for rule, guess in threshold_masks(image).items():
            total = guess.sum() + truth.sum()
            dice = 2 * (guess & truth).sum() / total if total else 1.0
            scores.setdefault(rule, []).append(float(dice))
    if not scores:
        raise ValueError("pairs is empty: give at least one image and its mask")
    means = {rule: sum(values) / len(values) for rule, values in scores.items()}
    channel, polarity = max(means, key=means.get)
    return ThresholdBaseline(channel, polarity, means[channel, polarity])
