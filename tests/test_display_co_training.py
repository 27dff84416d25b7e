"""Figures of KnowSAM's parts: what stands where, and which patches are framed."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from lib.data.patch_exchange import exchange_patches
from lib.display import style
from lib.display.co_training import show_exchange, show_maps, show_taught_masks


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_maps_stand_in_their_columns_and_are_not_stretched():
    images, truths = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    figure = show_maps(
        images, truths, {"H": torch.full((2, 8, 8), 0.25), "M": torch.zeros(2, 8, 8)}
    )
    assert [ax.get_title() for ax in figure.axes[:3]] == ["image, truth", "H", "M"]
    (drawn,) = figure.axes[1].images
    assert drawn.get_clim() == (0, 1)
    assert (drawn.get_array() == 0.25).all()


def test_exchange_frames_the_patches_that_came_from_the_partner():
    images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    doubt = torch.zeros(2, 1, 8, 8)
    doubt[0, :, :4, 4:] = 0.5  # upper right, and lower left in the partner
    doubt[1, :, 4:, :4] = 0.5
    halves = (part.split(1) for part in (images, masks))
    mixed = exchange_patches(*zip(*halves, strict=True), doubt.split(1), patches=1, grid=2)
    figure = show_exchange(images, doubt, mixed, grid=2)
    corners = [[p.get_xy() for p in ax.patches] for ax in figure.axes]
    assert corners == [[(3.5, -0.5)]] * 4 + [[(-0.5, 3.5)]] * 4
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.00", "0.50", "0.00", "0.00"]


def test_prompt_and_truth_have_their_colours():
    mask = torch.zeros(8, 8, dtype=torch.int64)
    mask[2:6, 2:6] = 1
    figure = show_taught_masks([torch.zeros(3, 8, 8)], [mask], {"SAM": [mask]}, [mask])
    colours = [to_hex(line.get_edgecolor()[0]) for line in figure.axes[0].collections]
    assert colours == [style.SKY.lower(), style.YELLOW.lower()]
