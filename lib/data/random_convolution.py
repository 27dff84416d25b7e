"""Images seen through a random network: other colours and textures, the same shapes.

A network of a few convolutions with random weights, mixed with the image itself, changes what
things look like and leaves where they are (Xu et al. 2021, arXiv 2007.13003; with several layers
and a mixture, as here: Ouyang et al. 2022, arXiv 2111.12525). A segmenter trained on it cannot
rely on how its training images were drawn.
"""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = 4
WIDTH = 2  # channels between the layers
SLOPE = 0.01  # of the leaky ReLU


def random_convolution(rng: np.random.Generator, image: Tensor) -> Tensor:
    """`image` (`C x H x W` in [0, 1]) mixed with its answer from a network drawn with `rng`.

    Every layer's kernel is 1 x 1 or 3 x 3 with normal weights. The share of the network's answer
    is uniform in [0, 1]. The result has the mean and the deviation of `image`, over all channels
    (the paper: its Frobenius norm, which for images in [0, 1] keeps the brightness of neither),
    and is clipped to [0, 1].
    """
    channels, answer = len(image), image[None] - image.mean()
    widths = [channels] + [WIDTH] * (LAYERS - 1) + [channels]
    for layer, (before, after) in enumerate(itertools.pairwise(widths)):
        side = 1 if rng.random() < 0.5 else 3
        weight = rng.standard_normal((after, before, side, side), dtype=np.float32)
        answer = F.pad(answer, (side // 2,) * 4, mode="replicate")
        answer = F.conv2d(answer, torch.from_numpy(weight / math.sqrt(before * side * side)))
        offset = torch.from_numpy(rng.standard_normal((after, 1, 1), dtype=np.float32))
        answer = answer + offset * answer.std()
        if layer < LAYERS - 1:
            answer = F.leaky_relu(answer, SLOPE)
    mixed = image + rng.random() * (_like(answer[0], image) - image)
    return _like(mixed, image).clamp(0, 1)


def _like(values, image):
    """`values` with the mean and the deviation of `image`; flat where they are flat."""
    spread = image.std() / values.std().clamp_min(1e-6)
    return (values - values.mean()) * spread + image.mean()
