"""Pretraining the small SAM with SAM's recipe on generated images.

Kirillov et al. 2023, arXiv 2304.02643, section 3 and appendix A: a first prompt (a click or a
noisy box), then corrections by clicks in the error region with the previous mask logits as a
further prompt; of three masks the one of lowest loss counts; focal and Dice loss 20:1; a head
learns to predict each mask's IoU by squared error. All prompts of an image share one pass of
the image encoder, which on a CPU is what makes it affordable.

    python -m lib.training.small_sam_run --output DIR --minutes N
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor

from lib.data.batches import Batch
from lib.data.generated import unpack
from lib.prompts.corrections import boxes_of, correction_clicks, noisy_boxes, random_clicks
from lib.sam.decode import decode_batch
from lib.sam.frozen import sam_fingerprint
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import cosine


@dataclass(frozen=True, kw_only=True)
class SmallSamConfig:
    """Defaults are what the shipped weights were trained with; SAM's values beside them.

    prompts: objects prompted an image, at least 2, half of them first by a box (SAM: up to 64 on
        a GPU).
    rounds: the first prompt and the corrections after it (SAM: 11, two of them without a click).
    learning_rate, weight_decay: of AdamW (SAM: 8e-4 and 0.1).
    warmup: fraction of the run over which the rate rises (SAM: 250 of 90 000 steps).
    focal, dice: weights of the losses (SAM: 20 and 1).
    box_error: mean normal error of a box's coordinates as a share of its side (SAM: 0.1).
    exact_box: share of boxes without any error, which teach that a tight box can be trusted.
    forget_mask: share of corrections without the previous logits, as users send them.
    coarse_mask: share of first rounds with a coarse mask as a prompt, as pseudo labels are.
    ema: decay of the averaged weights, which are what is kept (SAM: none).
    batch: images in a step; whoever builds the stream reads it from here (SAM: 256).
    """

    prompts: int = 4
    rounds: int = 3
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    focal: float = 20.0
    dice: float = 1.0
    box_error: float = 0.1
    exact_box: float = 0.3
    forget_mask: float = 0.25
    coarse_mask: float = 0.15
    ema: float = 0.999
    batch: int = 12

    def __post_init__(self):
        """Refuse a number of prompts that leaves boxes without one."""
        if self.prompts < 2:
            raise ValueError(f"prompts must be at least 2 (a box and a click), got {self.prompts}")


class SmallSamPretraining(Method):
    """SAM's training step on batches of `lib.data.generated.GeneratedStream`."""

    def __init__(self, config: SmallSamConfig, *, sam: Sam):
        """Train `sam` (images of its own size) in place; `average` holds its averaged weights."""
        super().__init__(config)
        self.sam, self._start = sam, sam_fingerprint(sam)
        self.average = copy.deepcopy(sam).requires_grad_(False)
        decayed = [p for p in sam.parameters() if p.ndim > 1]
        others = [p for p in sam.parameters() if p.ndim <= 1]  # biases and norms
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW over all of SAM."""
        return [self._optimizer]

    def hyperparameters(self) -> dict[str, Any]:
        """The configuration, and the weights that it started from."""
        return super().hyperparameters() | {"started_from": self._start}

    def learning_rate(self, progress: Progress) -> float:
        """A cosine to a hundredth, after the warm-up."""
        return cosine(progress.fraction, warmup=self.config.warmup, floor=0.01)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """One prompt and its corrections on `prompts` objects of every image."""
        config, sam, image = self.config, self.sam, batch.labelled.image
        with torch.autocast(image.device.type, torch.bfloat16):
            embeddings = sam.image_encoder(sam.preprocess(255 * image))
        embeddings = embeddings.float().repeat(config.prompts, 1, 1, 1)
        soft = choose_objects(batch.labelled.mask, config.prompts, embeddings.shape[-1] * 4)
        target = soft > 0.5
        target = torch.where(target.flatten(1).any(1)[:, None, None], target, soft > 0)
        cell = sam.image_encoder.img_size / soft.shape[-1]  # px of the image, 4 in every SAM
        boxed = len(soft) // 2
        boxes = _first_boxes(target[:boxed], cell, config)
        points, labels = _at_pixels(random_clicks(target), cell)[:, None], _ones(target)
        logits = _coarse_logits(soft) if torch.rand(()) < config.coarse_mask else None
        parts, chosen = [], None
        for turn in range(config.rounds):
            if turn:
                clicks, signs = correction_clicks(chosen[:, 0] > 0, target)
                points = torch.cat([points, _at_pixels(clicks, cell)[:, None]], 1)
                labels = torch.cat([labels, signs[:, None]], 1)
                logits = None if torch.rand(()) < config.forget_mask else chosen
            masks, quality = decode_prompted(sam, embeddings, points, labels, boxes, logits)
            iou = hard_iou(masks.detach(), target)
            losses = focal_dice(masks, soft, focal=config.focal, dice=config.dice)
            # The single mask answers any prompt; the three compete (the paper trains the single
            # one on several prompts only, but a box should not need a choice among three).
            mask_loss = losses[:, 0].mean() + losses[:, 1:].min(1).values.mean()
            parts.append((mask_loss, F.mse_loss(quality, iou), iou[:boxed, 0].mean()))
            chosen = _to_correct(masks.detach(), quality, single=len(soft) if turn else boxed)
        mask_loss, quality_loss, box_iou = (torch.stack(p) for p in zip(*parts, strict=True))
        return Losses(
            total=mask_loss.mean() + quality_loss.mean(),
            masks=mask_loss.mean().detach(),
            quality=quality_loss.mean().detach(),
            box_iou=box_iou[0],
            corrected_iou=box_iou[-1],
        )

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Move the average; early on it follows faster, so that it forgets the random start."""
        decay = min(self.config.ema, (1 + progress.step) / (10 + progress.step))
        averaged, live = self.average.parameters(), self.sam.parameters()
        torch._foreach_lerp_(list(averaged), list(live), 1 - decay)
        for kept, current in zip(self.average.buffers(), self.sam.buffers(), strict=True):
            kept.copy_(current)  # BatchNorm's statistics, where an encoder has any

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the object in the middle of the image: a promptable model needs a prompt."""
        sam, count = self.average, len(image)
        embeddings = sam.image_encoder(sam.preprocess(255 * image))
        middle = torch.full((count, 1, 2), sam.image_encoder.img_size / 2, device=image.device)
        masks, _ = decode_prompted(sam, embeddings, middle, _ones(image), middle[:0, 0], None)
        foreground = F.interpolate(masks[:, :1], image.shape[-2:], mode="bilinear")
        return torch.cat([torch.zeros_like(foreground), foreground], 1)


def choose_objects(bits: Tensor, prompts: int, size: int) -> Tensor:
    """Draw `prompts` objects of each image, again from the start where it has fewer.

    `bits`: `B x H x W` bit field. Returns `(prompts * B) x size x size`, the share of each cell
    that the object covers, all images' first objects first.
    """
    planes = F.avg_pool2d(unpack(bits), bits.shape[-1] // size)
    there = planes.flatten(2).any(2)
    order = (torch.rand(there.shape, device=bits.device) + 10.0 * ~there).argsort(1)
    turns = torch.randperm(prompts, device=bits.device)
    index = order.gather(1, turns[None] % there.sum(1, keepdim=True))
    return (
        planes[torch.arange(len(bits), device=bits.device)[:, None], index]
        .transpose(0, 1)
        .flatten(0, 1)
    )


def decode_prompted(sam, embeddings, points, labels, boxes, logits):
    """All four masks and predicted IoUs of `N` prompts, the first `M` of which are boxes.

    `embeddings`: one a prompt; `points`: `N x k x 2` and `labels`: `N x k`; `boxes`: `M x 4`, each
    in place of its prompt's first click; pixels of SAM's input; `logits`: `N x 1 x 4h x 4w`, the
    masks so far, or None. Returns `N x 4 x 4h x 4w` (the single mask first) and `N x 4`.
    """
    boxed, encoder, sparse = len(boxes), sam.prompt_encoder, []
    if boxed:
        clicks = (points[:boxed, 1:], labels[:boxed, 1:]) if points.shape[1] > 1 else None
        sparse.append(encoder(points=clicks, boxes=boxes, masks=None)[0])
    if boxed < len(points):
        clicks = points[boxed:], labels[boxed:]
        sparse.append(encoder(points=clicks, boxes=None, masks=None)[0])
    if logits is None:
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embeddings)
    else:
        dense = encoder.mask_downscaling(logits)
    return decode_batch(sam, embeddings, torch.cat(sparse), dense)


def hard_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU `N x K` of thresholded logits `N x K x h x w` with boolean targets `N x h x w`."""
    mask, target = logits > 0, target[:, None]
    return (mask & target).sum((2, 3)) / (mask | target).sum((2, 3)).clamp_min(1)


def focal_dice(logits: Tensor, target: Tensor, *, focal: float, dice: float) -> Tensor:
    """Weighted focal and Dice loss `N x K` of `N x K x h x w` logits.

    `target`: `N x h x w` in [0, 1]; since it may lie in between, the focal modulation is the
    squared difference from it (Li et al. 2020, arXiv 2006.04388, equation 6, beta = 2).
    """
    target = target[:, None].expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal_loss = (entropy * (probability - target) ** 2).mean((2, 3))
    overlap = (probability * target).sum((2, 3))
    dice_loss = 1 - (2 * overlap + 1) / ((probability + target).sum((2, 3)) + 1)
    return focal * focal_loss + dice * dice_loss


def _first_boxes(target, cell, config):
    """Boxes in px: some exact, the others with errors of up to twice the mean."""
    boxes = boxes_of(target)
    boxes[:, 2:] += 1  # to the far edge of the last cell
    wrong = torch.rand(len(boxes), device=target.device) >= config.exact_box
    deviation = wrong * 2 * config.box_error * torch.rand(len(boxes), device=target.device)
    size = round(target.shape[-1] * cell)
    return noisy_boxes(boxes * cell - 0.5, deviation, (size, size))


def _at_pixels(cells, cell):
    return (cells + 0.5) * cell - 0.5


def _ones(like):
    return torch.ones(len(like), 1, device=like.device)


def _coarse_logits(soft):
    """Blurred and uneven logits `N x 1 x h x w`, like an uncertain network's."""
    width = 2 * int(torch.randint(1, 4, ())) + 1
    coarse = F.avg_pool2d(soft[:, None], width, 1, width // 2)
    noise = torch.randn(len(soft), 1, 6, 6, device=soft.device)
    noise = F.interpolate(noise, soft.shape[1:], mode="bilinear")
    strength = torch.rand(len(soft), 1, 1, 1, device=soft.device)
    return 10 * (coarse - 0.5) + 2.5 * strength * noise


def _to_correct(masks, quality, *, single):
    """Logits `N x 1 x h x w` that the next click corrects.

    The single mask of the first `single` prompts; of the others, which are one click and so
    ambiguous, the mask of the three that the head believes in.
    """
    best = torch.zeros(len(masks), dtype=torch.long, device=masks.device)
    best[single:] = 1 + quality[single:, 1:].argmax(1)
    return masks[torch.arange(len(masks), device=masks.device), best][:, None]
