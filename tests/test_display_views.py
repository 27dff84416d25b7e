"""Views side by side: each tensor is drawn as what it is, in its place."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex, to_rgba

from lib.display import style
from lib.display.views import NOT_COUNTED, counted_labels, frame_box, show_views


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_each_tensor_is_drawn_as_what_it_is():
    views = {
        "picture": torch.full((1, 3, 4, 4), 0.25),
        "probability": torch.full((1, 4, 4), 0.5),
        "kept": torch.ones(1, 4, 4, dtype=torch.bool),
        "labels": torch.tensor([[[0, 1], [NOT_COUNTED, 0]]]),
    }
    figure = show_views(views)
    picture, probability, kept, labels = figure.axes
    assert [ax.get_title() for ax in figure.axes] == list(views)
    assert picture.images[0].get_array().shape == (4, 4, 3)
    assert (probability.images[0].get_array() == 0.5).all()
    assert probability.images[0].get_clim() == (0, 1)
    assert (kept.images[0].get_array() == 1).all()
    classes, grey = (drawn.get_array() for drawn in labels.images)
    assert tuple(classes[0, 1]) == to_rgba(style.CLASS_COLOURS[0])
    assert grey[..., 3].tolist() == [[0, 0], [1, 0]]
    assert grey[1, 0, :3].tolist() == [0.6] * 3


def test_rows_are_images_and_the_truth_lies_on_its_column_alone():
    images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    masks[:, 2:5, 2:5] = 1
    columns = {"a": images, "b": images.flip(0)}
    figure = show_views(columns, truths={"b": masks}, row_labels=("one", "two"))
    upper, lower = figure.axes[:2], figure.axes[2:]
    assert [row[0].get_ylabel() for row in (upper, lower)] == ["one", "two"]
    for row, first, second in ((upper, 0, 1), (lower, 1, 0)):
        for ax, at in zip(row, (first, second), strict=True):
            expected = images[at].permute(1, 2, 0).numpy()
            assert (ax.images[0].get_array() == expected).all()
        assert [len(ax.collections) for ax in row] == [0, 1]
        assert to_hex(row[1].collections[0].get_edgecolor()[0]) == style.TRUTH.lower()


def test_pixels_that_do_not_count_are_marked():
    labels, counted = torch.tensor([[0, 1, 2]]), torch.tensor([[True, False, True]])
    assert counted_labels(labels, counted).tolist() == [[0, NOT_COUNTED, 2]]


def test_a_box_is_framed_on_every_picture():
    box = torch.zeros(8, 8, dtype=torch.bool)
    box[1:4, 1:4] = True
    figure = show_views({"a": torch.rand(2, 3, 8, 8), "b": torch.rand(2, 8, 8)})
    frame_box(figure, box)
    frames = [ax.collections for ax in figure.axes]
    assert [len(drawn) for drawn in frames] == [1, 1, 1, 1]
    assert to_hex(frames[0][0].get_edgecolor()[0]) == style.BOX.lower()


def test_columns_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="one tensor a row"):
        show_views({"a": torch.rand(2, 4, 4), "b": torch.rand(1, 4, 4)})
    with pytest.raises(ValueError, match="not there: c"):
        show_views({"a": torch.rand(1, 4, 4)}, truths={"c": torch.zeros(1, 4, 4)})
