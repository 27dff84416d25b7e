"""Generated images as a training stream: a pool on disk, filled once, read in random order.

Drawing an image costs about as much as a training step on it, so a run draws a pool of images
first and reads each several times, flipped, turned and recoloured. The pool is one
memory-mapped file of bytes; a killed fill goes on where it stopped.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from lib.data.batches import Batch, Labelled
from lib.data.engine import MAX_MASKS, VERSION, generate

SIZE = 256
CHUNK = 50  # images drawn by a worker at a time


def pack(scene):
    """A scene as `H x W x 4` bytes: red, green, blue, and bit k set where object k is."""
    bits = np.zeros(scene.image.shape[:2], np.uint8)
    for k, mask in enumerate(scene.masks):
        bits |= mask.astype(np.uint8) << k
    return np.concatenate([scene.image, bits[..., None]], axis=2)


def unpack(bits):
    """Objects `B x 8 x H x W` (float 0 or 1) of a bit field `B x H x W` (integers)."""
    planes = torch.arange(MAX_MASKS, device=bits.device)[:, None, None]
    return ((bits[:, None] >> planes) & 1).float()


class ImagePool:
    """The first `count` scenes of a seed, packed, in one file.

    `images`: memory-mapped `count x 256 x 256 x 4` uint8 once `fill` has returned.
    """

    def __init__(self, directory: str | Path, *, seed: int, count: int):
        """Open or create the pool; nothing is drawn yet."""
        self.seed, self.count, self.directory = seed, count, Path(directory)
        self.path = self.directory / f"pool-{VERSION}-{seed}-{count}.u8"
        self._done = self.path.with_suffix(".json")
        self.directory.mkdir(parents=True, exist_ok=True)
        missing = not self.path.exists()
        shape = (count, SIZE, SIZE, 4)
        self.images = np.memmap(self.path, np.uint8, "w+" if missing else "r+", shape=shape)
        if missing:
            self._done.unlink(missing_ok=True)

    def fill(self, workers: int | None = None, progress: bool = True) -> "ImagePool":
        """Draw what is missing, with `workers` processes (default: one a core)."""
        start = json.loads(self._done.read_text()) if self._done.exists() else 0
        chunks = [range(k, min(k + CHUNK, self.count)) for k in range(start, self.count, CHUNK)]
        bar = tqdm(total=self.count, initial=start, desc="images", disable=not progress)
        with ProcessPoolExecutor(workers) as executor:
            drawn = executor.map(_draw, [self.seed] * len(chunks), chunks)
            for chunk, packed in zip(chunks, drawn, strict=True):
                self.images[chunk.start : chunk.stop] = packed
                self.images.flush()
                temporary = self._done.with_suffix(".tmp")
                temporary.write_text(json.dumps(chunk.stop))
                os.replace(temporary, self._done)
                bar.update(len(chunk))
        bar.close()
        return self


def _draw(seed, indices):
    return np.stack([pack(generate(seed, index)) for index in indices])


class GeneratedStream:
    """Endless batches from a pool, with the interface of `lib.data.batches.BatchStream`.

    Batch number `step` depends on the seed and on `step` alone. `labelled.image`: `B x 3 x size x
    size` in [0, 1]; `labelled.mask`: `B x 256 x 256` int64, a bit field (see `unpack`).
    """

    labelled: tuple = ()
    unlabelled: tuple = ()
    unlabelled_batch = 0

    def __init__(self, pool: ImagePool, *, batch: int, size: int = SIZE, seed: int = 0):
        """`size`: 256, or 128 for images of half the side."""
        self.pool, self.labelled_batch, self.size, self.seed = pool, batch, size, seed

    @property
    def dataset(self):
        """The stream describes itself to checkpoints (`fingerprint`, `size`)."""
        return self

    def fingerprint(self) -> str:
        """SHA-256 of what decides the pool's content: the engine's version, seed and count."""
        content = f"{VERSION} {self.pool.seed} {self.pool.count}"
        return hashlib.sha256(content.encode()).hexdigest()

    def batch(self, step: int) -> Batch:
        """Batch number `step`."""
        rng = np.random.default_rng((self.seed, step))
        index = rng.integers(self.pool.count, size=self.labelled_batch)
        pairs = [_augment(rng, self.pool.images[i]) for i in index]
        image = torch.stack([image for image, _ in pairs])
        if self.size != SIZE:
            image = F.avg_pool2d(image, SIZE // self.size)
        labelled = Labelled(
            image=image,
            mask=torch.stack([bits for _, bits in pairs]).long(),
            index=torch.from_numpy(index),
            epoch=torch.zeros(len(index), dtype=torch.int64),
            names=[f"generated {i}" for i in index],
        )
        return Batch(labelled, None, epoch=0, seed=self.seed, step=step)

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches `start` to `stop - 1`."""
        yield from map(self.batch, range(start, stop))


def _augment(rng, packed):
    """Flip, turn and recolour one packed scene: image `3 x H x W` in [0, 1], bits `H x W`."""
    if rng.random() < 0.5:
        packed = packed[::-1]
    if rng.random() < 0.5:
        packed = packed[:, ::-1]
    if rng.random() < 0.3:
        packed = packed.transpose(1, 0, 2)
    packed = torch.from_numpy(np.ascontiguousarray(packed.transpose(2, 0, 1)))
    image, bits = packed[:3].float() / 255, packed[3]
    if rng.random() < 0.1:
        image = image[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        image = (image * rng.uniform(0.8, 1.2) + rng.uniform(-0.08, 0.08)).clamp(0, 1)
    if rng.random() < 0.3:
        image = image ** float(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.05:
        image = 1 - image
    return image, bits
