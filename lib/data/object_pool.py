"""Real images with masks as a pool for `lib.data.generated.GeneratedStream`: objects to prompt.

Every connected part of a mask is an object, and so is the whole mask where it has several parts:
one lung and both, one nucleus and all. Each data set is seen equally often, however few images it
has.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from lib.data.engine import MAX_MASKS
from lib.data.generated import SIZE

SMALLEST = 20  # px at 256 px: below that a box is a few pixels wide


class ObjectPool:
    """`count` packed images (see `lib.data.generated.pack`) of several data sets, in memory.

    `images`: `count x 256 x 256 x 4` uint8; `names`: data set of each.
    """

    def __init__(
        self, datasets: Mapping, *, per_set: int, seed: int = 0, progress: bool = True,
        indices: Mapping[str, Sequence[int]] | None = None,
    ):  # fmt: skip
        """Read `per_set` images of each data set; a smaller one is repeated.

        Where objects are rare it stops looking after twice as many images, unless none had one.

        `datasets`: name -> data set of images with 256 px a side (`image`, `mask`, `fingerprint`);
        `indices`: name -> the images that may be read, by default all of that data set.

        Raises:
            ValueError: if a data set's images have another size, or none of them has an object.
        """
        self.seed, packed, self.names = seed, [], []
        indices = indices or {}
        self.without = tuple(
            (name, data.fingerprint(), *indices.get(name, ())) for name, data in datasets.items()
        )
        for name, dataset in datasets.items():
            allowed = indices.get(name, range(len(dataset)))
            if dataset.size != SIZE:
                raise ValueError(f"{name} must be opened with size={SIZE}, got {dataset.size}")
            found = _read(name, dataset, allowed, per_set, seed, progress)
            packed += [found[k % len(found)] for k in range(per_set)]
            self.names += [name] * per_set
        self.images, self.count = np.stack(packed), len(packed)

    def fill(self, workers=None, progress=True, *, first=0) -> "ObjectPool":
        """Nothing to draw: photographs do not grow."""
        return self


class JoinedPools:
    """Pools as one, such as photographs and generated images, with the interface of each."""

    def __init__(self, *pools):
        """Copies the images of `pools`, which do not change any more, into one array."""
        self.seed = pools[0].seed
        self.without = tuple((pool.seed, pool.count, pool.without) for pool in pools)
        self.images = np.concatenate([pool.images for pool in pools])
        self.count = len(self.images)

    def fill(self, workers=None, progress=True, *, first=0) -> "JoinedPools":
        """Nothing to draw."""
        return self


def objects_of(mask: np.ndarray) -> list[np.ndarray]:
    """Objects (bool `H x W`, at most 8) of a mask `H x W` of classes, the largest first.

    Connected parts of each class, and the whole foreground if it has more than one part.
    """
    parts = []
    for label in np.unique(mask[mask > 0]):
        found, count = ndimage.label(mask == label, np.ones((3, 3)))
        parts += [found == k for k in range(1, count + 1)]
    if len(parts) > 1:
        parts.append(mask > 0)
    large = [part for part in parts if part.sum() >= SMALLEST]
    return sorted(large, key=lambda part: -part.sum())[:MAX_MASKS]


def _read(name, dataset, allowed, limit, seed, progress):
    """At most `limit` packed images, of the `allowed` numbers, that have an object."""
    packed = []
    order = np.random.default_rng(seed).permutation(allowed)
    for looked_at, index in enumerate(tqdm(order, desc=name, disable=not progress)):
        if packed and looked_at >= 2 * limit:
            break
        objects = objects_of(np.asarray(dataset.mask(int(index))))
        if not objects:
            continue
        image = dataset.image(int(index)).permute(1, 2, 0).mul(255).round().byte().numpy()
        bits = sum(part.astype(np.uint8) << k for k, part in enumerate(objects))
        packed.append(np.concatenate([image, bits[..., None].astype(np.uint8)], axis=2))
        if len(packed) == limit:
            break
    if not packed:
        raise ValueError(
            f"{name}: none of the {len(order)} masks has an object of {SMALLEST} px or more (at "
            f"{SIZE} px a side); leave the data set out, or check the masks: 0 is the background"
        )
    return packed
