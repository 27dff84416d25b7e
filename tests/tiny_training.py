"""A data set of bright squares and a small method with everything a resume must carry."""

import copy
import multiprocessing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lib.data.batches import BatchStream
from lib.data.dataset import SegmentationDataset
from lib.losses.segmentation import bce_dice
from lib.training.method import Losses, Method
from lib.training.schedules import linear, sigmoid_ramp_up


class Squares(SegmentationDataset):
    """Bright squares on noise, 16 x 16 pixels; the mask is the square."""

    def __init__(self, count=12):
        super().__init__(names=[f"square-{i}" for i in range(count)], size=16, title="Squares")

    def _corner(self, index):
        return np.random.default_rng(index).integers(0, 9, size=2)

    def _load_image(self, index):
        row, column = self._corner(index)
        image = np.random.default_rng([index, 1]).integers(0, 120, (16, 16, 3), dtype=np.uint8)
        image[row : row + 7, column : column + 7] += 100
        return image

    def _load_mask(self, index):
        row, column = self._corner(index)
        mask = np.zeros((16, 16), np.uint8)
        mask[row : row + 7, column : column + 7] = 1
        return mask


def stream(seed=3, **changes):
    settings = {"labelled": range(4), "unlabelled": range(4, 10), "labelled_batch": 2}
    return BatchStream(Squares(), **{**settings, "unlabelled_batch": 2, "seed": seed, **changes})


@dataclass(frozen=True)
class TwinsConfig:
    """Two students."""

    sgd: float = 0.05
    adam: float = 0.01
    momentum: float = 0.9
    widths: tuple[int, ...] = (6, 6)


class Twins(Method):
    """Two networks with BatchNorm and dropout, SGD and Adam, an averaged teacher, a memory.

    What the semi-supervised family and KnowSAM need of the loop, in a few thousand operations:
    cross supervision with a ramp-up, a linear schedule, numpy's and Python's randomness, extra
    state that grows.
    """

    def __init__(self, config=None):
        super().__init__(config or TwinsConfig())
        first, second = self.config.widths
        self.a, self.b = (
            nn.Sequential(
                nn.Conv2d(3, first, 3, padding=1),
                nn.BatchNorm2d(first),
                nn.ReLU(),
                nn.Dropout2d(0.3),
                nn.Conv2d(first, second, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(second, 2, 1),
            )
            for _ in range(2)
        )
        self.teacher = copy.deepcopy(self.a).requires_grad_(False)
        self.seen: dict[str, torch.Tensor] = {}
        self._sgd = torch.optim.SGD(self.a.parameters(), lr=self.config.sgd, momentum=0.9)
        self._adam = torch.optim.Adam(self.b.parameters(), lr=self.config.adam)

    def optimizers(self):
        return [self._sgd, self._adam]

    def learning_rate(self, progress):
        return linear(progress.fraction, warmup=0.1)

    def before_step(self, progress, stream):
        if progress.step % 5 == 0:
            self.seen[str(progress.step)] = torch.rand(2)

    def step(self, batch, progress):
        noise = float(np.random.rand())  # noqa: NPY002 - the loop seeds numpy's generator too
        images = batch.labelled.image + 0.1 * noise
        a, b = self.a(images), self.b(images)
        supervised = bce_dice(a, batch.labelled.mask) + bce_dice(b, batch.labelled.mask)
        with torch.no_grad():
            target = self.teacher(batch.unlabelled.image).argmax(1)
        crossed = bce_dice(self.b(batch.unlabelled.image), target)
        weight = 0.1 * sigmoid_ramp_up(progress.fraction)
        return Losses(total=supervised + weight * crossed, supervised=supervised, weight=weight)

    def after_step(self, progress):
        with torch.no_grad():
            for average, weight in zip(self.teacher.parameters(), self.a.parameters(), strict=True):
                average.lerp_(weight, 1 - self.config.momentum)

    def predict(self, image):
        return self.a(image)

    def get_extra_state(self):
        return {"seen": dict(self.seen)}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def twins(config=None):
    """The same initial weights at every call."""
    torch.manual_seed(11)
    return Twins(config)


def quality(method):
    """A validation: pixel accuracy on the two images that no stream holds."""
    data = Squares()
    images, masks = (torch.stack([read(i) for i in (10, 11)]) for read in (data.image, data.mask))
    return {"dice": (method.predict(images).argmax(1) == masks).float().mean().item()}


def same(one, other):
    """Whether two nested states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def processes():
    """Processes that start in milliseconds: forked from a server that has imported torch once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lib.training.loop", "lib.losses.segmentation"])
    return context
