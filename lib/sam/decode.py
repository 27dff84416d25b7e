"""Decode many prompts on many images at once, equal to `SamPredictor` one prompt at a time.

SAM's prompt encoder takes a batch only if all its prompts have the same structure, and its mask
decoder repeats **one** image embedding for all of them. Here prompts are grouped by structure
(number of points, box or not, mask or not), and each prompt brings the embedding of its own
image along.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from lib.sam.preprocess import input_size

TOKENS_AT_ONCE = 64 * 16 * 16  # image tokens in one pass of the decoder, all prompts together
UPSCALE_AT_ONCE = 16  # masks resized to the picture at a time; bounds the memory in between


class PromptLike(Protocol):
    """What is prompted, in pixels of the H x W picture; at least one of the three is given."""

    points: Tensor | None  # N x 2, (x, y)
    labels: Tensor | None  # N, 1 = object, 0 = background
    box: Tensor | None  # 4, (x0, y0, x1, y1)
    mask_logits: Tensor | None  # h x w, > 0 on the object


@dataclass
class Decoded:
    """Masks of P prompts, M each: 1, or 3 with ``multimask=True``.

    logits: P x M x H x W at the size of the picture, > 0 on the object; None if not asked for.
    iou: P x M, SAM's own estimate of each mask's IoU (about 0 to 1, not clipped).
    low_res: P x M x h x w logits as the decoder gives them: 4 times the embedding's side, the
        padding of a non-square picture included. They can be the `mask_logits` of a next prompt.
    """

    logits: Tensor | None
    iou: Tensor
    low_res: Tensor

    def to(self, device: torch.device | str) -> "Decoded":
        """The same on `device`."""
        logits = None if self.logits is None else self.logits.to(device)
        return Decoded(logits, self.iou.to(device), self.low_res.to(device))


def decode_prompts(
    sam: Sam,
    embeddings: Tensor,
    prompts: Sequence[PromptLike],
    image_index: Sequence[int],
    *,
    size: tuple[int, int],
    multimask: bool | str = "auto",
    batch_size: int | None = None,
    full_size: bool = True,
) -> Decoded:
    """Decode P prompts, the k-th on image `image_index[k]`; results are in the order given.

    Args:
        sam: the model that made the embeddings.
        embeddings: N x C x h x w output of SAM's image encoder.
        prompts: P prompts in pixels of the picture. `mask_logits` of exactly SAM's own low-res
            size are taken as they are; those of any other size cover the whole picture and are
            resized.
        image_index: P numbers in [0, N).
        size: (H, W) of the pictures in px, before they were resized for SAM. Coordinates are scaled
            as `SamPredictor` does, from the corner of a pixel: where SAM's image is s times finer,
            a point lies (s - 1) / 2 of its pixels up and left of the pixel's middle.
        multimask: False returns SAM's single mask; True its three; "auto" one mask a prompt: the
            single one where a box or a mask says which object is meant, and of points alone,
            which leave that open, the one of the three with the highest predicted IoU.
        batch_size: prompts decoded at once. None takes 64 at 256 px and as many fewer as there
            are more tokens (4 at 1024 px), for about 0.2 GB either way.
        full_size: False leaves `Decoded.logits` None and saves P x M x H x W floats.

    Raises:
        ValueError: a prompt or an argument is malformed; the message names it.
    """
    if multimask not in (True, False, "auto"):
        raise ValueError(f"multimask={multimask!r}: give True, False or 'auto'")
    if batch_size is None:
        batch_size = max(1, TOKENS_AT_ONCE // embeddings.shape[2:].numel())
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    _check_images(sam, embeddings, image_index, len(prompts))
    for number, prompt in enumerate(prompts):
        _check_prompt(prompt, number)
    masks = 3 if multimask is True else 1
    side = sam.prompt_encoder.mask_input_size
    iou = embeddings.new_empty(len(prompts), masks, dtype=torch.float32)
    low_res = iou.new_empty(len(prompts), masks, *side)
    logits = iou.new_empty(len(prompts), masks, *size) if full_size else None
    for rows in _groups(prompts, batch_size):
        images = embeddings[[image_index[row] for row in rows]]
        found, score = _decode_group(sam, images, [prompts[row] for row in rows], size, multimask)
        low_res[rows], iou[rows] = found, score
        if logits is not None:
            for start in range(0, len(rows), UPSCALE_AT_ONCE):
                part = slice(start, start + UPSCALE_AT_ONCE)
                logits[rows[part]] = sam.postprocess_masks(found[part], input_size(sam, size), size)
    return Decoded(logits, iou, low_res)


def decode_batch(
    sam: Sam, embeddings: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Run SAM's mask decoder with an image embedding for each prompt.

    Args:
        embeddings: P x C x h x w, the embedding of each prompt's image.
        sparse: P x N x C; dense: P x C x h x w. Both from the prompt encoder, or learned.

    Returns:
        P x 4 x 4h x 4w logits and P x 4 predicted IoUs: the single mask, then the three.
    """
    # The decoder's first act is image + dense prompt, with one image repeated P times. So the
    # image of each prompt goes in as a part of its dense prompt, and the repeated one is zero.
    return sam.mask_decoder.predict_masks(
        image_embeddings=embeddings.new_zeros(1, 1, 1, 1),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=embeddings + dense,
    )


def _groups(prompts: Sequence[PromptLike], batch_size: int) -> Iterator[list[int]]:
    """Yield the positions of prompts of equal structure, at most `batch_size` at a time."""
    groups: dict[tuple, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(_structure(prompt), []).append(row)
    for rows in groups.values():
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def _structure(prompt: PromptLike) -> tuple[int, bool, bool]:
    points = 0 if prompt.points is None else len(prompt.points)
    return points, prompt.box is not None, prompt.mask_logits is not None


def _decode_group(
    sam: Sam,
    embeddings: Tensor,
    prompts: Sequence[PromptLike],
    size: tuple[int, int],
    multimask: bool | str,
) -> tuple[Tensor, Tensor]:
    """Decode prompts of one structure; returns P x M x h x w logits and P x M IoUs."""
    device = embeddings.device
    to_input = ResizeLongestSide(sam.image_encoder.img_size)
    number, has_box, has_mask = _structure(prompts[0])
    points = boxes = masks = None
    if number:
        xy = torch.stack([prompt.points for prompt in prompts]).to(device)
        labels = torch.stack([prompt.labels for prompt in prompts]).to(device, torch.int)
        points = to_input.apply_coords_torch(xy, size), labels
    if has_box:
        corners = torch.stack([prompt.box for prompt in prompts]).to(device)
        boxes = to_input.apply_boxes_torch(corners, size)
    if has_mask:
        masks = torch.stack([mask_input(sam, p.mask_logits, size) for p in prompts]).to(device)
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
    weight = sam.mask_decoder.iou_token.weight  # an embedding may be stored in half precision
    low_res, iou = decode_batch(sam, embeddings.to(weight.dtype), sparse, dense)
    if multimask is True:
        return low_res[:, 1:], iou[:, 1:]
    if multimask is False or has_box or has_mask:
        return low_res[:, :1], iou[:, :1]
    best = 1 + iou[:, 1:].argmax(dim=1, keepdim=True)  # 0 is the single mask
    return low_res.take_along_dim(best[:, :, None, None], dim=1), iou.take_along_dim(best, dim=1)


def mask_input(sam: Sam, logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring h x w mask logits into SAM's low-res frame; returns 1 x 4h' x 4w'."""
    side = sam.prompt_encoder.mask_input_size
    logits = logits.detach().float()
    if tuple(logits.shape) == tuple(side):
        return logits[None]
    # SAM's input is the picture at top left and padding; the same share of the frame is ours.
    inside = input_size(sam, size)
    scale = side[0] / sam.image_encoder.img_size
    height, width = (max(1, round(length * scale)) for length in inside)
    resized = F.interpolate(
        logits[None, None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )[0]
    background = min(float(logits.min()), 0.0)  # there is no object in the padding
    return F.pad(resized, (0, side[1] - width, 0, side[0] - height), value=background)


def _check_images(sam: Sam, embeddings: Tensor, image_index: Sequence[int], prompts: int) -> None:
    grid = tuple(sam.prompt_encoder.image_embedding_size)
    if embeddings.ndim != 4 or tuple(embeddings.shape[2:]) != grid:
        raise ValueError(
            f"embeddings {tuple(embeddings.shape)} do not fit this SAM, which takes N x C x "
            f"{grid[0]} x {grid[1]}: encode the images with the same model and image size"
        )
    if len(image_index) != prompts:
        raise ValueError(f"{prompts} prompts but {len(image_index)} entries in image_index")
    wrong = [index for index in image_index if not 0 <= index < len(embeddings)]
    if wrong:
        raise ValueError(f"image_index has {wrong[0]}, but there are {len(embeddings)} embeddings")


def _check_prompt(prompt: PromptLike, number: int) -> None:
    points, has_box, has_mask = _structure(prompt)
    if not (points or has_box or has_mask):
        raise ValueError(f"prompt {number} is empty: give points, a box or mask_logits")
    if points and (
        tuple(prompt.points.shape) != (points, 2)
        or prompt.labels is None
        or tuple(prompt.labels.shape) != (points,)
    ):
        raise ValueError(f"prompt {number}: points must be N x 2 (x, y), with N labels")
    if points and not torch.isin(prompt.labels.cpu(), torch.tensor([0, 1])).all():
        raise ValueError(f"prompt {number}: labels must be 1 (object) or 0 (background)")
    if has_box and tuple(prompt.box.shape) != (4,):
        raise ValueError(f"prompt {number}: box must be (x0, y0, x1, y1)")
    if has_mask and prompt.mask_logits.ndim != 2:
        raise ValueError(f"prompt {number}: mask_logits must be h x w")
    for name in ("points", "box", "mask_logits"):
        value = getattr(prompt, name)
        if value is not None and not torch.isfinite(value).all():
            raise ValueError(f"prompt {number}: {name} holds values that are not finite")
