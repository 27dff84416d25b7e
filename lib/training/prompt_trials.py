"""Try prompts on objects whose outlines are known: a simulated user, at any image size.

`lib.training.small_sam_evaluation` measures the small SAM in its own 256 px frame, as its card
needs it. Here any frozen SAM is prompted through `FrozenSam`, on images of any one size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.data.dataset import SegmentationDataset
from lib.prompts import Prompt, PromptConfig, prompts_from_mask
from lib.sam.decode import Decoded
from lib.sam.frozen import FrozenSam
from lib.training.small_sam_evaluation import correction, largest_object


def largest_objects(
    dataset: SegmentationDataset, count: int, *, indices: Iterable[int] | None = None
) -> tuple[Tensor, Tensor]:
    """The first `count` images with a foreground, and the largest connected object of each.

    `count`: at least 1; `indices`: the images to look through, by default all.

    Returns N x 3 x H x W images in [0, 1] and N x H x W bool masks, N <= count.

    Raises:
        ValueError: `count` is below 1, or none of the images has a foreground.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    indices = list(range(len(dataset)) if indices is None else indices)
    images, targets = [], []
    for i in indices:
        if len(images) == count:
            break
        found = largest_object(dataset.mask(i))
        if found is not None:
            images.append(dataset.image(i))
            targets.append(torch.from_numpy(found))
    if not images:
        raise ValueError(
            f"{dataset.title}: none of the {len(indices)} masks looked at has a foreground; give "
            "other indices, or check the masks: 0 is the background"
        )
    return torch.stack(images), torch.stack(targets)


def box_prompts(targets: Tensor) -> list[Prompt]:
    """Tight boxes of N x H x W bool masks, one a mask (of one connected object each)."""
    rule = PromptConfig(mode="box", keep=1, min_area=0)
    return [prompts_from_mask(target, rule)[0] for target in targets]


def mask_ious(masks: Tensor, targets: Tensor) -> list[float]:
    """Intersection over union of each pair of N x H x W bool masks; both empty scores 1."""
    overlap = (masks & targets).sum((1, 2))
    union = (masks | targets).sum((1, 2))
    return torch.where(union > 0, overlap / union.clamp_min(1), 1.0).tolist()


def simulated_clicks(
    teacher: FrozenSam,
    embeddings: Tensor,
    targets: Tensor,
    rounds: int,
    *,
    previous: Callable[[Tensor], Tensor | None] = lambda low_res: low_res,
    single_after_first: bool = False,
) -> list[Decoded]:
    """Click into the middle of each object, then into the middle of its largest error.

    Args:
        embeddings: N x C x h x w, of the images that `targets` (N x H x W bool) belong to.
        rounds: number of clicks.
        previous: makes the next round's mask prompt of the last low-res logits (h x w); the
            default hands them on, and one that returns None leaves the clicks alone.
        single_after_first: take SAM's single mask from the second click on, whatever `previous`
            makes; by default clicks without a mask prompt have the best of its three.

    Returns:
        What was decoded after 1, 2, ... clicks, one mask a prompt.
    """
    empty = torch.zeros(targets.shape[1:], dtype=torch.bool)
    prompts = [Prompt(torch.zeros(0, 2), torch.zeros(0).long(), None, None, empty) for _ in targets]
    masks, answers = torch.zeros_like(targets), []
    for _ in range(rounds):
        for k, (mask, target) in enumerate(zip(masks, targets, strict=True)):
            place, label = correction(mask.numpy(), target.numpy())
            points = torch.cat([prompts[k].points, torch.tensor([place])])
            labels = torch.cat([prompts[k].labels, torch.tensor([int(label)])])
            prompts[k] = replace(prompts[k], points=points, labels=labels)
        multimask = False if answers and single_after_first else "auto"
        rows, size = range(len(targets)), targets.shape[1:]
        answers.append(teacher.decode(embeddings, prompts, rows, size, multimask=multimask))
        masks = answers[-1].logits[:, 0].cpu() > 0
        low_res = answers[-1].low_res[:, 0]
        prompts = [
            replace(prompt, mask_logits=previous(logits))
            for prompt, logits in zip(prompts, low_res, strict=True)
        ]
    return answers


def box_and_click_masks(
    teacher: FrozenSam, images: Tensor, targets: Tensor, boxes: Sequence[Prompt], *, clicks: int = 3
) -> dict[str, Tensor]:
    """What a SAM draws for a given box, after one click and after `clicks`: N x H x W bool each.

    Args:
        images: N x 3 x H x W in [0, 1]; targets: N x H x W bool, one object each.
        boxes: one prompt an image.
    """
    embeddings, size = teacher.encode(images), targets.shape[1:]
    drawn = {"box": teacher.decode(embeddings, boxes, range(len(images)), size)}
    answers = simulated_clicks(teacher, embeddings, targets, clicks)
    drawn |= {"1 click": answers[0], f"{clicks} clicks": answers[-1]}
    return {name: found.logits[:, 0].cpu() > 0 for name, found in drawn.items()}


def through_grid(targets: Tensor, cells: tuple[int, int]) -> Tensor:
    """N x H x W bool masks brought to the grid on which SAM draws, and back.

    Both as SAM's own masks go: the share of each cell, interpolated bilinearly, above one half.
    """
    coarse = F.adaptive_avg_pool2d(targets[:, None].float(), cells)
    return F.interpolate(coarse, targets.shape[1:], mode="bilinear")[:, 0] > 0.5
