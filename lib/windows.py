"""Attention in windows without their padding: what all padded tokens of a window amount to.

SAM's encoder cuts its grid of tokens into windows of 14 x 14 and fills those at the right and at
the bottom with padding: 28 x 28 tokens for the 16 x 16 of a 256 px image, three times as many.
What padded tokens would attend to is thrown away. But the others attend to them: all have one key
k' and one value v' (those of a zero token, the bias of the projection), and for a query i, with the
relative positions of `lib.sam.attention`, the logit

    scale * q_i . k' + h_i[row] + w_i[column]        h_i[r] = q_i . R_h[row(i) - r], w_i likewise

The softmax sees them only through the sum of their exponentials, and over a rectangle of rows and
columns this sum is a product. Padding is two rectangles: every row of the columns beyond the
image, and the rows below it of the columns inside. So one token with value v' and the logit

    scale * q_i . k' + log(sum_all e^h sum_beyond e^w + sum_below e^h sum_inside e^w)

stands for all of them, exactly.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def map_windows(grid: Tensor, size: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `function` to the windows of `grid`, those at the border as small as they are.

    Args:
        grid: B x H x W x C.
        size: side of a window in tokens.
        function: N x h x w x C to N x h x w x C', for all windows of one shape at once: at most
            four calls, for the inside, the right, the bottom and the corner.

    Returns:
        B x H x W x C'.
    """
    height, width = grid.shape[1:3]
    lengths = [[n - n % size, n % size] for n in (height, width)]
    rows = []
    # Not by slices: the gradient of each would be filled up with zeros to the whole grid.
    for band in grid.split(lengths[0], dim=1):
        parts = [
            _map_equal_windows(part, size, function)
            for part in band.split(lengths[1], dim=2)
            if part.shape[1] and part.shape[2]
        ]
        rows += [torch.cat(parts, dim=2)] if parts else []
    return torch.cat(rows, dim=1)


def padding_mass(
    row_logits: Tensor | None, column_logits: Tensor | None, shape: tuple[int, int], size: int
) -> Tensor | float:
    """Log of the sum of e^(h + w) over the padding of a window, for each query.

    Args:
        row_logits: h_i of all `size` rows of the window, ... x size; None where all logits are 0.
        column_logits: w_i, of the same shape.
        shape: rows and columns of the window that lie inside the image; not both are `size`.
        size: side of the window.

    Returns:
        A tensor `...`, or the log of the number of padded tokens.
    """
    height, width = shape
    if row_logits is None:
        return math.log(size * size - height * width)
    rectangles = []
    if width < size:
        beyond = column_logits[..., width:].logsumexp(dim=-1)
        rectangles.append(row_logits.logsumexp(dim=-1) + beyond)
    if height < size:
        below = row_logits[..., height:].logsumexp(dim=-1)
        rectangles.append(below + column_logits[..., :width].logsumexp(dim=-1))
    return rectangles[0] if len(rectangles) == 1 else torch.logaddexp(*rectangles)


def _map_equal_windows(grid: Tensor, size: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Windows of `size`, or of the grid's own length along an axis that is shorter."""
    batch, height, width, _ = grid.shape
    h, w = min(size, height), min(size, width)
    down, across = height // h, width // w
    cut = grid.reshape(batch, down, h, across, w, -1).transpose(2, 3)
    done = function(cut.reshape(batch * down * across, h, w, -1))
    done = done.reshape(batch, down, across, h, w, -1).transpose(2, 3)
    return done.reshape(batch, height, width, -1)
