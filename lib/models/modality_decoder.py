"""Query-decoupled modality decoder: one learned mask query a modality, one channel each.

Xu et al. 2024 (ESP-MedSAM, arXiv 2407.14153), as released: the queries pass SAM's two-way
transformer together with the image, without IoU token or sparse prompts; a small network turns the
query of the image's modality into the weights of a last 1 x 1 convolution over the upscaled image.
The released decoder runs image by image and computes every channel; here the whole batch runs at
once, modalities mixed, only each image's own channel is computed, and attention does not project
the image's tokens (`lib.models.few_token_attention`).
"""

from itertools import accumulate

import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional

from lib.models.few_token_attention import FewTokenAttention


class ModalityDecoder(nn.Module):
    """Prompted embedding and modality to mask logits at a quarter of the image's size."""

    def __init__(
        self,
        *,
        modalities: int,
        width: int = 256,
        one_query: bool = False,
        own_hyper: bool = False,
        isolated: bool = False,
    ):
        """Random weights; the defaults are the released decoder.

        Args:
            modalities: K, at least 1: exactly as many queries are learned.
            width: channels of the embedding, a multiple of 16.
            one_query: True learns a single query for all modalities (the ablation).
            own_hyper: True gives each modality its own network from query to channel weights, as
                the paper's figure may be read; False shares one.
            isolated: True shows the transformer an image's own query alone. Otherwise the queries
                of all modalities attend to each other.

        Raises:
            ValueError: for no modality, or one_query together with own_hyper.
        """
        super().__init__()
        if modalities < 1:
            raise ValueError(f"modalities must be at least 1, got {modalities}")
        if one_query and own_hyper:
            raise ValueError("one_query=True leaves nothing to own: choose it or own_hyper=True")
        self.width, self.one_query = width, one_query
        self.own_hyper, self.isolated = own_hyper, isolated
        self.position = PositionEmbeddingRandom(width // 2)
        self.transformer = TwoWayTransformer(
            depth=2, embedding_dim=width, num_heads=8, mlp_dim=8 * width
        )
        for module in self.transformer.modules():
            if type(module) is Attention:
                module.__class__ = FewTokenAttention
        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        count = 1 if one_query else modalities
        # One entry for the modalities of the start and one for each that was added later.
        self.queries = nn.ParameterList([nn.Parameter(torch.randn(count, width))])
        self.hyper = nn.ModuleList(self._new_hyper() for _ in range(count if own_hyper else 1))

    def add_modality(self) -> None:
        """Append a query; masks of the modalities before stay what they were, bit for bit.

        In the transformer all queries change the image's tokens, so one more would change the
        masks of all modalities. Therefore images of a modality only meet the queries that were
        there when it came.

        Raises:
            ValueError: with one_query, where there is nothing to add.
        """
        if self.one_query:
            raise ValueError("one_query=True: every modality, a new one too, has the one query")
        reference = self.queries[0]
        query = torch.randn(1, self.width, device=reference.device, dtype=reference.dtype)
        self.queries.append(nn.Parameter(query))
        if self.own_hyper:
            self.hyper.append(self._new_hyper().to(reference))

    def forward(self, embedding: Tensor, modality: Tensor) -> Tensor:
        """Decode a batch at once.

        Args:
            embedding: B x width x h x w, the dense prompt added already.
            modality: B int64 in 0..K-1.

        Returns:
            B x 1 x 4h x 4w logits, > 0 on the target.
        """
        if self.one_query:
            modality = torch.zeros_like(modality)
        ends = list(accumulate(len(queries) for queries in self.queries))
        if self.isolated or len(ends) == 1:
            return self._decode(embedding, modality, ends[-1])
        met = torch.tensor(ends, device=modality.device)
        met = met[torch.bucketize(modality, met, right=True)]  # queries that each image meets
        groups = [(met == count).nonzero()[:, 0] for count in ends]
        parts = [
            self._decode(embedding[rows], modality[rows], count)
            for rows, count in zip(groups, ends, strict=True)
            if len(rows)
        ]
        return torch.cat(parts)[torch.cat(groups).argsort()]

    def _decode(self, embedding: Tensor, modality: Tensor, count: int) -> Tensor:
        batch, _, height, columns = embedding.shape
        queries = torch.cat(list(self.queries))
        if self.isolated:
            queries, place = queries[modality][:, None], torch.zeros_like(modality)
        else:
            # Copied: on an expanded view PyTorch lets the product's order, and so its last bits,
            # hang on whether the weights are to be trained.
            queries, place = queries[:count].expand(batch, -1, -1).contiguous(), modality
        position = self.position((height, columns))[None]
        # The transformer takes maps and flattens them to tokens: a view, if channels lie last.
        maps = (m.contiguous(memory_format=torch.channels_last) for m in (embedding, position))
        tokens, image = self.transformer(*maps, queries)
        weights = self._weights(tokens[torch.arange(batch, device=place.device), place], modality)
        return (
            self._masks(image, weights)
            .view(batch, height, columns, 2, 2, 2, 2)
            .permute(0, 1, 3, 5, 2, 4, 6)
            .reshape(batch, 1, 4 * height, 4 * columns)
        )

    def _masks(self, image: Tensor, weights: Tensor) -> Tensor:
        """Upscale image tokens B x N x width by 4 and weigh their channels: B x 16 N logits.

        A transposed convolution whose kernel is its stride is a linear map of each token by
        itself. So the channels stay last, where LayerNorm and the weights want them, and only the
        one mask is put in order at the end, not 32 channels.
        """
        first, norm, activation, second, _ = self.upscale
        cells = _split(image, first)
        cells = functional.layer_norm(cells, norm.weight.shape, norm.weight, norm.bias, norm.eps)
        cells = activation(_split(activation(cells), second))
        return cells.flatten(1, -2) @ weights[:, :, None]

    def _weights(self, tokens: Tensor, modality: Tensor) -> Tensor:
        """Channel weights B x width/8 of each image's query B x width."""
        if not self.own_hyper:
            return self.hyper[0](tokens)
        return torch.cat(
            [self.hyper[m](token[None]) for m, token in zip(modality.tolist(), tokens, strict=True)]
        )

    def _new_hyper(self) -> MLP:
        return MLP(self.width, self.width, self.width // 8, 3)


def _split(cells: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """`layer` on cells ... x C: ... x 4 x C', the four cells that each is split into by rows."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # 2 x 2 cells of C' channels
    return functional.linear(cells, weight, layer.bias.repeat(4)).unflatten(-1, (4, -1))
