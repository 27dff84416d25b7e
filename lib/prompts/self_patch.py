"""Self-patch prompts: the model prompts itself with a coarse map of where the target lies.

Xu et al. 2024 (ESP-MedSAM, arXiv 2407.14153), the self-patch prompt generator, as released: a
small head says of each 32 x 32 px patch whether it holds any of the target; the map, thresholded
and without gradient, becomes a dense prompt that is added to the image embedding. No click, no box.
"""

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

PATCH = 32  # pixels; two tokens of 16
THRESHOLD = 0.5


class SelfPatchPrompts(nn.Module):
    """Embedding to patch logits, and those (or the true patches) to a dense prompt."""

    def __init__(self, *, width: int = 256, oracle: bool = False):
        """Random weights.

        Args:
            width: channels of the embedding; the patch head works on a quarter of them.
            oracle: True takes the true patches as the prompt instead of the predicted ones. An
                upper bound for the patch head, for ablation only: it reads the masks.
        """
        super().__init__()
        self.oracle = oracle
        self.patch_head = nn.Sequential(
            nn.Conv2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.Conv2d(width // 4, 1, 1),
        )
        self.dense = nn.Sequential(nn.Conv2d(1, width, 1), LayerNorm2d(width), nn.GELU())

    def forward(self, embedding: Tensor, patches: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prompt an image by its own patch map.

        Args:
            embedding: B x width x h x w, h and w even.
            patches: B x 1 x h/2 x w/2 true patches, see `patch_targets`; only with `oracle`.

        Returns:
            Dense prompt B x width x h x w, and patch logits B x 1 x h/2 x w/2. The prompt carries
            no gradient to the patch head, which therefore learns from its own loss alone.

        Raises:
            ValueError: true patches without `oracle`, or `oracle` without them.
        """
        if self.oracle != (patches is not None):
            raise ValueError(
                "true patches go with oracle=True and with nothing else: they are read from the "
                f"masks (oracle={self.oracle}, patches {'given' if not self.oracle else 'missing'})"
            )
        logits = self.patch_head(embedding)
        chosen = patches > 0 if self.oracle else self.threshold(logits)
        chosen = chosen.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        # The map has two values, so the dense prompt has two vectors: computed once, then placed.
        off, on = self.dense(torch.tensor([[[[0.0]]], [[[1.0]]]]).to(embedding)).split(1)
        return torch.where(chosen, on, off), logits

    @staticmethod
    def threshold(logits: Tensor) -> Tensor:
        """True where the probability reaches 0.5; without gradient."""
        return logits.detach().sigmoid() >= THRESHOLD


def patch_targets(mask: Tensor) -> Tensor:
    """Which patches hold any foreground: B x H x W int64 to B x 1 x H/32 x W/32 of 0 and 1.

    Raises:
        ValueError: if H or W is no multiple of 32.
    """
    if mask.shape[-2] % PATCH or mask.shape[-1] % PATCH:
        raise ValueError(
            f"mask is {mask.shape[-2]} x {mask.shape[-1]} px: both sides must be multiples of "
            f"{PATCH}; open the data with a size such as 256, 512 or 1024"
        )
    return functional.max_pool2d((mask > 0).to(torch.float32)[:, None], PATCH)
