"""Figures, charts, widgets, source code and the environment report of the notebooks."""

from lib.display.charts import bars, budget_curves, loss_curves
from lib.display.diagram import Box, draw_diagram
from lib.display.environment import environment_report
from lib.display.figures import (
    draw_errors,
    draw_image,
    draw_mask,
    draw_outline,
    draw_overlay,
    draw_probability,
    draw_prompts,
    error_legend,
    picture_grid,
    show_predictions,
    show_samples,
)
from lib.display.mining import show_mining
from lib.display.self_prompting import show_outlined, show_self_prompts
from lib.display.source import show_source
from lib.display.style import use_style
from lib.display.widgets import ClickCanvas, hand_prompt, prompted_masks

__all__ = [
    "Box",
    "ClickCanvas",
    "bars",
    "budget_curves",
    "draw_diagram",
    "draw_errors",
    "draw_image",
    "draw_mask",
    "draw_outline",
    "draw_overlay",
    "draw_probability",
    "draw_prompts",
    "environment_report",
    "error_legend",
    "hand_prompt",
    "loss_curves",
    "picture_grid",
    "prompted_masks",
    "show_mining",
    "show_outlined",
    "show_predictions",
    "show_samples",
    "show_self_prompts",
    "show_source",
    "use_style",
]
