"""Generated images as a training stream: a pool on disk that is read in random order.

Drawing an image costs less than training on it, but not nothing. So a run keeps a pool of images
and reads each a few times, flipped, turned and recoloured, while worker processes replace the
oldest ones. The pool is one memory-mapped file of bytes of fixed size; whatever a killed run has
drawn is still there.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from lib.data.batches import Batch, Labelled
from lib.data.engine import HIDDEN, MAX_MASKS, VERSION, generate
from lib.data.random_convolution import random_convolution

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
    """`count` successive scenes of a seed, packed, in one file: a window that can move on.

    `images`: memory-mapped `count x 256 x 256 x 4` uint8; scene `i` lies in slot `i % count`.
    `held`: memory-mapped `count` int64, 1 + the number of the scene in each slot, 0 for none.
    """

    def __init__(
        self, directory: str | Path, *, seed: int, count: int, without: tuple[str, ...] = (),
        hidden: float = HIDDEN,
    ):  # fmt: skip
        """Open or create the pool; nothing is drawn yet.

        `without`: ingredients that the engine leaves out (`lib.data.engine.INGREDIENTS`); `hidden`:
        share of objects that are hardly visible.
        """
        self.seed, self.count, self.directory = seed, count, Path(directory)
        self.without, self.hidden = tuple(sorted(without)), hidden
        more = [] if hidden == HIDDEN else [f"hidden{hidden:g}"]
        name = "-".join(["pool", str(VERSION), str(seed), str(count), *self.without, *more])
        self.path = self.directory / f"{name}.u8"
        held = self.path.with_suffix(".i64")
        self.directory.mkdir(parents=True, exist_ok=True)
        mode = "r+" if self.path.exists() and held.exists() else "w+"
        self.images = np.memmap(self.path, np.uint8, mode, shape=(count, SIZE, SIZE, 4))
        self.held = np.memmap(held, np.int64, mode, shape=(count,))

    def fill(
        self, workers: int | None = None, progress: bool = True, *, first: int = 0
    ) -> "ImagePool":
        """Draw what is missing of the scenes from `first` on, with `workers` processes.

        `workers`: default one a core.
        """
        missing = self.missing(first)
        if len(missing) <= CHUNK:  # not worth a process
            if len(missing):
                self.put(missing, _draw(self.seed, self.without, self.hidden, missing))
            return self
        with ProcessPoolExecutor(workers) as executor:
            bar = tqdm(total=len(missing), desc="images", disable=not progress)
            for indices, packed in self.draw(missing, executor):
                self.put(indices, packed)
                bar.update(len(indices))
            bar.close()
        return self

    def missing(self, first: int) -> np.ndarray:
        """Numbers of the scenes `first` to `first + count - 1` that the pool does not hold."""
        wanted = np.arange(first, first + self.count)
        return wanted[self.held[wanted % self.count] != wanted + 1]

    def draw(self, indices: np.ndarray, executor: Executor) -> Iterator[tuple]:
        """Have scenes drawn; yields (numbers, packed scenes) in order. The work starts at once."""
        chunks = [indices[k : k + CHUNK] for k in range(0, len(indices), CHUNK)]
        drawn = executor.map(partial(_draw, self.seed, self.without, self.hidden), chunks)
        return zip(chunks, drawn, strict=True)

    def put(self, indices: np.ndarray, packed: np.ndarray) -> None:
        """Keep packed scenes in the places of those `count` before them."""
        slots = indices % self.count
        self.held[slots] = 0  # a run killed here leaves no slot with the wrong number
        self.held.flush()
        self.images[slots] = packed
        self.images.flush()
        self.held[slots] = indices + 1


def _draw(seed, without, hidden, indices):
    scenes = (generate(seed, int(i), without=without, hidden=hidden) for i in indices)
    return np.stack([pack(scene) for scene in scenes])


class GeneratedStream:
    """Endless batches from a pool, with the interface of `lib.data.batches.BatchStream`.

    Batch number `step` depends on the seed and on `step` alone. `labelled.image`: `B x 3 x size x
    size` in [0, 1]; `labelled.mask`: `B x 256 x 256` int64, a bit field (see `unpack`).
    """

    labelled: tuple = ()
    unlabelled: tuple = ()
    unlabelled_batch = 0

    def __init__(
        self, pool: ImagePool, *, batch: int, size: int = SIZE, seed: int = 0,
        fresh: float = 0.0, offset: int = 0, workers: int = 1, restyled: float = 0.0,
    ):  # fmt: skip
        """A stream that draws `batch` images a step from `pool`.

        Args:
            size: 256, or 128 for images of half the side.
            fresh: new images a place in a batch; each is then seen 1 / `fresh` times on average.
                0: the pool stays as it is.
            offset: number of the scene that the pool begins with at step 0.
            workers: processes that fill the pool; later one of them draws a chunk ahead.
            restyled: share of the images that are seen through a random network.

        Raises:
            ValueError: if `restyled` is outside [0, 1].
        """
        if not 0 <= restyled <= 1:
            raise ValueError(f"restyled must be in [0, 1], got {restyled}")
        self.pool, self.labelled_batch, self.size, self.seed = pool, batch, size, seed
        self.fresh, self.offset, self.workers = fresh, offset, workers
        self.restyled = restyled

    @property
    def dataset(self):
        """The stream describes itself to checkpoints (`fingerprint`, `size`)."""
        return self

    def fingerprint(self) -> str:
        """SHA-256 of what decides the images: engine's version, seed, window, its pace, styles."""
        pool = self.pool
        content = (VERSION, pool.seed, pool.count, pool.without, self.fresh, self.offset)
        hidden = getattr(pool, "hidden", HIDDEN)  # photographs have no such share
        content += (("restyled", self.restyled),) * bool(self.restyled)
        content += (("hidden", hidden),) * (hidden != HIDDEN)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def first(self, step: int) -> int:
        """Number of the oldest scene in the pool at `step`; it moves by whole chunks."""
        return self.offset + int(step * self.labelled_batch * self.fresh) // CHUNK * CHUNK

    def batch(self, step: int) -> Batch:
        """Batch number `step`; draws what the pool lacks for it."""
        first = self.first(step)
        self.pool.fill(self.workers, progress=False, first=first)
        rng = np.random.default_rng((self.seed, step))
        index = first + rng.integers(self.pool.count, size=self.labelled_batch)
        packed = self.pool.images[index % self.pool.count]
        pairs = [_augment(rng, scene, self.restyled) for scene in packed]
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
        """Batches `start` to `stop - 1`; workers draw the next chunk of images meanwhile."""
        if not self.fresh:
            yield from map(self.batch, range(start, stop))
            return
        with ProcessPoolExecutor(self.workers) as executor:
            first, coming = self.first(start), iter(())
            for step in range(start, stop):
                while first <= self.first(step):
                    for indices, packed in coming:
                        self.pool.put(indices, packed)
                    newest = first + self.pool.count
                    coming = self.pool.draw(np.arange(newest, newest + CHUNK), executor)
                    first += CHUNK
                yield self.batch(step)


def _augment(rng, packed, restyled):
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
    if restyled and rng.random() < restyled:
        image = random_convolution(rng, image)
    return image, bits
