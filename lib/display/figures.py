"""Images, masks, prompts and errors, drawn the same way everywhere.

``draw_*`` functions draw into one matplotlib axis and can be combined: an image, an overlay on
it, prompts on top. ``picture_grid`` makes the axes. Pixel indices are the data coordinates, so a
prompt at (x, y) lies at the centre of its pixel.
"""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from lib.display import style


def picture_grid(
    rows: int,
    columns: int,
    *,
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    aspect: float = 1.0,
    width: float | None = None,
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns empty axes for pictures, and the axes as a 2-d array.

    ``titles`` stand above the columns, ``row_labels`` beside the rows; ``aspect`` is a picture's
    height over its width; ``width`` is in inches, by default the notebook's, or less where few
    columns would become posters.
    """
    if width is None:
        width = min(style.WIDTH, columns * style.WIDTH / 3)
    height = width / columns * aspect * rows + (0.3 if titles else 0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title)
    for ax, label in zip(axes[:, 0], row_labels, strict=False):
        ax.set_ylabel(label)
    return figure, axes


def draw_image(ax: Axes, image: Tensor) -> None:
    """Draw a 3 x H x W or H x W image with values in [0, 1]; the range is never stretched."""
    ax.imshow(as_picture(image), cmap="gray", vmin=0, vmax=1)


def draw_probability(ax: Axes, probability: Tensor) -> None:
    """Draw an H x W map of probabilities; the colours always span [0, 1]."""
    ax.imshow(_array(probability), cmap=style.PROBABILITY, vmin=0, vmax=1)


def draw_mask(ax: Axes, mask: Tensor) -> None:
    """Draw an H x W class map: background black, each class in its colour."""
    picture = np.zeros((*mask.shape, 4))
    picture[...] = to_rgba(style.BLACK)
    ax.imshow(_paint(picture, mask, alpha=1.0))


def draw_overlay(
    ax: Axes, image: Tensor, mask: Tensor, *, truth: Tensor | None = None, alpha: float = 0.45
) -> None:
    """Draw an H x W class map over its image; the true mask, if given, as an outline."""
    draw_image(ax, image)
    ax.imshow(_paint(np.zeros((*mask.shape, 4)), mask, alpha=alpha))
    if truth is not None:
        draw_outline(ax, truth)


def draw_outline(ax: Axes, mask: Tensor, *, colour: str = style.TRUTH) -> None:
    """Draw the border of an H x W mask's foreground, along the pixels' edges."""
    foreground = np.pad(_array(mask) > 0, 1)
    if foreground.any():
        axis = [np.arange(-1, size - 1) for size in foreground.shape]
        ax.contour(axis[1], axis[0], foreground, levels=[0.5], colors=[colour], linewidths=1.5)


def draw_errors(ax: Axes, image: Tensor, prediction: Tensor, target: Tensor) -> None:
    """Draw hits, misses and false alarms of the foreground over the (dimmed) image.

    A pixel of a wrong foreground class counts as missed.
    """
    ax.imshow(as_picture(image) * 0.6, cmap="gray", vmin=0, vmax=1)
    codes = error_codes(prediction, target)
    ax.imshow(np.ma.masked_less(codes, 0), cmap=style.ERROR_COLOURS, vmin=0, vmax=2, alpha=0.8)


def error_codes(prediction: Tensor, target: Tensor) -> np.ndarray:
    """H x W int: -1 background in both, 0 hit, 1 miss, 2 false alarm."""
    prediction, target = _array(prediction).astype(int), _array(target).astype(int)
    codes = np.full(target.shape, -1)
    codes[(target > 0) & (prediction == target)] = 0
    codes[(target > 0) & (prediction != target)] = 1
    codes[(target == 0) & (prediction > 0)] = 2
    return codes


def error_legend(figure: Figure) -> None:
    """Explain the colours of `draw_errors` below the figure."""
    names = {"hit": style.HIT, "missed": style.MISS, "false alarm": style.FALSE_ALARM}
    patches = [Patch(color=colour, label=name) for name, colour in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)


def draw_prompts(ax: Axes, prompts: Iterable) -> None:
    """Draw points and boxes: positive points as discs, negative as crosses, boxes as frames.

    Takes objects with ``points``, ``labels`` and ``box`` as in `lib.prompts.Prompt`. A box is
    inclusive, so its frame runs along the outer edges of its first and last pixels.
    """
    for prompt in prompts:
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box.tolist()
            frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1)
            frame.set(fill=False, edgecolor=style.BOX, linewidth=2)
            ax.add_patch(frame)
        if prompt.points is not None:
            positive = prompt.labels == 1
            for chosen, colour, marker in (
                (positive, style.POSITIVE, "o"),
                (~positive, style.NEGATIVE, "X"),
            ):
                x, y = prompt.points[chosen].T.tolist()
                ax.scatter(x, y, s=60, c=colour, marker=marker, edgecolors="white", zorder=3)


def show_samples(samples: Sequence) -> Figure:
    """Image, mask and overlay, one sample a row (`lib.data` samples: image, mask, name)."""
    figure, axes = picture_grid(
        len(samples),
        3,
        titles=("image", "mask", "overlay"),
        row_labels=[sample.name for sample in samples],
        aspect=samples[0].image.shape[-2] / samples[0].image.shape[-1],
        width=0.75 * style.WIDTH,
    )
    for row, sample in zip(axes, samples, strict=True):
        draw_image(row[0], sample.image)
        draw_mask(row[1], sample.mask)
        draw_overlay(row[2], sample.image, sample.mask)
    return figure


def show_predictions(
    images: Sequence[Tensor],
    targets: Sequence[Tensor],
    predictions: Mapping[str, Sequence[Tensor]],
    *,
    row_labels: Sequence[str] = (),
) -> Figure:
    """Image with the true outline, then one error map a method; one image a row.

    ``predictions`` maps a method's name to its H x W class maps, in the order of the images.
    """
    figure, axes = picture_grid(
        len(images),
        1 + len(predictions),
        titles=("image and truth", *predictions),
        row_labels=row_labels,
        aspect=images[0].shape[-2] / images[0].shape[-1],
    )
    for i, row in enumerate(axes):
        draw_image(row[0], images[i])
        draw_outline(row[0], targets[i])
        for ax, masks in zip(row[1:], predictions.values(), strict=True):
            draw_errors(ax, images[i], masks[i], targets[i])
    error_legend(figure)
    return figure


def as_picture(image: Tensor) -> np.ndarray:
    """H x W x 3 or H x W float array in [0, 1] of a 3 x H x W, 1 x H x W or H x W tensor."""
    array = _array(image.float())
    if array.ndim == 3:
        array = array.transpose(1, 2, 0)
        array = array[..., 0] if array.shape[2] == 1 else array
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"image has shape {tuple(image.shape)}: give 3 x H x W or H x W")
    if array.min() < -1e-3 or array.max() > 1 + 1e-3:
        raise ValueError("image leaves [0, 1]: divide 8-bit values by 255, undo normalisation")
    return array.clip(0, 1)


def _paint(picture: np.ndarray, mask: Tensor, *, alpha: float) -> np.ndarray:
    """Colour the foreground classes of an H x W mask into an H x W x 4 picture."""
    classes = _array(mask)
    for c in np.unique(classes[classes > 0]).astype(int):
        colour = style.CLASS_COLOURS[(c - 1) % len(style.CLASS_COLOURS)]
        picture[classes == c] = to_rgba(colour, alpha)
    return picture


def _array(tensor: Tensor) -> np.ndarray:
    return torch.as_tensor(tensor).detach().cpu().numpy()
