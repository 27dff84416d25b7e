"""Stage A with a second term: what SAM's own decoder makes of the two embeddings. Our addition.

The squared error treats all directions of the embedding alike; the decoder does not. EdgeSAM (Zhou
et al. 2023, arXiv 2312.06660) therefore lets prompts and the decoder take part in the distillation
of a light encoder. This is the simplest form of that idea, not EdgeSAM itself: one random click an
image, and the frozen decoder shall say of the student's embedding what it says of the teacher's.
EdgeSAM prompts with boxes and points of labelled objects, adds clicks where student and teacher
disagree, and trains the decoder too.
"""

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from lib.data.batches import Batch
from lib.losses.distillation import distillation_loss
from lib.sam.decode import decode_batch
from lib.training.esp_medsam.common import CommonConfig, CommonDistillation, embedding_error
from lib.training.esp_medsam.parts import flipped_views
from lib.training.method import Losses, Progress


@dataclass(frozen=True, kw_only=True)
class PromptedConfig(CommonConfig):
    """As `CommonConfig`, and one more number, our choice.

    masks: weight of the second term, at least 0; 0 is stage A itself.
    """

    masks: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that would drive the masks apart."""
        if self.masks < 0:
            raise ValueError(f"masks={self.masks} must be at least 0")


class PromptedDistillation(CommonDistillation):
    """Squared error of the embeddings plus `masks` times the divergence of the masks."""

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Both terms over all images of the batch; masks of the data are not looked at."""
        images, _ = flipped_views(batch, self.config.flip)
        # Full precision whatever the loop's: a kept embedding must not depend on it.
        with torch.autocast(images.device.type, enabled=False):
            target = self._sam.encode(images).to(images.device)
        student = self.encoder(images)
        error = embedding_error(student, target)
        if not self.config.masks:
            return Losses(total=error, embedding=error)
        sam, device = self._sam.sam, self._sam.device
        clicks = torch.rand(len(images), 2, device=device) * sam.image_encoder.img_size
        with torch.autocast(device.type, enabled=False):
            masks = mask_divergence(sam, student.float().to(device), target.to(device), clicks)
        masks = masks.to(error.device)
        return Losses(total=error + self.config.masks * masks, embedding=error, masks=masks)


def mask_divergence(sam: Sam, student: Tensor, teacher: Tensor, clicks: Tensor) -> Tensor:
    """KL(teacher || student) of SAM's mask probabilities, mean over its four masks and all pixels.

    Args:
        sam: with frozen weights; its decoder reads both embeddings.
        student, teacher: B x C x h x w; only the student's gets a gradient.
        clicks: B x 2, (x, y) in pixels of SAM's input: one positive click an image.

    Returns:
        A scalar >= 0; 0 where the decoder says the same of both.
    """
    label = torch.ones(len(clicks), 1, device=clicks.device)
    sparse, dense = sam.prompt_encoder((clicks[:, None], label), None, None)
    answers = [decode_batch(sam, e, sparse, dense)[0].flatten(0, 1) for e in (student, teacher)]
    # A sigmoid is a softmax over two classes, of which the background's logit is 0.
    pairs = [torch.stack([torch.zeros_like(logits), logits], dim=1) for logits in answers]
    return distillation_loss(*pairs, temperature=1.0)
