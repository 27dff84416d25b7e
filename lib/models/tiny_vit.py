"""The light image encoder of ESP-MedSAM: timm's TinyViT, SAM's neck, a controller a modality.

TinyViT-5M (Wu et al. 2022, arXiv 2207.10666) at stride 16, as in MobileSAM (Zhang et al. 2023,
arXiv 2306.14289), so that its embedding has the shape of SAM's and can take its place. What a
modality adds is in `lib.models.modality_controller`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import timm
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from lib.models.build import IMAGENET_MEAN, IMAGENET_STD, Standardise
from lib.models.modality_controller import ModalityController, parts_of, run_block

STRIDE = 16
MULTIPLE = 32  # the patch grid of the self-prompting is half as fine as the embedding


@dataclass(frozen=True, kw_only=True)
class TinyVitShape:
    """Sizes of the four stages; defaults are TinyViT-5M's. The first stage has no attention.

    dims: channels. depths: blocks. heads: attention heads. windows: sides of the attention windows
    in tokens, which are 4, 8, 16 and 16 pixels wide.
    """

    dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)

    @classmethod
    def quick(cls) -> "TinyVitShape":
        """0.3 instead of 5.1 million parameters, for the CPU; no pretrained weights fit."""
        return cls(dims=(24, 48, 64, 96), depths=(1, 1, 3, 1), heads=(1, 2, 2, 3))


class TinyVitEncoder(nn.Module):
    """Images to SAM-shaped embeddings; `modalities` names the controllers, in order of index."""

    def __init__(
        self,
        *,
        modalities: Sequence[str] = (),
        width: int = 256,
        separate_tokens: bool = False,
        shape: TinyVitShape | None = None,
    ):
        """Random weights; see `lib.models.mobile_sam_weights` for pretrained ones.

        Args:
            modalities: names, all different; the index of a modality is its place here.
            width: channels of the embedding, those of the SAM that teaches (256 in SAM).
            separate_tokens: own tokens for keys and values, see `BlockController`.
            shape: sizes of the stages, TinyViT-5M by default.
        """
        super().__init__()
        shape = shape or TinyVitShape()
        self.width, self.separate_tokens = width, separate_tokens
        self.standardise = Standardise(IMAGENET_MEAN, IMAGENET_STD)
        self.backbone = _backbone(shape)
        self.neck = nn.Sequential(
            nn.Conv2d(shape.dims[-1], width, 1, bias=False),
            LayerNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            LayerNorm2d(width),
        )
        self._blocks = [
            (dim, heads)
            for dim, heads, depth in list(zip(shape.dims, shape.heads, shape.depths, strict=True))[
                1:
            ]
            for _ in range(depth)
        ]
        self.modalities: tuple[str, ...] = ()
        self.controllers = nn.ModuleList()
        for name in modalities:
            self.add_modality(name)

    def add_modality(self, name: str) -> int:
        """Append a new controller for `name`; the others are not touched. Returns its index.

        Raises:
            ValueError: if there is a modality of that name.
        """
        if name in self.modalities:
            raise ValueError(f"there is a modality {name!r} already: {', '.join(self.modalities)}")
        controller = ModalityController(self._blocks, separate_tokens=self.separate_tokens)
        self.controllers.append(controller.to(next(self.neck.parameters())))
        self.modalities = (*self.modalities, name)
        return len(self.modalities) - 1

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters of all but the controllers."""
        return [*self.backbone.parameters(), *self.neck.parameters()]

    def forward(self, image: Tensor, modality: Tensor | None = None) -> Tensor:
        """Embed images, each under the controller of its modality.

        Args:
            image: B x 3 x H x W in [0, 1]; H and W are multiples of 32 (256, 512, 1024).
            modality: B int64, one index an image, in any mixture. None leaves every controller
                out: the encoder of common knowledge.

        Returns:
            B x width x H/16 x W/16.

        Raises:
            ValueError: a wrong size, or an index that has no controller.
        """
        if image.shape[-2] % MULTIPLE or image.shape[-1] % MULTIPLE:
            raise ValueError(
                f"image is {image.shape[-2]} x {image.shape[-1]} px: both sides must be multiples "
                f"of {MULTIPLE}, such as 256, 512 or 1024; open the data with such a size"
            )
        if modality is None:
            parts = [[(slice(0, len(image)), None)]] * len(self._blocks)
            return self._after_stem(self.run_stem(image), parts)
        check_modality(modality, self.modalities, len(image))
        # Samples of one modality side by side: its controller works on a slice, without copies.
        ranked, order = modality.cpu().sort(stable=True)
        order = order.to(image.device)
        stem = self.run_stem(image[order])
        embedding = self._after_stem(stem, parts_of(ranked, self.controllers))
        return embedding[order.argsort()]

    def embed_one(self, image: Tensor, modality: int) -> Tensor:
        """As `forward` for images of one and the same modality, given by its index.

        Nothing here depends on the values of a tensor, so that an exporter can follow it.
        """
        return self.embed_one_from_stem(self.run_stem(image), modality)

    def embed_one_from_stem(self, x: Tensor, modality: int) -> Tensor:
        """The rest of `embed_one`; `x` is what `run_stem` made of the images."""
        every = slice(0, x.shape[0])
        return self._after_stem(x, [[(every, c)] for c in self.controllers[modality].blocks])

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        """The layers before the first attention block, in their order: no controller among them."""
        network = self.backbone
        return network.patch_embed, network.stages_0, network.stages_1.downsample

    def run_stem(self, image: Tensor) -> Tensor:
        """Images B x 3 x H x W in [0, 1] through `stem`; B x (stage 1's channels) x H/8 x W/8."""
        # Blocks want the channels last; so they lie from the start, and nothing is reordered.
        x = self.standardise(image).contiguous(memory_format=torch.channels_last)
        for layer in self.stem:
            x = layer(x)
        return x

    def _after_stem(self, x: Tensor, parts: list) -> Tensor:
        network, parts = self.backbone, iter(parts)
        for stage in (network.stages_1, network.stages_2, network.stages_3):
            if stage is not network.stages_1:  # the stem ends with its downsampling
                x = stage.downsample(x)
            x = x.permute(0, 2, 3, 1)
            for block in stage.blocks:
                x = run_block(block, x, next(parts))
            x = x.permute(0, 3, 1, 2)
        return self.neck(x)


def check_modality(modality: Tensor, modalities: Sequence[str], batch: int) -> None:
    """Refuse anything but one index a sample that names one of `modalities`.

    Raises:
        ValueError: another shape or type, or an index outside 0..K-1.
    """
    if modality.shape != (batch,) or modality.dtype != torch.int64:
        raise ValueError(
            f"modality must be one int64 index an image, ({batch},), got {modality.dtype} "
            f"{tuple(modality.shape)}"
        )
    unknown = sorted({m for m in modality.tolist() if not 0 <= m < len(modalities)})
    if unknown:
        known = ", ".join(f"{i} {name}" for i, name in enumerate(modalities)) or "none"
        raise ValueError(
            f"unknown modality {unknown}; known: {known}. Name it, let the classifier find it "
            "(EspMedSam.resolve), or give it a controller of its own with add_modality"
        )


def _backbone(shape: TinyVitShape) -> nn.Module:
    """timm's TinyViT without its head, its last merging at stride 1."""
    sizes = asdict(shape)
    network = timm.create_model(
        "tiny_vit_5m_224",
        pretrained=False,
        features_only=True,
        embed_dims=sizes["dims"],
        depths=sizes["depths"],
        num_heads=sizes["heads"],
        window_sizes=sizes["windows"],
    )
    network.stages_3.downsample.conv2.conv.stride = (1, 1)
    return network
