"""What is drawn: colours at known pixels, numbers behind charts, the widget without a browser."""

import base64
import functools
import html
import inspect
import io
import math
import re
from types import SimpleNamespace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgba
from PIL import Image

from lib.display import (
    ClickCanvas,
    bars,
    budget_curves,
    draw_image,
    draw_mask,
    draw_outline,
    draw_overlay,
    draw_prompts,
    environment_report,
    hand_prompt,
    loss_curves,
    picture_grid,
    prompted_masks,
    show_predictions,
    show_samples,
    show_source,
    style,
    use_style,
)
from lib.display.charts import running_mean
from lib.display.figures import as_picture, error_codes
from lib.display.source import without_docstrings


@pytest.fixture(autouse=True)
def _clean_matplotlib():
    with mpl.rc_context():
        yield
    plt.close("all")


def half_mask(size=8):
    mask = torch.zeros(size, size, dtype=torch.int64)
    mask[:, size // 2 :] = 1
    return mask


# --- pictures ----------------------------------------------------------------------------------


def test_pictures_keep_their_values():
    image = torch.rand(3, 5, 7)
    assert np.allclose(as_picture(image), image.permute(1, 2, 0))
    assert as_picture(torch.rand(1, 5, 7)).shape == (5, 7)
    for wrong, message in ((torch.rand(2, 5, 7), "3 x H x W"), (torch.rand(3, 5, 7) * 255, "255")):
        with pytest.raises(ValueError, match=message):
            as_picture(wrong)


def test_a_dark_image_is_not_stretched():
    _, axes = picture_grid(1, 1)
    draw_image(axes[0, 0], torch.full((4, 4), 0.2))
    assert axes[0, 0].images[0].get_clim() == (0, 1)


def test_figures_fit_the_notebook_and_few_columns_stay_small():
    assert picture_grid(1, 6)[0].get_figwidth() == style.WIDTH
    assert picture_grid(2, 1)[0].get_figwidth() == pytest.approx(style.WIDTH / 3)


def test_mask_and_overlay_colours():
    _, axes = picture_grid(1, 2)
    mask = half_mask()
    mask[0, 7] = 2
    draw_mask(axes[0, 0], mask)
    picture = axes[0, 0].images[0].get_array()
    assert tuple(picture[0, 0]) == to_rgba("black")
    assert tuple(picture[1, 7]) == to_rgba(style.CLASS_COLOURS[0])
    assert tuple(picture[0, 7]) == to_rgba(style.CLASS_COLOURS[1])
    draw_overlay(axes[0, 1], torch.rand(3, 8, 8), mask, alpha=0.3)
    overlay = axes[0, 1].images[1].get_array()
    assert overlay[1, 7, 3] == pytest.approx(0.3)
    assert overlay[1, 0, 3] == 0  # background stays the image


def test_outline_runs_along_pixel_edges_also_at_the_image_border():
    _, axes = picture_grid(1, 1)
    draw_outline(axes[0, 0], half_mask())
    (contour,) = axes[0, 0].collections
    vertices = np.concatenate([path.vertices for path in contour.get_paths()])
    assert vertices[:, 0].min() == 3.5
    assert vertices[:, 0].max() == 7.5
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == (-0.5, 7.5)
    draw_outline(axes[0, 0], torch.zeros(8, 8))  # nothing to outline is no error
    assert len(axes[0, 0].collections) == 1


def test_error_codes():
    prediction = torch.tensor([[0, 1, 0, 1, 2]])
    target = torch.tensor([[0, 1, 1, 0, 1]])
    assert error_codes(prediction, target).tolist() == [[-1, 0, 1, 2, 1]]


def test_prompts_are_drawn_where_they_are():
    _, axes = picture_grid(1, 1)
    ax = axes[0, 0]
    draw_prompts(ax, [hand_prompt((20, 20), points=[(3, 4, 1), (9, 8, 0)], box=(2, 3, 7, 9))])
    (frame,) = ax.patches
    assert frame.get_bbox().extents.tolist() == [1.5, 2.5, 7.5, 9.5]
    positive, negative = ax.collections
    assert positive.get_offsets().tolist() == [[3, 4]]
    assert negative.get_offsets().tolist() == [[9, 8]]
    assert to_hex(positive.get_facecolor()[0]).upper() == style.POSITIVE
    assert to_hex(negative.get_facecolor()[0]).upper() == style.NEGATIVE


def test_whole_figures_have_the_promised_panels():
    mask = half_mask()
    sample = SimpleNamespace(image=torch.rand(3, 8, 8), mask=mask, name="one")
    figure = show_samples([sample, sample])
    assert [ax.get_title() for ax in figure.axes[:3]] == ["image", "mask", "overlay"]
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["one", "one"]
    figure = show_predictions([sample.image], [mask], {"a": [mask], "b": [1 - mask]})
    assert [ax.get_title() for ax in figure.axes] == ["image and truth", "a", "b"]
    hit, wrong = (figure.axes[i].images[1].get_array() for i in (1, 2))
    assert set(hit.compressed()) == {0}
    assert set(wrong.compressed()) == {1, 2}


def test_figures_are_the_same_bytes_each_time():
    def draw():
        use_style()
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(3, 8, 8, generator=generator)
        buffer = io.BytesIO()
        show_predictions([image], [half_mask()], {"a": [1 - half_mask()]}).savefig(buffer)
        return buffer.getvalue()

    assert draw() == draw()


def test_colours_differ_also_in_brightness():
    # Readers who see no colour tell misses, false alarms and hits apart by brightness.
    brightness = [
        np.dot(to_rgba(colour)[:3], [0.299, 0.587, 0.114])
        for colour in (style.HIT, style.MISS, style.FALSE_ALARM)
    ]
    assert min(np.abs(np.diff(sorted(brightness)))) > 0.1


# --- charts ------------------------------------------------------------------------------------


def test_running_mean():
    assert running_mean([1, 2, 6, 7], 2).tolist() == [1, 1.5, 4, 6.5]
    assert running_mean([1, 2, 6], 1).tolist() == [1, 2, 6]
    smoothed = running_mean([math.nan, 2, math.nan, 4], 2)
    assert math.isnan(smoothed[0])
    assert smoothed[1:].tolist() == [2, 2, 4]


def test_loss_curves_show_the_losses():
    figure = loss_curves([1, 2, 3], {"total": [3, 2, 1], "pseudo": [1, 1, 1]}, log=True)
    first, second = figure.axes[0].lines
    assert first.get_ydata().tolist() == [3, 2, 1]
    assert (first.get_label(), second.get_label()) == ("total", "pseudo")
    assert figure.axes[0].get_yscale() == "log"
    with pytest.raises(ValueError, match="smooth"):
        loss_curves([1], {"total": [1]}, smooth=0)


def test_bars_show_mean_deviation_and_every_run():
    figure = bars({"a": [1.0, 3.0], "b": [5.0]}, label="Dice (%)", reference=("all labels", 6.0))
    ax = figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [2, 5]
    (error,) = (c.lines[2][0] for c in ax.containers if hasattr(c, "lines") and c.lines[2])
    left, right = error.get_segments()[0][:, 0]
    assert (right - left) / 2 == pytest.approx(math.sqrt(2))
    assert ax.get_yticklabels()[0].get_text() == "a"
    dots = [c.get_offsets()[:, 0].tolist() for c in ax.collections if len(c.get_offsets())]
    assert [1.0, 3.0] in dots


def test_budget_curves_leave_a_gap_where_nothing_was_run():
    figure = budget_curves([5, 25], {"a": [[1, 3], []]}, xlabel="labels (%)", ylabel="Dice (%)")
    means = figure.axes[0].lines[0].get_ydata()
    assert means[0] == 2
    assert math.isnan(means[1])


# --- source ------------------------------------------------------------------------------------


def test_source_is_the_source():
    shown = show_source(as_picture)
    assert shown.text == inspect.getsource(as_picture)
    assert repr(shown).startswith("# lib.display.figures.as_picture\ndef as_picture(")
    visible = html.unescape(
        re.sub(r"<[^>]+>", "", re.search(r"<pre.*</pre>", shown._repr_html_(), re.S)[0])
    )
    assert visible.strip() == shown.text.strip()
    assert "<style" not in shown._repr_html_()  # colours are in the tags
    assert "color: " in shown._repr_html_()


def test_source_of_methods_classes_and_decorated_functions():
    method = show_source(ClickCanvas._answer).text
    assert method.startswith("def _answer(self")  # not indented

    @functools.wraps(as_picture)
    def wrapped(image):
        return as_picture(image)

    assert show_source(wrapped).text == inspect.getsource(as_picture)
    for wrong in (3, torch.zeros(1), len):
        with pytest.raises(TypeError, match=r"source|function nor class"):
            show_source(wrong)


def test_docstrings_are_left_out_and_nothing_else():
    text = '''class A:
    """Class."""

    b = """not a docstring"""

    def f(self):
        """Two

        lines.
        """
        # a comment
        return 1

    def g(self):
        """Only this."""
'''
    assert (
        without_docstrings(text)
        == '''class A:
    b = """not a docstring"""

    def f(self):
        # a comment
        return 1

    def g(self):
        """Only this."""
'''
    )


# --- environment -------------------------------------------------------------------------------


def test_environment_report_is_short_and_stable():
    text = environment_report().data
    assert text == environment_report().data
    assert f"torch {'.'.join(torch.__version__.split('.')[:2])}" in text
    assert "python 3." in text
    assert not re.search(r"\d+\.\d+\.\d+", text)  # no patch versions
    assert all(line.startswith("|") for line in text.splitlines())


# --- widget and twin ---------------------------------------------------------------------------


def decoded(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_hand_prompt():
    prompt = hand_prompt((10, 12), points=[(1, 2, 1), (3, 4, 0)], box=(0, 1, 5, 6))
    assert prompt.points.tolist() == [[1, 2], [3, 4]]
    assert prompt.labels.tolist() == [1, 0]
    assert prompt.box.tolist() == [0, 1, 5, 6]
    assert prompt.component.shape == (10, 12)
    assert hand_prompt((10, 12), box=(0, 1, 5, 6)).points is None
    with pytest.raises(ValueError, match="at least one"):
        hand_prompt((10, 12))
    with pytest.raises(ValueError, match="box"):
        hand_prompt((10, 12), box=(1, 2))


def test_canvas_asks_for_a_mask_and_shows_it():
    asked = []

    def predict(prompt):
        asked.append(prompt)
        return half_mask()

    image = torch.rand(3, 8, 8)
    canvas = ClickCanvas(image, predict)
    assert np.array_equal(decoded(canvas.image), (as_picture(image) * 255).round().astype(np.uint8))
    assert decoded(canvas.overlay)[..., 3].max() == 0
    assert canvas.prompt is None

    canvas.points = [[6, 2, 1]]
    assert asked[-1].points.tolist() == [[6, 2]]
    assert asked[-1].box is None
    assert torch.equal(canvas.mask, half_mask() > 0)
    assert np.array_equal(decoded(canvas.overlay)[..., 3] > 0, half_mask().numpy() > 0)
    assert canvas.status == "mask: 50.0 % of the image"

    canvas.box = [1, 2, 5, 6]
    assert asked[-1].box.tolist() == [1, 2, 5, 6]
    assert asked[-1].labels.tolist() == [1]

    canvas.points = []
    canvas.box = []
    assert len(asked) == 3  # with box alone once more; nothing is asked without a prompt
    assert canvas.mask is None
    assert decoded(canvas.overlay)[..., 3].max() == 0


def test_canvas_reports_what_went_wrong():
    def predict(prompt):
        raise RuntimeError("no weights")

    canvas = ClickCanvas(torch.rand(8, 8), predict)
    canvas.points = [[1, 1, 1]]
    assert canvas.status == "RuntimeError: no weights"
    assert canvas.mask is None


def test_canvas_refuses_a_mask_of_another_size():
    canvas = ClickCanvas(torch.rand(3, 8, 8), lambda prompt: torch.ones(1, 8, 8))
    canvas.points = [[1, 1, 1]]
    assert canvas.status == "ValueError: predict gave a mask (1, 8, 8) for 8 x 8 px"
    assert canvas.mask is None


def test_canvas_text_holds_no_picture_and_its_script_is_there():
    canvas = ClickCanvas(torch.rand(3, 8, 8), lambda prompt: half_mask())
    assert repr(canvas) == "ClickCanvas(8 x 8 px): interactive in a running notebook"
    for name in ("image", "overlay", "points", "box", "status", "width", "height", "zoom"):
        assert canvas.has_trait(name)
        assert name in canvas._esm


def test_twin_draws_each_prompt_and_its_mask():
    prompts = [hand_prompt((8, 8), points=[(6, 2, 1)]), hand_prompt((8, 8), box=(4, 0, 7, 7))]
    masks = iter([half_mask(), torch.zeros(8, 8)])
    figure = prompted_masks(
        torch.rand(3, 8, 8), prompts, lambda prompt: next(masks), titles=("click", "box")
    )
    assert [ax.get_title() for ax in figure.axes[:2]] == ["click", "box"]
    first, second = figure.axes[2:]
    assert (first.images[1].get_array()[..., 3] > 0).sum() == 32
    assert (second.images[1].get_array()[..., 3] > 0).sum() == 0
    assert len(second.patches) == 1
