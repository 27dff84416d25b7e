"""Prompting by hand: a canvas to click on, and its static twin for those who only read.

Both ask the same function for a mask, so that the figure shows what the canvas would.
"""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.display import style
from lib.display.figures import as_picture, draw_image, draw_overlay, draw_prompts, picture_grid
from lib.prompts import Prompt

Predict = Callable[[Prompt], Tensor]  # a prompt -> H x W mask, foreground > 0


def hand_prompt(
    shape: tuple[int, int],
    *,
    points: Sequence[tuple[float, float, int]] = (),
    box: Sequence[float] = (),
) -> Prompt:
    """A prompt written by hand for a picture of ``shape`` (H, W).

    Args:
        shape: of the picture.
        points: (x, y, label) in pixel indices, label 1 = object, 0 = background.
        box: (x0, y0, x1, y1), inclusive, or nothing.

    Raises:
        ValueError: neither point nor box, or a box of other than four numbers.
    """
    if not points and not box:
        raise ValueError("a prompt needs at least one point or a box")
    if box and len(box) != 4:
        raise ValueError(f"box={list(box)}: expected (x0, y0, x1, y1)")
    table = torch.tensor([list(point) for point in points], dtype=torch.float32)
    return Prompt(
        points=table[:, :2] if points else None,
        labels=table[:, 2].long() if points else None,
        box=torch.tensor(list(box), dtype=torch.float32) if box else None,
        mask_logits=None,
        component=torch.zeros(shape, dtype=torch.bool),  # made by nobody's prediction
    )


class ClickCanvas(anywidget.AnyWidget):
    """An image on which the reader clicks points and drags a box; Python answers with a mask.

    Click: a point of the kind that the button shows (shift turns it round). Drag: the box.
    ``points`` and ``box`` may also be set from Python. A failing ``predict`` is reported under
    the image instead of being lost in the kernel's log.

    Args:
        image: 3 x H x W or H x W in [0, 1].
        predict: called with a `Prompt` after each change; returns an H x W mask.
        zoom: screen pixels a pixel.
    """

    _esm = Path(__file__).parent / "click_canvas.js"
    image = traitlets.Unicode().tag(sync=True)  # data URLs
    overlay = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)
    zoom = traitlets.Int().tag(sync=True)
    points = traitlets.List().tag(sync=True)  # [x, y, label]
    box = traitlets.List().tag(sync=True)  # [x0, y0, x1, y1] or []
    status = traitlets.Unicode().tag(sync=True)

    def __init__(self, image: Tensor, predict: Predict, *, zoom: int = 2) -> None:
        """Show the image without prompt."""
        picture = as_picture(image)
        height, width = picture.shape[:2]
        super().__init__(
            image=_data_url(_to_bytes(picture)),
            overlay=_data_url(np.zeros((height, width, 4), dtype=np.uint8)),
            width=width,
            height=height,
            zoom=zoom,
            status="click or drag",
        )
        self.predict = predict
        self.mask: Tensor | None = None  # the last answer, H x W bool
        self.observe(self._answer, names=["points", "box"])

    @property
    def prompt(self) -> Prompt | None:
        """The prompt on the canvas, or None."""
        if not self.points and not self.box:
            return None
        return hand_prompt((self.height, self.width), points=self.points, box=self.box)

    def __repr__(self) -> str:
        """A short text: the default would hold the picture."""
        return f"ClickCanvas({self.width} x {self.height} px): interactive in a running notebook"

    def _answer(self, _change: object) -> None:
        self.mask = None
        if self.prompt is None:
            self.status = "click or drag"
        else:
            try:
                self.mask = self._checked(torch.as_tensor(self.predict(self.prompt)).cpu() > 0)
                share = float(self.mask.float().mean())
                self.status = f"mask: {100 * share:.1f} % of the image"
            except Exception as error:  # whatever it is, the reader must see it
                self.status = f"{type(error).__name__}: {error}"
        self.overlay = _data_url(self._overlay_picture())

    def _checked(self, mask: Tensor) -> Tensor:
        if tuple(mask.shape) != (self.height, self.width):
            raise ValueError(
                f"predict gave a mask {tuple(mask.shape)} for {self.height} x {self.width} px"
            )
        return mask

    def _overlay_picture(self) -> np.ndarray:
        picture = np.zeros((self.height, self.width, 4), dtype=np.uint8)
        if self.mask is not None:
            colour = _to_bytes(np.array(to_rgb(style.CLASS_COLOURS[0])))
            picture[self.mask.numpy()] = [*colour, 115]  # of 255: the image shines through
        return picture


def prompted_masks(
    image: Tensor, prompts: Sequence[Prompt], predict: Predict, *, titles: Sequence[str] = ()
) -> Figure:
    """The canvas's static twin: a row of prompts on the image, and below them their masks."""
    height, width = image.shape[-2:]
    figure, axes = picture_grid(
        2, len(prompts), titles=titles, row_labels=("prompt", "mask"), aspect=height / width
    )
    for column, prompt in zip(axes.T, prompts, strict=True):
        draw_image(column[0], image)
        draw_prompts(column[0], [prompt])
        mask = (torch.as_tensor(predict(prompt)) > 0).long()
        draw_overlay(column[1], image, mask)
        draw_prompts(column[1], [prompt])
    return figure


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (255 * values).round().astype(np.uint8)


def _data_url(picture: np.ndarray) -> str:
    """PNG data URL of an 8-bit picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
