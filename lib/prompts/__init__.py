"""Prompts for SAM: points, boxes, mask logits from a prediction, with noise, and learnt ones."""

from lib.prompts.from_masks import (
    Prompt,
    PromptBatch,
    PromptConfig,
    prompts_for_images,
    prompts_from_mask,
    prompts_from_probability,
)
from lib.prompts.learnable import LearnablePrompts
from lib.prompts.noise import add_false_positives, drop_prompts, jitter_boxes, move_points

__all__ = [
    "LearnablePrompts",
    "Prompt",
    "PromptBatch",
    "PromptConfig",
    "add_false_positives",
    "drop_prompts",
    "jitter_boxes",
    "move_points",
    "prompts_for_images",
    "prompts_from_mask",
    "prompts_from_probability",
]
