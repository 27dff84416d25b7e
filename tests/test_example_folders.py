"""The folders that lessons look at hold what they promise, and are read or refused accordingly."""

import pytest
import torch
from PIL import Image

from lib.data.errors import DataError
from lib.data.example_folders import awkward_folder, broken_folder, film_folder
from lib.data.folder import FolderDataset
from lib.data.splits import check_leaks, make_split
from lib.data.synthetic import SyntheticDataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return SyntheticDataset(modality="colonoscopy", count=8, size=64, cache=cache)


def test_the_awkward_folder_is_read_right(tmp_path, drawn):
    folder = FolderDataset(awkward_folder(tmp_path, drawn))
    assert folder.names == ["scan 2", "scan 9 (left)", "scan 10"]
    upright = drawn.mask(0)[:48] > 0
    assert not folder.mask(0).any()
    assert folder.mask(1).shape == folder.image(1).shape[1:] == (48, 64)
    assert torch.equal(folder.mask(2) > 0, upright)
    # JPEG changes colours a little, a wrong rotation would change them a lot.
    assert (folder.image(2) - drawn.image(0)[:, :48]).abs().mean() < 0.05
    assert Image.open(tmp_path / "images" / "scan 10.jpg").size == (48, 64)  # stored lying


def test_the_broken_folder_is_refused_with_every_name(tmp_path, drawn):
    with pytest.raises(DataError) as refused:
        FolderDataset(broken_folder(tmp_path, drawn))
    named = {path.name for path in refused.value.files}
    assert named == {
        "cut short.jpg", "no mask.jpg", "twice.png", "twice.bmp", "pointer.jpg", "empty file.png",
        "no image.png",
    }  # fmt: skip
    assert "whole" not in str(refused.value)


def test_frames_of_a_film_form_a_group(tmp_path, drawn):
    frames = FolderDataset(film_folder(tmp_path, drawn, films=5, frames=3), size=64)
    assert len(frames) == 15
    assert len(set(frames.groups)) == 5
    split = make_split(frames, val=0, test=0.2, seed=0, near_duplicates=False)
    assert check_leaks(frames, split).groups == []
    assert not torch.equal(frames.image(0), frames.image(1))
    assert torch.equal(frames.mask(0).roll(2, dims=1), frames.mask(2))
