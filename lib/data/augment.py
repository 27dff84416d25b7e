"""Weak (geometric) and strong (photometric) augmentation, a pure function of sample and key.

Weak augmentation moves image and mask together. Strong augmentation changes colours only, so a
label found on the weak view of an image holds, pixel by pixel, for its strong view.

All draws of a sample come from a generator seeded by the hash of its key, `(seed, epoch, index,
view)`. They therefore do not depend on the number of workers, on the other samples of the batch or
on the device, a resumed run repeats them, and every epoch has new ones.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

Key = tuple[int, int, int, str]


@dataclass(frozen=True)
class WeakConfig:
    """Ranges of the weak, geometric view.

    flip: probability of a left-right and, independently, of an up-down flip.
    degrees: rotation by any angle in [-degrees, degrees].
    scale: smallest and largest zoom; above 1 the border is cropped away.
    translate: largest shift along each axis, as a fraction of that side.
    """

    flip: float = 0.5
    degrees: float = 30.0
    scale: tuple[float, float] = (0.8, 1.25)
    translate: float = 0.1


@dataclass(frozen=True)
class StrongConfig:
    """Ranges and probabilities of the strong, photometric view.

    The jitter, greyscale and blur probabilities (0.8, 0.2, 0.5) and jitter ranges are those usual
    in weak-to-strong consistency, e.g. UniMatch (Yang et al. 2023, arXiv 2208.09910); a hue shift
    of 0.1 turn is the largest that leaves tissue tissue-coloured.

    jitter: probability of changing brightness, contrast and saturation by a factor in
        [1 - strength, 1 + strength] and hue by at most `hue` of a turn.
    blur_sigma: largest deviation of the blur, as a fraction of the shorter side.
    noise_sigma: largest deviation of the added Gaussian noise, in units of the [0, 1] range.
    cutout: probability of erasing one rectangle that covers up to `cutout_area` of the image, with
        the image's mean colour. The label stays: the network has to fill the gap from context.
    """

    jitter: float = 0.8
    strength: float = 0.5
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.5
    blur_sigma: float = 0.012
    noise: float = 0.5
    noise_sigma: float = 0.08
    cutout: float = 0.0
    cutout_area: float = 0.2


@dataclass(frozen=True)
class CutMixConfig:
    """Boxes that CutMix pastes; the values of UniMatch (Yang et al. 2023, arXiv 2208.09910).

    probability: of a box in an image at all.
    area: smallest and largest share of the image. ratio: smallest and largest height / width.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)


def generator_for(key: Key) -> torch.Generator:
    """A CPU generator seeded by the hash of `key` = (seed, epoch, index, view name)."""
    seed, epoch, index, view = key
    text = f"{int(seed)}/{int(epoch)}/{int(index)}/{view}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def weak(
    image: Tensor, mask: Tensor | None = None, *, key: Key, config: WeakConfig | None = None
) -> tuple[Tensor, Tensor | None]:
    """Flip, rotate, zoom and shift image and mask by the same random affine map.

    image: 3xHxW float in [0, 1]; sampled bilinearly. mask: HxW integers or None; nearest pixel,
    so that its values, an ignore value included, are carried over and never mixed. Beyond its
    border the image and its mask continue as their mirror images.
    Returns image (3xHxW float in [0, 1]) and mask (HxW int64, or None).
    """
    _check(image)
    height, width = image.shape[-2:]
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"mask is {tuple(mask.shape)} but the image is {height} x {width}")
    theta = _affine(generator_for(key), config or WeakConfig(), height, width).to(image)
    grid = functional.affine_grid(theta[None], (1, 1, height, width), align_corners=False)

    # One resampling for the whole map. torchvision's `affine` cannot mirror at the border, and
    # black corners would tell the network where the augmentation has been.
    def sample(values: Tensor, mode: str) -> Tensor:
        return functional.grid_sample(
            values[None], grid, mode=mode, padding_mode="reflection", align_corners=False
        )[0]

    moved = sample(image, "bilinear").clamp(0, 1)
    if mask is None:
        return moved, None
    return moved, sample(mask[None].to(image.dtype), "nearest")[0].long()


def strong(image: Tensor, *, key: Key, config: StrongConfig | None = None) -> Tensor:
    """Change colours, greyness, sharpness and noise; no pixel moves.

    image: 3xHxW float in [0, 1]. Returns a new tensor of the same shape and range.
    """
    _check(image)
    config = config or StrongConfig()
    generator = generator_for(key)

    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    if draw(0, 1) < config.jitter:
        weakest, strongest = max(0.0, 1 - config.strength), 1 + config.strength
        image = transforms.adjust_brightness(image, draw(weakest, strongest))
        image = transforms.adjust_contrast(image, draw(weakest, strongest))
        image = transforms.adjust_saturation(image, draw(weakest, strongest))
        image = transforms.adjust_hue(image, draw(-config.hue, config.hue))
    if draw(0, 1) < config.grey:
        image = transforms.rgb_to_grayscale(image, num_output_channels=3)
    if draw(0, 1) < config.blur:
        sigma = draw(0.1, 1.0) * config.blur_sigma * min(image.shape[-2:])
        image = transforms.gaussian_blur(image, 2 * math.ceil(2.5 * sigma) + 1, sigma)
    if draw(0, 1) < config.noise:
        noise = torch.randn(image.shape, generator=generator).to(image)
        image = image + draw(0, config.noise_sigma) * noise
    if draw(0, 1) < config.cutout:
        image = _cut_out(image, config.cutout_area, draw)
    return image.clamp(0, 1)


def weak_batch(
    images: Tensor,
    masks: Tensor | None = None,
    *,
    seed: int,
    epoch: int | Sequence[int] | Tensor,
    indices: Sequence[int] | Tensor,
    view: str = "weak",
    config: WeakConfig | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`weak` for each sample of a batch: images Bx3xHxW, masks BxHxW or None.

    indices: B data set indices. epoch: one number, or one a sample (`batch.labelled.epoch`). Two
    different views of the same samples need two names in `view`.
    """
    keys = _keys(seed, epoch, indices, view, len(images))
    targets = [None] * len(images) if masks is None else masks
    with _full_precision(images):
        pairs = [
            weak(image, mask, key=key, config=config)
            for image, mask, key in zip(images, targets, keys, strict=True)
        ]
    moved = torch.stack([image for image, _ in pairs])
    return moved, None if masks is None else torch.stack([mask for _, mask in pairs])


def strong_batch(
    images: Tensor,
    *,
    seed: int,
    epoch: int | Sequence[int] | Tensor,
    indices: Sequence[int] | Tensor,
    view: str = "strong",
    config: StrongConfig | None = None,
) -> Tensor:
    """`strong` for each sample of a batch: images Bx3xHxW; arguments as in `weak_batch`."""
    keys = _keys(seed, epoch, indices, view, len(images))
    with _full_precision(images):
        pairs = zip(images, keys, strict=True)
        return torch.stack([strong(image, key=key, config=config) for image, key in pairs])


def _full_precision(images: Tensor) -> torch.autocast:
    """A step may run in 16 bits, where places would be rounded, by up to a pixel of a large image.

    A view depends on sample and key alone, not on the precision of whoever asks for it.
    """
    return torch.autocast(images.device.type, enabled=False)


def cutmix_box(size: tuple[int, int], *, key: Key, config: CutMixConfig | None = None) -> Tensor:
    """HxW bool, True in one random box that lies inside the image, or nowhere.

    size: (H, W) in pixels. Area and ratio are drawn evenly; a side longer than the image is cut.
    """
    config, generator = config or CutMixConfig(), generator_for(key)
    chance, area, ratio, top, left = torch.rand(5, generator=generator).tolist()
    if chance >= config.probability:
        return torch.zeros(size, dtype=torch.bool)
    pixels = size[0] * size[1] * (config.area[0] + (config.area[1] - config.area[0]) * area)
    ratio = config.ratio[0] + (config.ratio[1] - config.ratio[0]) * ratio
    sides = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
    return _box(size, sides, (top, left))


def cutmix_boxes(
    size: tuple[int, int],
    *,
    seed: int,
    epoch: int | Sequence[int] | Tensor,
    indices: Sequence[int] | Tensor,
    view: str = "cutmix",
    config: CutMixConfig | None = None,
) -> Tensor:
    """`cutmix_box` for each sample of a batch: BxHxW bool; arguments as in `weak_batch`."""
    keys = _keys(seed, epoch, indices, view, len(indices))
    return torch.stack([cutmix_box(size, key=key, config=config) for key in keys])


def copy_paste_box(size: tuple[int, int], *, key: Key, share: float = 2 / 3) -> Tensor:
    """HxW bool, True in a box of `share` of each side at a random place inside the image.

    The region that bidirectional copy-paste exchanges (Bai et al. 2023, arXiv 2305.00673).
    """
    sides = round(share * size[0]), round(share * size[1])
    return _box(size, sides, torch.rand(2, generator=generator_for(key)).tolist())


def cutmix(boxes: Tensor, values: Tensor) -> Tensor:
    """Inside its box each sample takes the values of the one before it, the first of the last.

    boxes: BxHxW bool. values: images, logits or masks, Bx...xHxW; pasted alike, they still belong
    together. Returns a new tensor; a batch of one stays as it is.
    """
    if values.ndim == 4:
        boxes = boxes.unsqueeze(1)
    return torch.where(boxes, values.roll(1, dims=0), values)


def _box(size: tuple[int, int], sides: tuple[int, int], place) -> Tensor:
    """HxW bool, True in a box of `sides`; `place` in [0, 1) is where between both ends it lies."""
    box = torch.zeros(size, dtype=torch.bool)
    rows, columns = (
        _interval(length, side, at) for length, side, at in zip(size, sides, place, strict=True)
    )
    box[rows, columns] = True
    return box


def _interval(length: int, side: int, at: float) -> slice:
    side = min(side, length)
    start = int(at * (length - side + 1))
    return slice(start, start + side)


def _affine(generator: torch.Generator, config: WeakConfig, height: int, width: int) -> Tensor:
    """The 2x3 map from output to input positions, in grid_sample's units (-1 to 1 a side)."""
    flips, angle, scale, shift = torch.rand(6, generator=generator).split([2, 1, 1, 2])
    signs = torch.where(flips < config.flip, -1.0, 1.0)
    turn = math.radians(config.degrees) * (2 * angle - 1)
    zoom = config.scale[0] + (config.scale[1] - config.scale[0]) * scale
    cos, sin = (torch.cos(turn) / zoom).item(), (torch.sin(turn) / zoom).item()
    # A rotation keeps lengths in pixels, so sides of different length need their ratio.
    ratio = height / width
    linear = torch.tensor([[cos, -sin * ratio], [sin / ratio, cos]]) * signs
    offset = 2 * config.translate * (2 * shift - 1)
    return torch.cat([linear, offset[:, None]], dim=1)


def _cut_out(image: Tensor, largest_area: float, draw) -> Tensor:
    """Erase one rectangle of at most `largest_area` of the image and of ratio 1:2 to 2:1."""
    height, width = image.shape[-2:]
    area, stretch = draw(0.02, largest_area), math.exp(draw(-math.log(2), math.log(2)) / 2)
    rows = min(height, round(height * math.sqrt(area) * stretch))
    columns = min(width, round(width * math.sqrt(area) / stretch))
    top, left = round(draw(0, height - rows)), round(draw(0, width - columns))
    colour = image.mean(dim=(1, 2), keepdim=True)
    return transforms.erase(image, top, left, rows, columns, colour)


def _keys(seed: int, epoch, indices, view: str, count: int) -> list[Key]:
    """One key a sample from one epoch or several."""
    epochs = torch.as_tensor(epoch).expand(count).tolist()
    return [
        (seed, one, index, view)
        for one, index in zip(epochs, torch.as_tensor(indices).tolist(), strict=True)
    ]


def _check(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(
            "image must be 3xHxW float in [0, 1], "
            f"got {tuple(image.shape)} {image.dtype}; convert with image.float() / 255"
        )
