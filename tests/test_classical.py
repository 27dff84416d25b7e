"""GrabCut and the random walker on pictures whose answer is known."""

import numpy as np
import pytest
from skimage.draw import disk

from lib.evaluation.classical import grab_cut, random_walk


@pytest.fixture
def picture():
    """A bright disc of radius 20 px on a dark ground, both a little noisy."""
    truth = np.zeros((64, 64), bool)
    truth[disk((32, 28), 20)] = True
    noise = np.random.default_rng(0).normal(0, 8, (64, 64, 3))
    image = np.where(truth[..., None], 180, 60) + noise
    return image.clip(0, 255).astype(np.uint8), truth


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_grab_cut_finds_the_disc_in_a_loose_box(picture):
    image, truth = picture
    assert iou(grab_cut(image, (4, 8, 52, 56)), truth) > 0.97


def test_grab_cut_stays_in_its_box(picture):
    """The object goes on beyond the box: what is cut off can be lost, but nothing is added."""
    image, truth = picture
    found = grab_cut(image, (4, 8, 40, 56))
    assert not found[:, 41:].any()
    assert not (found & ~truth).sum() > 5


def test_a_box_around_the_whole_image_is_the_whole_image(picture):
    assert grab_cut(picture[0], (-3, 0, 63, 80)).all()


def test_one_click_finds_the_disc(picture):
    image, truth = picture
    assert iou(random_walk(image, [(28, 32)], [1]), truth) > 0.9


def test_a_click_beside_the_object_takes_its_surroundings_away(picture):
    image = picture[0]
    both = random_walk(image, [(28, 32), (20, 24)], [1, 0])
    assert not both[24, 20]
    assert both[32, 28]
    assert both.sum() < random_walk(image, [(28, 32)], [1]).sum()


def test_a_click_at_the_edge_of_the_image_is_cut_off(picture):
    assert random_walk(picture[0], [(63, 63)], [1])[62, 62]


def test_without_contrast_or_a_click_on_the_object_nothing_is_invented(picture):
    flat = np.full((64, 64, 3), 90, np.uint8)
    found = random_walk(flat, [(32, 32)], [1])
    assert found[32, 32]
    assert found.sum() < 60  # the click's own disc
    assert not random_walk(picture[0], [(28, 32)], [0]).any()
