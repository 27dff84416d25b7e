"""Another image encoder in SAM's place: its distance from SAM's, and the masks SAM's decoder makes.

What `lib.training.prompt_trials` asks of a SAM is asked here of an embedding, whoever made it.
"""

from collections.abc import Callable, Mapping
from statistics import fmean

from torch import Tensor

from lib.sam.frozen import FrozenSam
from lib.training.esp_medsam.common import embedding_error
from lib.training.prompt_trials import box_prompts, mask_ious, simulated_clicks

Objects = tuple[Tensor, Tensor]  # of `lib.training.prompt_trials.largest_objects`


def masks_by_prompt(sam: FrozenSam, embedding: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Masks that SAM's decoder draws of an embedding for a tight box and for one click.

    Args:
        embedding: N x C x h x w. targets: N x H x W bool, from which box and click (into the
            middle of the object) are made.

    Returns:
        "box" and "click", each N x H x W bool.
    """
    frame = targets.shape[1:]
    boxed = sam.decode(embedding, box_prompts(targets), range(len(targets)), frame)
    (clicked,) = simulated_clicks(sam, embedding.to(sam.device), targets, 1)
    decoded = {"box": boxed, "click": clicked}
    return {prompt: answer.logits[:, 0].cpu() > 0 for prompt, answer in decoded.items()}


def encoder_scores(
    encode: Callable[[Tensor], Tensor], tests: Mapping[str, Objects], sam: FrozenSam
) -> dict[str, dict[str, float]]:
    """How an encoder does in SAM's place, for each named test set.

    Returns:
        "MSE", the error against SAM's own embedding, and the mean over the images of the masks'
        intersection over union: "IoU, box" and "IoU, click".
    """
    rows = {}
    for name, (images, targets) in tests.items():
        embedding, target = encode(images).to(sam.device), sam.encode(images)
        rows[name] = {"MSE": embedding_error(embedding, target).item()}
        for prompt, masks in masks_by_prompt(sam, embedding, targets).items():
            rows[name][f"IoU, {prompt}"] = fmean(mask_ious(masks, targets))
    return rows
