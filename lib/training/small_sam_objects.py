"""Objects that a small SAM is scored on, real and generated, and how a command is given them."""

from pathlib import Path

import numpy as np
import torch

from lib.data.engine import generate
from lib.data.object_pool import SMALLEST
from lib.data.open import open_dataset
from lib.sam.small import IMAGE_SIZE
from lib.training.small_sam_evaluation import largest_object

HELD_OUT_SEED = 999  # no pool uses it


def real_objects(root, limit):
    """Largest objects of at most `limit` images, drawn with a fixed seed, of a data set's folder.

    Returns the data set, images `N x 3 x 256 x 256`, masks (bool) and names.
    """
    dataset = open_dataset("folder", root=root, size=IMAGE_SIZE)
    images, masks, names = [], [], []
    for index in np.random.default_rng(0).permutation(len(dataset)):
        found = largest_object(dataset.mask(int(index)))
        if found is None or found.sum() < SMALLEST:
            continue
        images.append(dataset.image(int(index)))
        masks.append(torch.from_numpy(found))
        names.append(dataset.names[int(index)])
        if len(images) == limit:
            break
    return dataset, torch.stack(images), torch.stack(masks), names


def generated_objects(count, seed=HELD_OUT_SEED):
    """Generated images of a seed that no pool uses (uint8), their largest objects and names."""
    scenes = [generate(seed, index) for index in range(count)]
    images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes])
    masks = np.stack([s.masks[s.masks.sum((1, 2)).argmax()] for s in scenes])
    return images, torch.from_numpy(masks), [f"{seed}-{k}" for k in range(count)]


def named_folder(text):
    """`NAME=DIR`, or `DIR` alone, whose last part is then the name."""
    name, equals, root = text.partition("=")
    if not equals or Path(name).name != name:  # the sign belongs to the path
        return Path(text).name, Path(text)
    return name, Path(root)


def named_once(parser, pairs):
    """Name -> folder; the command ends where two folders have one name."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"two folders are called {twice[0]!r}: write --data-root NAME=DIR")
    return dict(pairs)
