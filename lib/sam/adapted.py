"""SAM as a trainable teacher: adapters inside, prompts from elsewhere, all classes in one call.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), equation 7: Y_s = F_s(P_b, Y_f).
"""

import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lib.sam.adapters import adapters
from lib.sam.decode import decode_batch
from lib.sam.preprocess import input_size, preprocess


class AdaptedSam(nn.Module):
    """SAM segments an image into classes, each prompted by tokens or a box and by a mask.

    Its parameters are those of the adapters and of `prompts`. SAM's frozen rest is no submodule:
    it is neither saved with a method nor counted among its parameters, but it moves with it.
    """

    def __init__(self, sam: Sam, *, prompts: nn.Module | None = None, normalise: bool = True):
        """Join SAM and the network that prompts it.

        Args:
            sam: with adapters from `lib.sam.adapters.add_adapters`, or frozen without any.
            prompts: image embedding `B x L x h x w` to tokens `B x C x N x L`, such as
                `lib.prompts.learnable.LearnablePrompts`; None where prompts are boxes or masks.
            normalise: apply SAM's mean and deviation; False hands over values in [0, 1], as the
                released code does.
        """
        super().__init__()
        self._frozen = (sam,)  # in a tuple, or it would become a submodule
        self.adapters = nn.ModuleList(adapters(sam))
        self.prompts = prompts
        self.normalise = normalise

    @property
    def sam(self) -> Sam:
        """SAM with its adapters."""
        return self._frozen[0]

    def _apply(self, fn, recurse=True):
        # `to(device)` and its relatives pass here: the frozen part has to come along.
        self.sam._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(
        self,
        image: Tensor,
        mask_logits: Tensor,
        boxes: Tensor | None = None,
        *,
        learnt_from: int | None = None,
    ) -> Tensor:
        """Logits `B x C x H x W`, by the decoder's single mask of each class.

        Args:
            image: `B x 3 x H x W` in [0, 1], resized to SAM's size.
            mask_logits: `B x C x H x W`, the mask prompt of each class; detached here.
            boxes: `B x C x 4` (x0, y0, x1, y1) in pixels of the image; the sparse prompt where
                there is no `prompts` network.
            learnt_from: number of leading images whose logits reach a loss; None for all. The
                decoder looks at each image alone, so it keeps no gradient for the others. Encoder
                and prompts keep it where BatchNorm in the prompts lets images feel each other.

        Raises:
            ValueError: boxes beside a `prompts` network, or mask prompts of another batch or size.
        """
        if boxes is not None and self.prompts is not None:
            raise ValueError("boxes and a prompts network exclude each other: build it with None")
        if len(mask_logits) != len(image) or mask_logits.shape[2:] != image.shape[2:]:
            raise ValueError(
                f"mask_logits {tuple(mask_logits.shape)} must have the batch and the size of the "
                f"image {tuple(image.shape)}"
            )
        count = len(image) if learnt_from is None else learnt_from
        first, others = slice(count), slice(count, None)
        if count < len(image) and not any(isinstance(m, _BatchNorm) for m in self.modules()):
            logits = self(*_rows(first, image, mask_logits, boxes))
            with torch.no_grad():
                unheard = self(*_rows(others, image, mask_logits, boxes))
            return torch.cat([logits, unheard])
        embedding = self.sam.image_encoder(self._input(image))
        tokens = None if self.prompts is None else self.prompts(embedding)
        parts = (embedding, mask_logits, tokens, boxes)
        logits = self._decode(*_rows(first, *parts))
        if count == len(image):
            return logits
        with torch.no_grad():
            unheard = self._decode(*_rows(others, *parts))
        return torch.cat([logits, unheard])

    def _decode(
        self, embedding: Tensor, mask_logits: Tensor, tokens: Tensor | None, boxes: Tensor | None
    ) -> Tensor:
        size, classes = tuple(mask_logits.shape[2:]), mask_logits.shape[1]
        sparse, dense = self.sam.prompt_encoder(
            points=None,
            boxes=None if boxes is None else self._to_input_frame(boxes, size),
            masks=self._mask_prompt(mask_logits, size),
        )
        if tokens is not None:
            sparse = tokens.flatten(0, 1)
        # Every class is a prompt of its own on the same embedding: B x C prompts in one call.
        embeddings = embedding.repeat_interleave(classes, dim=0)
        low_res, _ = decode_batch(self.sam, embeddings, sparse, dense)
        masks = self.sam.postprocess_masks(low_res[:, :1], input_size(self.sam, size), size)
        return masks.unflatten(0, (-1, classes)).squeeze(2)

    def _input(self, image: Tensor) -> Tensor:
        if self.normalise:
            return preprocess(self.sam, image)
        height, width = input_size(self.sam, tuple(image.shape[-2:]))
        if (height, width) != image.shape[-2:]:
            image = functional.interpolate(image, (height, width), mode="bilinear", antialias=True)
        side = self.sam.image_encoder.img_size
        return functional.pad(image, (0, side - width, 0, side - height))

    def _to_input_frame(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        to_input = ResizeLongestSide(self.sam.image_encoder.img_size)
        return to_input.apply_boxes_torch(boxes.flatten(0, 1), size)

    def _mask_prompt(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Every class's logits at the decoder's mask-input size, (B x C) x 1 x h x w."""
        side = self.sam.prompt_encoder.mask_input_size
        scale = side[0] / self.sam.image_encoder.img_size
        height, width = (max(1, round(length * scale)) for length in input_size(self.sam, size))
        logits = logits.detach().float().flatten(0, 1).unsqueeze(1)
        inside = functional.interpolate(logits, (height, width), mode="bilinear")
        if (height, width) == side:
            return inside
        # Beside the image there is no object: the least logit of each map, and none above zero.
        frame = inside.amin(dim=(2, 3), keepdim=True).clamp(max=0).repeat(1, 1, *side)
        frame[..., :height, :width] = inside
        return frame


def _rows(chosen: slice, *parts: Tensor | None) -> list[Tensor | None]:
    return [None if part is None else part[chosen] for part in parts]
