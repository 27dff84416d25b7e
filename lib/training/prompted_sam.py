"""A frozen SAM that answers a network's prediction with logits of its own.

The network says where and what: each component of each class, where it is the likeliest, becomes a
prompt. SAM says where the border runs. True masks play no part.
"""

import torch
from torch import Tensor

from lib.prompts.from_masks import PromptConfig, against_others, prompts_from_probability
from lib.sam.frozen import FrozenSam

# Logit of a class that the network did not predict, so that SAM was not asked for it: about as
# sure as SAM is of the background around the objects that it was asked for.
ABSENT = -10.0


class PromptedSam:
    """SAM as a function of images and of class probabilities; a plain object without gradients."""

    def __init__(self, sam: FrozenSam, prompts: PromptConfig | None = None):
        """`prompts`: how a probability map becomes prompts; by default three points and a box."""
        self.sam = sam
        self.prompts = prompts or PromptConfig()

    @torch.no_grad()
    def logits(self, images: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """SAM's opinion of every class, by prompts from the network's.

        Args:
            images: `B x 3 x H x W` in [0, 1].
            probabilities: `B x C x H x W`, the network's; class 0 is the background.

        Returns:
            Logits `B x C x H x W` on the images' device. The background's is 0 and a class's is
            SAM's own mask logit (the largest over its components), so that for one class the
            softmax is SAM's probability. And `B` bool: False where nothing was predicted, so that
            SAM was not asked.
        """
        found, classes, owners = [], [], []
        for owner, maps in enumerate(probabilities.detach().float().cpu()):
            for label in range(1, len(maps)):
                for prompt in prompts_from_probability(against_others(maps, label), self.prompts):
                    found.append(prompt)
                    classes.append(label)
                    owners.append(owner)
        shape = probabilities.shape
        logits = torch.full(shape, -torch.inf, device=images.device)
        logits[:, 0] = 0.0
        asked = sorted(set(owners))
        if found:
            rows = [asked.index(owner) for owner in owners]
            # In float32 whatever the loop's precision: embeddings may come from a cache.
            with torch.autocast(self.sam.device.type, enabled=False):
                embeddings = self.sam.encode(images[asked].float())
                masks = self.sam.decode(embeddings, found, rows, tuple(shape[-2:])).logits[:, 0]
            for mask, owner, label in zip(masks.to(logits), owners, classes, strict=True):
                logits[owner, label] = torch.maximum(logits[owner, label], mask)
        answered = torch.zeros(shape[0], dtype=torch.bool, device=images.device)
        answered[asked] = True
        return logits.masked_fill(logits.isinf(), ABSENT), answered
