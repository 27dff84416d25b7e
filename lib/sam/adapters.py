"""Adapters: a few trainable layers inside a frozen SAM.

Houlsby et al. 2019 (arXiv 1902.00751) for the idea; their places in SAM are those of the Medical
SAM Adapter (Wu et al. 2023, arXiv 2304.12620) and of KnowSAM (Huang et al. 2025, arXiv 2412.13742).

An adapter is hung on a module of segment-anything by a forward hook, so nothing of it is copied
and its weights keep their names:

* after attention, with a skip connection:  y = attention(x); y + adapter(y)
* beside an MLP, at half strength:          mlp(x) + adapter(x) / 2
"""

from segment_anything.modeling import Sam, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn

BESIDE = 0.5  # strength of the adapter beside an MLP


class Adapter(nn.Module):
    """Linear d -> d/4, GELU, linear d/4 -> d: 295,872 parameters at d = 768 (ViT-B)."""

    def __init__(self, width: int, *, zero_output: bool = True):
        """Build it for features of `width` channels.

        Args:
            width: d.
            zero_output: start the second layer at zero, so that the adapter says 0 and the
                pretrained function is kept until training moves it; False draws it at random.
        """
        super().__init__()
        self.down = nn.Linear(width, width // 4)
        self.up = nn.Linear(width // 4, width)
        if zero_output:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, features: Tensor) -> Tensor:
        """What to add to features `... x width`."""
        return self.up(nn.functional.gelu(self.down(features)))


def add_adapters(
    sam: Sam, *, encoder: bool = True, decoder: bool = True, zero_output: bool = True
) -> Sam:
    """Freeze `sam` and give it adapters, the only parts that train; changes and returns it.

    Args:
        sam: any `segment_anything` model; its attention may be fused (`lib.sam.attention`).
        encoder: one adapter after the attention and one beside the MLP of every encoder block.
        decoder: in each layer of the mask decoder's transformer one adapter that its three
            attentions share and one beside the MLP; one more after the last attention and, the
            same one, after the last norm. The sharing is the released code's.
        zero_output: see `Adapter`; False is the released code's initialisation.

    Raises:
        ValueError: `sam` has adapters already, or a decoder whose attention was replaced.
    """
    if adapters(sam):
        raise ValueError("this SAM has adapters already: load a fresh one with load_sam")
    sam.requires_grad_(False)
    device = sam.pixel_mean.device

    def adapter(width: int) -> Adapter:
        return Adapter(width, zero_output=zero_output).to(device)

    if encoder:
        for block in sam.image_encoder.blocks:
            width = block.norm1.normalized_shape[0]
            _hang(adapter(width), block.attn, _after)
            _hang(adapter(width), block.mlp, _beside)
    if decoder:
        _adapt_transformer(sam.mask_decoder.transformer, adapter)
    return sam


def adapters(sam: Sam) -> list[Adapter]:
    """Every adapter of `sam` once, in the order of its modules."""
    return [module for module in sam.modules() if isinstance(module, Adapter)]


def _adapt_transformer(transformer: TwoWayTransformer, adapter) -> None:
    width = transformer.embedding_dim
    for layer in transformer.layers:
        shared = adapter(width)
        for attention in _attentions(layer):
            _hang(shared, attention, _after)
        _hang(adapter(width), layer.mlp, _beside)
    last = adapter(width)
    _hang(last, transformer.final_attn_token_to_image, _after)
    _hang(last, transformer.norm_final_attn, _after)


def _attentions(layer: TwoWayAttentionBlock) -> tuple[nn.Module, ...]:
    parts = (layer.self_attn, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token)
    for part in parts:
        if not isinstance(part, Attention):
            raise ValueError(
                f"the mask decoder has {type(part).__name__} where segment-anything has "
                "Attention: add the adapters before anything else is changed"
            )
    return parts


def _hang(adapter: Adapter, module: nn.Module, hook) -> None:
    # The hook finds the adapter through its module, so a deep copy has adapters of its own.
    module.adapter = adapter
    module.register_forward_hook(hook)


def _after(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output + module.adapter(output)


def _beside(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + BESIDE * module.adapter(inputs[0])
