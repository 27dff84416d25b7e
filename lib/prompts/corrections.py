"""Clicks and boxes drawn from known masks, as SAM's training and evaluation simulate a user.

Kirillov et al. 2023, arXiv 2304.02643, appendix A ("Making the model promptable"). Coordinates
are (x, y) pixels of the mask's own grid, at pixel centres minus one half (SAM adds the half).
"""

import torch
from torch.nn import functional as F
from torchvision.ops import masks_to_boxes


def boxes_of(mask):
    """Tight boxes `N x 4` (x0, y0, x1, y1) around boolean masks `N x H x W`, float32.

    Corners are the indices of the first and last pixel, both inside; an empty mask gives zeros.
    """
    return masks_to_boxes(mask)


def noisy_boxes(boxes, deviation, size, generator=None):
    """Move each coordinate by a normal error of `deviation` times the box's side.

    `boxes`: `N x 4`; `deviation`: number or `N` numbers; `size`: (height, width) to stay within.
    Corners that cross are swapped, and a side is at least one pixel.
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)
    error = torch.randn(boxes.shape, generator=generator).to(boxes)
    moved = boxes + error * sides * torch.as_tensor(deviation).to(boxes).reshape(-1, 1)
    limit = boxes.new_tensor([size[1] - 1.0, size[0] - 1.0])
    low = torch.minimum(moved[:, :2], moved[:, 2:]).clamp_min(0).minimum(limit - 1)
    high = torch.maximum(moved[:, :2], moved[:, 2:]).minimum(limit)
    return torch.cat([low, torch.maximum(high, low + 1)], 1)


def random_clicks(region, generator=None, depth=2):
    """One point `N x 2` in each boolean region `N x H x W`, the more likely the deeper inside.

    `depth`: pixels over which the border is less likely. An empty region gives its map's centre.
    """
    shape = region.shape
    inside = region.float()
    near = F.avg_pool2d(inside[:, None], 2 * depth + 1, 1, depth)[:, 0]
    weight = (inside * near**3).flatten(1)
    empty = weight.sum(1) == 0
    weight[empty, shape[1] // 2 * shape[2] + shape[2] // 2] = 1
    flat = torch.multinomial(weight, 1, generator=generator)[:, 0]
    return torch.stack([flat % shape[2], flat // shape[2]], 1).float()


def correction_clicks(prediction, target, generator=None):
    """A click in each error region: points `N x 2` and labels `N` (1 missed, 0 invented).

    `prediction`, `target`: boolean `N x H x W`. The click falls on a missed or an invented pixel,
    rather in a large error than in a thin one (`random_clicks`); where nothing is wrong it confirms
    the target.
    """
    wrong = prediction ^ target
    right = ~wrong.flatten(1).any(1)
    wrong = torch.where(right[:, None, None], target, wrong)
    points = random_clicks(wrong, generator, depth=1)
    x, y = points.long().unbind(1)
    labels = target[torch.arange(len(target)), y, x].float()
    return points, labels
