"""Many pictures through one model: reading, predicting and writing at the same time."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lib.data.errors import DataError
from lib.predict.inputs import Job
from lib.predict.pictures import (
    mask_of,
    model_input,
    read_picture,
    write_mask,
    write_overlay,
)

THREADS = 4  # for decoding and encoding, which Pillow does without Python's lock


@dataclass
class Report:
    """What came of it: pictures written, (file, why) of those that could not be read, seconds."""

    written: int = 0
    unreadable: list[DataError] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Pictures written in a second."""
        return self.written / max(self.seconds, 1e-9)


@dataclass(frozen=True, eq=False)
class _Read:
    """A picture: as it is, uint8; and as the model sees it."""

    job: Job
    pixels: np.ndarray
    image: Tensor


def predict_pictures(
    model: Callable[[Tensor], Tensor],
    jobs: Sequence[Job],
    *,
    size: int,
    overlays: bool = True,
    batch: int = 8,
    progress: bool = False,
) -> Report:
    """Write masks, and overlays if asked for, each at its picture's own size.

    A picture that cannot be read is passed over and reported; the others are written. Files appear
    whole or not at all, so that a run that was stopped can simply be started again.

    Args:
        model: images `B x 3 x size x size` in [0, 1] to logits `B x C x size x size`.
        jobs: of `find_jobs`.
        size: side in pixels that pictures are squashed to for the model.
        batch: pictures predicted at once. Three batches of whole pictures are in memory.
        progress: show a line.

    Raises:
        ValueError: batch below 1, or logits that are not finite.
        OSError: if a result cannot be written.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    report, began = Report(), time.monotonic()
    writing: deque[Future] = deque()
    bar = tqdm(total=len(jobs), unit="picture", disable=None if progress else True)
    with ThreadPoolExecutor(THREADS) as pool, bar:

        def finish(limit: int) -> None:
            while len(writing) > limit:
                writing.popleft().result()
                report.written += 1
                bar.update()

        for group in _groups(_read_ahead(jobs, size, batch, pool, report, bar), batch):
            logits = model(torch.stack([one.image for one in group])).cpu()
            if not torch.isfinite(logits).all():
                raise ValueError("the model's logits are not finite: its training broke down")
            for one, its in zip(group, logits, strict=True):
                writing.append(pool.submit(_write, one, its, overlays))
            finish(limit=batch)
        finish(limit=0)
    report.seconds = time.monotonic() - began
    return report


def _read_ahead(
    jobs: Sequence[Job], size: int, ahead: int, pool: ThreadPoolExecutor, report: Report, bar: tqdm
) -> Iterator[_Read]:
    """The pictures in order, `ahead` of them being read in advance; broken ones are reported."""
    waiting, left = deque(), iter(jobs)
    while True:
        for job in itertools.islice(left, ahead + 1 - len(waiting)):
            waiting.append(pool.submit(_read, job, size))
        if not waiting:
            return
        try:
            yield waiting.popleft().result()
        except DataError as error:
            report.unreadable.append(error)
            bar.update()


def _groups(pictures: Iterator[_Read], count: int) -> Iterator[list[_Read]]:
    while group := list(itertools.islice(pictures, count)):
        yield group


def _read(job: Job, size: int) -> _Read:
    pixels = read_picture(job.picture)
    return _Read(job, pixels, model_input(pixels, size))


def _write(one: _Read, logits: Tensor, overlays: bool) -> None:
    mask = mask_of(logits, one.pixels.shape[:2])
    write_mask(mask, len(logits), one.job.mask)
    if overlays:
        write_overlay(one.pixels, mask, one.job.overlay)
