"""Which parameters of a model train in a stage, and which images it sees."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lib.data.augment import generator_for
from lib.data.batches import Batch


def train_only(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Let `parameters` of `model` get gradients and no others, whatever an earlier stage left."""
    chosen = {id(parameter) for parameter in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)


def flipped_views(batch: Batch, flip: float) -> tuple[Tensor, Tensor]:
    """All images of a batch, labelled or not, each mirrored left-right with probability `flip`.

    An image has two views and no more, so that a teacher's embeddings of them can be kept; which
    one depends on seed, epoch and index alone. No mask is looked at.

    Returns:
        Images N x 3 x H x W in [0, 1] and their data set indices, N int64.
    """
    parts = [part for part in (batch.labelled, batch.unlabelled) if part is not None]
    images = torch.cat([part.image for part in parts])
    index = torch.cat([part.index for part in parts])
    epochs = torch.cat([part.epoch for part in parts]).tolist()
    draws = [
        torch.rand((), generator=generator_for((batch.seed, epoch, i, "mirror"))).item()
        for epoch, i in zip(epochs, index.tolist(), strict=True)
    ]
    mirror = torch.tensor([draw < flip for draw in draws], device=images.device)
    return torch.where(mirror[:, None, None, None], images.flip(-1), images), index
