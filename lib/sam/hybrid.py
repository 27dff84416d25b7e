"""The small SAM with another image encoder: a hybrid of timm in the vision transformer's place.

MobileSAM (Zhang et al. 2023, arXiv 2306.14289) and EdgeSAM (Zhou et al. 2023, arXiv 2312.06660)
keep SAM's prompt encoder and mask decoder and put TinyViT and RepViT in front of them. KnowSAM's
adapters do not fit such an encoder: it has none of SAM's transformer blocks.
"""

import timm
from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from lib.sam.small import IMAGE_SIZE, PATCH, build_small_sam


class HybridEncoder(nn.Module):
    """`B x 3 x H x W` to `B x out_chans x H/16 x W/16`: a timm network up to stride 16, SAM's neck.

    It has no position tables, so that `lib.sam.resize.resize_positions` finds none to resize.
    """

    pos_embed = None
    blocks = ()

    def __init__(self, name: str, *, out_chans: int, img_size: int = IMAGE_SIZE):
        """Build it with random weights.

        Args:
            name: a model of timm that returns features at stride 16, such as "repvit_m0_9".
            out_chans: channels of the embedding. img_size: side in px that its SAM states.

        Raises:
            ValueError: if the model has no features at stride 16.
        """
        super().__init__()
        strides = timm.create_model(name, features_only=True).feature_info.reduction()
        if PATCH not in strides:
            raise ValueError(f"{name} has features at strides {strides}, none at {PATCH}")
        level = max(index for index, stride in enumerate(strides) if stride == PATCH)
        self.backbone = timm.create_model(name, features_only=True, out_indices=[level])
        channels = self.backbone.feature_info.channels()[0]
        self.neck = nn.Sequential(
            nn.Conv2d(channels, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )
        self.img_size = img_size

    def forward(self, image: Tensor) -> Tensor:
        """Embedding of images normalised as SAM's are."""
        return self.neck(self.backbone(image)[0])


def build_hybrid_sam(name: str, *, prompt_width: int = 128) -> Sam:
    """An untrained small SAM whose image encoder is timm's `name`; see `build_small_sam`."""
    sam = build_small_sam(prompt_width=prompt_width)
    sam.image_encoder = HybridEncoder(name, out_chans=prompt_width)
    return sam.eval()
