"""Neighbouring frames of a video, simulated, and the split that they are so often given wrongly.

CVC-ClinicDB holds 612 frames of 29 sequences. Split frame by frame, as is common, every test frame
has a neighbour in train, and a network is scored on what it has nearly seen. Where a data set does
not say which of its images belong together, each image is given neighbours here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError


class SimulatedSequences(SegmentationDataset):
    """`frames` neighbours of each chosen image: moved a little, lit a little otherwise, noisy.

    The group of a frame is the image that it was made from, its sequence.
    """

    def __init__(
        self,
        base: SegmentationDataset,
        indices: Sequence[int],
        *,
        frames: int = 6,
        shift: float = 0.05,
        light: float = 0.08,
        noise: float = 0.02,
        seed: int = 0,
    ):
        """Make sequences of the images `indices` of `base`.

        Args:
            base: opened at one size.
            shift: furthest that a frame moves along rows or columns, as a share of the side.
            light: largest change of brightness. noise: standard deviation, pixels being in [0, 1].

        Raises:
            DataError: no image, less than two frames, or images of different sizes.
        """
        if not len(indices) or frames < 2 or base.size is None:
            raise DataError(
                f"sequences need images (got {len(indices)}), at least 2 frames (got {frames}) and "
                f"a data set opened with size=... (got {base.size})"
            )
        self._base, self._made_from = base, [int(i) for i in indices for _ in range(frames)]
        self._frames, self._seed = frames, seed
        self._shift, self._light, self._noise = round(shift * base.size), light, noise
        super().__init__(
            names=[f"{base.names[i]}/frame-{k}" for i in indices for k in range(frames)],
            groups=[base.names[i] for i in indices for _ in range(frames)],
            classes=base.classes,
            size=base.size,
            title=f"{base.title}, simulated sequences",
            licence=base.licence,
            origin=base.origin,
        )

    def _load_image(self, index: int) -> np.ndarray:
        numbers = np.random.default_rng((self._seed, index, 0))
        picture = self._moved(self._base.pixels(self._made_from[index]), index) / 255.0
        picture = picture * (1 + numbers.uniform(-self._light, self._light))
        picture = picture + numbers.normal(0, self._noise, picture.shape)
        return np.rint(picture.clip(0, 1) * 255).astype(np.uint8)

    def _load_mask(self, index: int) -> np.ndarray:
        mask = self._base.mask(self._made_from[index]).numpy().astype(np.uint8)
        return self._moved(mask, index)

    def _moved(self, picture: np.ndarray, index: int) -> np.ndarray:
        """Rows and columns rolled in by reflection, the same for an image and its mask."""
        numbers = np.random.default_rng((self._seed, index, 1))
        rows, columns = numbers.integers(0, 2 * self._shift + 1, 2)
        border = [(self._shift, self._shift)] * 2 + [(0, 0)] * (picture.ndim - 2)
        padded = np.pad(picture, border, mode="reflect")
        return padded[rows : rows + len(picture), columns : columns + picture.shape[1]]

    def _fingerprint_parts(self) -> Iterable[str]:
        settings = (self._frames, self._seed, self._shift, self._light, self._noise)
        return (self._base.fingerprint(), *map(str, settings))


@dataclass(frozen=True)
class FrameSplits:
    """One test set and two training sets of equal size, as places in the frames' data set.

    by_sequence: no frame of a test sequence. by_frame: all frames of the test sequences but the
    test frames themselves, then whole other sequences, the last of them as far as the number
    allows. So it is of nearly as many sequences, and leak is not mistaken for diversity: with 30
    sequences of 6 frames, 10 of them tested, by_sequence is of 20 and by_frame of 22.
    """

    test: tuple[int, ...]
    by_sequence: tuple[int, ...]
    by_frame: tuple[int, ...]


def split_frames(dataset: SegmentationDataset, *, test: int) -> FrameSplits:
    """Test on the first frame of `test` sequences; train on as many frames with and without leak.

    Raises:
        DataError: if no sequence is left to train on, or no second frame of a test sequence.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(dataset.groups):
        members.setdefault(group, []).append(index)
    sequences = list(members.values())
    if not 1 <= test < len(sequences):
        raise DataError(f"test must be 1 to {len(sequences) - 1} sequences, not {test}")
    held_out, rest = sequences[:test], sequences[test:]
    clean = [index for sequence in rest for index in sequence]
    # Round by round: were they cut, each test sequence would still leak.
    rounds = max(map(len, held_out))
    leak = [s[k] for k in range(1, rounds) for s in held_out if k < len(s)]
    if not leak:
        raise DataError("every test sequence has one frame only: there is nothing to leak")
    leaky = (leak + clean)[: len(clean)]
    return FrameSplits(tuple(s[0] for s in held_out), tuple(clean), tuple(leaky))
