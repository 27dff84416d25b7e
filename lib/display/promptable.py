"""Pictures of a promptable model: its embedding in colours, its accuracy by prompt."""

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.display import style

MARKERS = "ov^sDP"


def embedding_colours(embeddings: Tensor) -> Tensor:
    """Three principal components of all tokens as red, green, blue.

    Args:
        embeddings: B x C x h x w, C >= 3. All images share the components, so that one colour
            means the same in each.

    Returns:
        B x 3 x h x w in [0, 1]; the lowest and highest 2 % of each component are clipped.
    """
    tokens = embeddings.float().movedim(1, -1).flatten(0, 2)
    tokens = tokens - tokens.mean(0)
    _, directions = torch.linalg.eigh(tokens.T @ tokens)  # ascending order
    colours = tokens @ directions[:, -3:].flip(1)
    low, high = colours.sort(0).values[[int(0.02 * len(colours)), int(0.98 * (len(colours) - 1))]]
    colours = ((colours - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return colours.unflatten(0, (len(embeddings), *embeddings.shape[2:])).movedim(-1, 1)


def prompt_chart(scores: pd.DataFrame, *, floor: str, label: str = "mean IoU") -> Figure:
    """One line a data set, one mark a kind of prompt, the floor as a black stroke.

    Args:
        scores: rows are data sets, columns kinds of prompt, values in [0, 1].
        floor: the column that every other one has to beat.
    """
    figure, ax = plt.subplots(figsize=(8, 0.9 + 0.4 * len(scores)), layout="constrained")
    prompts = [column for column in scores.columns if column != floor]
    for marker, colour, name in zip(MARKERS, style.CYCLE, prompts, strict=False):
        ax.scatter(scores[name], scores.index, marker=marker, s=55, color=colour, label=name)
    ax.scatter(
        scores[floor], scores.index, marker="|", s=220, linewidth=2, color=style.BLACK, label=floor
    )
    ax.set(xlabel=label, xlim=(0, 1))
    ax.invert_yaxis()  # the first row on top, as in a table
    figure.legend(loc="outside right upper")
    return figure
