"""Stored figures: smaller, still the same to the eye, and left alone the second time."""

import base64
import io
from pathlib import Path

import nbformat.v4 as v4
import numpy as np
from PIL import Image

from lib.notebook.clean import clean


def notebook_with(picture: Image.Image):
    file = io.BytesIO()
    picture.save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    cell = v4.new_code_cell("", outputs=[v4.new_output("display_data", {"image/png": png})])
    return v4.new_notebook(cells=[cell])


def stored(node) -> str:
    return node.cells[0].outputs[0].data["image/png"]


def opened(node) -> np.ndarray:
    file = io.BytesIO(base64.b64decode(stored(node)))
    return np.array(Image.open(file).convert("RGB")).astype(int)


def noisy_photograph() -> Image.Image:
    rng = np.random.default_rng(0)
    base = np.linspace(60, 200, 128)[None, :, None] * np.array([1.0, 0.7, 0.5])
    pixels = base + rng.normal(0, 12, (96, 128, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_photograph_shrinks_and_keeps_its_colours():
    node = notebook_with(noisy_photograph())
    size, before = len(stored(node)), opened(node)
    clean(node, Path("."))
    assert len(stored(node)) < size / 2
    assert np.abs(opened(node) - before).mean() < 6


def test_the_second_time_nothing_changes():
    node = clean(notebook_with(noisy_photograph()), Path("."))
    once = stored(node)
    assert stored(clean(node, Path("."))) == once


def test_transparent_ground_becomes_white():
    figure = noisy_photograph().convert("RGBA")
    figure.paste((0, 0, 0, 0), (0, 0, 20, 20))
    pixels = opened(clean(notebook_with(figure), Path(".")))
    assert (pixels[2:18, 2:18] > 250).all()


def test_a_small_mark_keeps_its_colour():
    figure = noisy_photograph()
    sky = (86, 180, 233)
    figure.paste(sky, (60, 40, 66, 46))
    mark = opened(clean(notebook_with(figure), Path(".")))[41:45, 61:65]
    assert np.abs(mark - sky).max() <= 4
