"""From an image in [0, 1] to SAM's input: longest side to SAM's size, normalise, pad.

The rules are those of `SamPredictor`, for float tensors and batches. `SamPredictor` resizes
8-bit pictures with PIL, which rounds to whole grey levels; here nothing is rounded, so a
resized picture differs by at most one grey level of 255, and one that has SAM's size already
does not differ.
"""

import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

# Part of the key of a cached embedding: change it when the code below changes its result.
PREPROCESSING = "longest side, bilinear with antialias, mean and std of SAM, zero pad right/bottom"


def input_size(sam: Sam, size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) that a picture of `size` (height, width) px has inside SAM's input."""
    return ResizeLongestSide.get_preprocess_shape(*size, sam.image_encoder.img_size)


def preprocess(sam: Sam, images: Tensor) -> Tensor:
    """Turn B x 3 x H x W images in [0, 1] into B x 3 x S x S input of SAM's image encoder.

    Raises:
        ValueError: wrong shape or type, or values outside [0, 1] (or not finite).
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            "images must be a float tensor B x 3 x H x W in [0, 1], not "
            f"{images.dtype} {tuple(images.shape)}"
        )
    low, high = images.aminmax() if images.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"images must lie in [0, 1], not [{float(low):g}, {float(high):g}]; divide 8-bit "
            "pictures by 255 and do not normalise them: SAM's own mean and std are applied here"
        )
    size = input_size(sam, tuple(images.shape[-2:]))
    if size != tuple(images.shape[-2:]):
        images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return sam.preprocess(255 * images)
