"""Several data sets of different modalities as one, and batches that hold them in equal numbers.

Medical modalities come in very different numbers: 16 fundus photographs beside 2594 skin lesions.
Drawn in proportion, a batch of 8 would hold a fundus photograph once in 20 batches, and a shared
network would learn the large sets. `BalancedStream` goes round the modalities instead: of any K
draws in a row each of the K modalities gets one. The price, which every use should state: images
of a small set return more often, that is, its epochs are shorter.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lib.data.augment import generator_for
from lib.data.batches import BatchStream
from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError


class MixtureDataset(SegmentationDataset):
    """Data sets joined end to end; names and groups get their modality in front.

    Attributes, besides those of every data set:
        modalities: names of the modalities, in the order of their first appearance.
        modality: the place in `modalities` of each image, B ints.
    """

    def __init__(self, parts: Sequence[tuple[str, SegmentationDataset]]):
        """Join (modality, data set) pairs; one modality may have several data sets.

        Raises:
            DataError: for no part, parts of different size or with more than two classes, or one
                name twice within a modality.
        """
        if not parts:
            raise DataError("a mixture needs at least one (modality, data set) pair")
        for modality, part in parts:
            if part.classes != 2:
                raise DataError(
                    f"{modality}: {part.title or 'the data set'} has {part.classes} classes; a "
                    "mixture has two, background and target: open it as a binary data set"
                )
        sizes = {part.size for _, part in parts}
        if len(sizes) > 1:
            found = ", ".join(f"{modality} {part.size}" for modality, part in parts)
            raise DataError(f"the parts must be opened at one size, not {found}")
        self.modalities = tuple(dict.fromkeys(modality for modality, _ in parts))
        self._parts = [part for _, part in parts]
        self._places = [(part, i) for part in self._parts for i in range(len(part))]
        self.modality = [
            self.modalities.index(modality) for modality, part in parts for _ in range(len(part))
        ]
        super().__init__(
            names=[f"{modality}/{name}" for modality, part in parts for name in part.names],
            groups=[f"{modality}/{group}" for modality, part in parts for group in part.groups],
            domains=[domain for part in self._parts for domain in part.domains],
            splits=[split for part in self._parts for split in part.splits],
            size=sizes.pop(),
            title=" + ".join(part.title or modality for modality, part in parts),
            licence="; ".join(dict.fromkeys(p.licence for p in self._parts if p.licence)),
            origin="; ".join(dict.fromkeys(p.origin for p in self._parts if p.origin)),
        )
        self.notes = [f"{modality}: {note}" for modality, part in parts for note in part.notes]

    # Pictures are read through the parts, which keep them in memory; nothing is kept twice.

    def pixels(self, index: int) -> np.ndarray:
        """Return image `index` as uint8; never touches a mask."""
        part, place = self._places[self._position(index)]
        return part.pixels(place)

    def stored(self, index: int) -> tuple[str, int, int]:
        """Return mode, width and height of image `index` before it is resized."""
        part, place = self._places[self._position(index)]
        return part.stored(place)

    def mask(self, index: int) -> Tensor:
        """Return mask `index`, H x W int64, 0 or 1."""
        part, place = self._places[self._position(index)]
        return part.mask(place)

    def members(self, modality: str) -> list[int]:
        """Indices of the images of one modality.

        Raises:
            DataError: if the mixture has no such modality.
        """
        if modality not in self.modalities:
            raise DataError(f"no modality {modality!r} among {', '.join(self.modalities)}")
        wanted = self.modalities.index(modality)
        return [index for index, found in enumerate(self.modality) if found == wanted]

    def _fingerprint_parts(self):
        for part in self._parts:
            yield part.fingerprint()


class BalancedStream(BatchStream):
    """A `BatchStream` that draws the modalities of a mixture in turn, each in its own epochs.

    Draw number n, counted over all batches, is of modality n mod K, K being the modalities among
    the indices given; so a batch size that is a multiple of K makes every batch balanced. Each
    modality runs through its images in a new random order every epoch of its own.
    """

    def __init__(self, dataset: MixtureDataset, **settings):
        """Arguments and errors of `BatchStream`; `dataset` must be a mixture."""
        if not isinstance(dataset, MixtureDataset):
            raise ValueError(
                "BalancedStream balances the modalities of a MixtureDataset; join the data sets "
                "with MixtureDataset([(modality, data set), ...]) or use BatchStream"
            )
        super().__init__(dataset, **settings)

    def _place(
        self, stream: str, members: list[int], size: int, step: int
    ) -> tuple[list[int], list[int]]:
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        by_modality: dict[int, list[int]] = {}
        for member in members:
            by_modality.setdefault(self.dataset.modality[member], []).append(member)
        turns = [by_modality[modality] for modality in sorted(by_modality)]
        index, epochs = [], []
        for draw in range(step * size, (step + 1) * size):
            turn, modality = divmod(draw, len(turns))
            epoch, at = divmod(turn, len(turns[modality]))
            order = _order(self.seed, epoch, f"{stream} {modality}", len(turns[modality]))
            index.append(turns[modality][order[at]])
            epochs.append(epoch)
        return index, epochs


@lru_cache(maxsize=64)
def _order(seed: int, epoch: int, stream: str, count: int) -> list[int]:
    """The random order of one modality's `count` samples in one of its epochs."""
    generator = generator_for((seed, epoch, 0, f"balanced order of the {stream} stream"))
    return torch.randperm(count, generator=generator).tolist()
