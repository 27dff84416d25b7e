"""Endless batches of a labelled and an unlabelled stream, addressed by step number.

Batch number `step` is a pure function of the seed and of `step`. Nothing has to be saved to
continue a run but the step, and worker processes may prepare batches in any order.

Each stream runs through its own samples in a new random order every epoch. The two streams have
different lengths, so their epochs differ; a batch may also straddle the border of two epochs, and
with fewer labelled images than places in a batch it holds several. So the epoch is kept for
every sample: `batch.labelled.epoch` and `batch.unlabelled.epoch` are what augmentation is keyed by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.data.augment import generator_for


class _Movable:
    """Applies a tensor operation to every tensor of a dataclass, nested ones included."""

    def _map(self, operation):
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = operation(value)
            elif isinstance(value, _Movable):
                changed[field.name] = value._map(operation)
        return replace(self, **changed)

    def to(self, device: torch.device | str):
        """A copy on `device`; indices and epochs move too.

        The copy may go on in the background only from page-locked memory: the source could be freed
        before it is read.
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pin_memory(self):
        """A copy in page-locked memory (DataLoader calls this for faster copies to a GPU)."""
        return self._map(Tensor.pin_memory)


@dataclass
class Labelled(_Movable):
    """Samples with their masks.

    image: Bx3xHxW float in [0, 1]; mask: BxHxW int64; index: B int64, data set indices; epoch:
    B int64, the epoch of this stream that each sample belongs to; names: B strings.
    """

    image: Tensor
    mask: Tensor
    index: Tensor
    epoch: Tensor
    names: list[str]


@dataclass
class Unlabelled(_Movable):
    """Samples of which no mask is known; the fields mean what they mean in `Labelled`."""

    image: Tensor
    index: Tensor
    epoch: Tensor
    names: list[str]


@dataclass
class Batch(_Movable):
    """What a training step receives.

    epoch: the epoch of the first labelled sample, for display and schedules; augmentation takes
    the epochs of the samples. unlabelled is None when the stream has no unlabelled part.
    """

    labelled: Labelled
    unlabelled: Unlabelled | None
    epoch: int
    seed: int
    step: int


class BatchStream:
    """Endless batches from one data set; `batch(step)` gives any of them directly."""

    def __init__(
        self,
        dataset,
        *,
        labelled: Sequence[int],
        unlabelled: Sequence[int] = (),
        labelled_batch: int,
        unlabelled_batch: int = 0,
        seed: int,
        workers: int = 0,
    ):
        """Check the streams; nothing is read yet.

        dataset: anything with `image(i)`, `mask(i)` and `names`, all images of one size. Of
        samples in `unlabelled` only the image is asked for, never the mask.
        labelled, unlabelled: data set indices, each without repetition.
        labelled_batch, unlabelled_batch: samples of each kind in a batch; the first at least 1.
        seed: decides the order of both streams. workers: processes that prepare batches ahead in
        `iterate`; each decodes for itself what was not in memory when it started.

        Raises ValueError for an empty or repeated index list, or one that leaves the data set.
        """
        self.dataset = dataset
        self.labelled = _indices("labelled", labelled, len(dataset.names))
        self.unlabelled = _indices("unlabelled", unlabelled, len(dataset.names))
        if not self.labelled:
            raise ValueError("labelled is empty: a batch needs at least one labelled image")
        if labelled_batch < 1 or unlabelled_batch < 0:
            raise ValueError(
                "labelled_batch must be at least 1 and unlabelled_batch at least 0, "
                f"got {labelled_batch} and {unlabelled_batch}"
            )
        if unlabelled_batch and not self.unlabelled:
            raise ValueError(
                f"unlabelled_batch is {unlabelled_batch} but unlabelled is empty: "
                "pass indices of unlabelled images or unlabelled_batch=0"
            )
        self.labelled_batch = labelled_batch
        self.unlabelled_batch = unlabelled_batch
        self.seed = seed
        self.workers = workers

    def batch(self, step: int) -> Batch:
        """Batch number `step` >= 0, the same at every call. Global random state is not touched."""
        index, epoch = self._place("labelled", self.labelled, self.labelled_batch, step)
        labelled = Labelled(
            image=self._stack(index, self.dataset.image),
            mask=self._stack(index, self.dataset.mask),
            index=torch.tensor(index),
            epoch=torch.tensor(epoch),
            names=[self.dataset.names[i] for i in index],
        )
        unlabelled = self._unlabelled(step) if self.unlabelled_batch else None
        return Batch(labelled, unlabelled, epoch=epoch[0], seed=self.seed, step=step)

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches `start` to `stop - 1`, prepared ahead by the worker processes if there are any.

        The batches are those of `batch`, whatever the number of workers.
        """
        if not self.workers:
            yield from map(self.batch, range(start, stop))
            return
        yield from DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: DataLoader would otherwise draw from the global one, and
            # runs with and without workers, or resumed once more, would part ways.
            generator=torch.Generator(),
        )

    def _unlabelled(self, step: int) -> Unlabelled:
        index, epoch = self._place("unlabelled", self.unlabelled, self.unlabelled_batch, step)
        return Unlabelled(
            image=self._stack(index, self.dataset.image),
            index=torch.tensor(index),
            epoch=torch.tensor(epoch),
            names=[self.dataset.names[i] for i in index],
        )

    def _place(
        self, stream: str, members: list[int], size: int, step: int
    ) -> tuple[list[int], list[int]]:
        """Data set indices and epochs of one stream's samples in batch `step`."""
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        places = [divmod(step * size + k, len(members)) for k in range(size)]
        index = [
            members[_order(self.seed, epoch, stream, len(members))[at]] for epoch, at in places
        ]
        return index, [epoch for epoch, _ in places]

    def _stack(self, index: list[int], load) -> Tensor:
        tensors = [load(i) for i in index]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) > 1:
            names = ", ".join(
                f"{self.dataset.names[i]} {tuple(tensor.shape)}"
                for i, tensor in zip(index, tensors, strict=True)
            )
            raise ValueError(
                f"a batch needs images of one size, got {names}; open the data set with size=..."
            )
        return torch.stack(tensors)


class _Steps(Dataset):
    """A stream seen as a data set whose items are batches, for DataLoader's workers."""

    def __init__(self, stream: BatchStream):
        self.stream = stream

    def __getitem__(self, step: int) -> Batch:
        return self.stream.batch(step)


@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, stream: str, count: int) -> list[int]:
    """The random order of a stream's `count` samples in one epoch."""
    generator = generator_for((seed, epoch, 0, f"order of the {stream} stream"))
    return torch.randperm(count, generator=generator).tolist()


def _indices(name: str, indices: Sequence[int], count: int) -> list[int]:
    """`indices` as a list of int, checked against a data set of `count` samples."""
    indices = [int(i) for i in indices]
    outside = [i for i in indices if not 0 <= i < count]
    if outside:
        raise ValueError(f"{name} has indices outside the data set of {count}: {outside[:10]}")
    if len(set(indices)) < len(indices):
        raise ValueError(f"{name} has repeated indices; each sample may be listed once")
    return indices
