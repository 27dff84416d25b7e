"""Pseudo labels: one mask for each unlabelled image, and whether it may be learnt from."""

from collections.abc import Sequence

import torch
from torch import Tensor


class PseudoLabels:
    """A table of masks, addressed by data set index; empty until `put` fills a row.

    masks: N x H x W uint8; valid: N bool, False where nothing was mined or a filter refused it.
    The table is part of a training run's state: `state` and `restore` go into checkpoints.
    """

    def __init__(self, indices: Sequence[int], size: tuple[int, int]):
        """Make room for one H x W mask for each data set index in `indices`."""
        self.indices = [int(i) for i in indices]
        self._row = {index: row for row, index in enumerate(self.indices)}
        self.masks = torch.zeros(len(self.indices), *size, dtype=torch.uint8)
        self.valid = torch.zeros(len(self.indices), dtype=torch.bool)

    def put(self, index: int, mask: Tensor | None) -> None:
        """Keep `mask` (H x W, values 0..255) for image `index`; None: it has no pseudo label."""
        row = self._row[int(index)]
        self.valid[row] = mask is not None
        self.masks[row] = 0 if mask is None else mask.to(torch.uint8).cpu()

    def get(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return masks (B x H x W int64) and validity (B bool) for B data set indices."""
        rows = [self._row[int(i)] for i in indices]
        return self.masks[rows].to(torch.int64), self.valid[rows]

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs; `restore` takes it back."""
        return {"masks": self.masks.clone(), "valid": self.valid.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned. Raise ValueError when it is for another set."""
        if state["masks"].shape != self.masks.shape:
            raise ValueError(
                f"pseudo labels of shape {tuple(state['masks'].shape)} do not fit this run's "
                f"{tuple(self.masks.shape)}: was it saved with another split or image size?"
            )
        self.masks, self.valid = state["masks"].clone(), state["valid"].clone()
