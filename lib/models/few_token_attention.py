"""SAM's attention between few tokens and many: the many are never projected.

The mask decoder of Kirillov et al. 2023 (arXiv 2304.02643) lets n prompt tokens and N image tokens
attend to each other, n = 6 beside N = 1024 at 512 px. With the projections W of a head,

    (W_q x) . (W_k y + b_k) = (W_k^T W_q x) . y + constant of x,      softmax ignores the constant,
    sum_j a_j (W_v y_j + b_v) = W_v (sum_j a_j y_j) + b_v,            since sum_j a_j = 1,

so the few tokens, projected once more, can stand for the projections of all of the many. Per image
token and attention that takes 2 n heads C multiply-adds in place of 2 C C_inner, in SAM's decoder
96 C in place of 256 C. Output and gradients are the same to rounding; the bias of the keys, whose
gradient is 0, gets none where it is not used.
"""

import torch
from segment_anything.modeling.transformer import Attention
from torch import Tensor
from torch.nn import functional


class FewTokenAttention(Attention):
    """`segment_anything`'s attention with the same weights, in the order that costs least."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from B x N x C queries to B x M x C keys and values; B x N x C."""
        inner, fewer = self.internal_dim, self.num_heads * min(q.shape[1], k.shape[1])
        if fewer >= inner:
            return self._plainly(q, k, v)
        return self._from_few(q, k, v) if q.shape[1] < k.shape[1] else self._to_few(q, k, v)

    def _plainly(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        projected = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        attended = functional.scaled_dot_product_attention(*map(self._heads, projected))
        return self.out_proj(self._recombine_heads(attended))

    def _from_few(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Few queries: they are taken to the keys' channels, and only the mean value projected."""
        queries = self._heads(self.q_proj(q) * self._scale) @ self._by_head(self.k_proj.weight)
        weights = (queries.flatten(1, 2) @ k.transpose(1, 2)).softmax(dim=-1)  # B x heads n x M
        batch, count, _ = q.shape  # not unflatten: a traced export would fix the batch's length
        mean = (weights @ v).reshape(batch, self.num_heads, count, -1)
        values = mean @ self._by_head(self.v_proj.weight).transpose(1, 2)
        return self.out_proj(self._recombine_heads(values) + self.v_proj.bias)

    def _to_few(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Few keys: they are taken to the queries' channels, and their values to the output's."""
        keys, values = self._heads(self.k_proj(k) * self._scale), self._heads(self.v_proj(v))
        bias = keys @ self._by_head(self.q_proj.bias)[..., None]  # B x heads x m x 1
        keys = keys @ self._by_head(self.q_proj.weight)  # B x heads x m x C
        scores = torch.baddbmm(bias.flatten(1, 2), keys.flatten(1, 2), q.transpose(1, 2))
        weights = scores.unflatten(1, (self.num_heads, -1)).softmax(dim=2).flatten(1, 2)
        values = values @ self._by_head(self.out_proj.weight.T)  # B x heads x m x C
        return torch.baddbmm(self.out_proj.bias, weights.transpose(1, 2), values.flatten(1, 2))

    @property
    def _scale(self) -> float:
        return (self.internal_dim // self.num_heads) ** -0.5

    def _heads(self, x: Tensor) -> Tensor:
        return self._separate_heads(x, self.num_heads)

    def _by_head(self, weight: Tensor) -> Tensor:
        """C_inner x ... as heads x C_inner / heads x ..."""
        return weight.unflatten(0, (self.num_heads, -1))
