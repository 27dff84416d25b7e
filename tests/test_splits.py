"""Splits: grouped, seeded, nested, kept in files that cannot be changed unnoticed; leaks found."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from lib.data.dataset import SegmentationDataset
from lib.data.duplicates import clusters, find_duplicates
from lib.data.errors import DataError
from lib.data.splits import (
    Split,
    check_leaks,
    labelled_subset,
    load_split,
    make_split,
    save_split,
)


def scene(seed):
    """A smooth random picture, unlike any other."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((72, 72), Image.Resampling.BICUBIC))


class Scenes(SegmentationDataset):
    """Pictures by number; those listed in `copies` are taken from another, changed by `change`."""

    def __init__(self, count, *, copies=None, change=lambda pixels: pixels, **facts):
        super().__init__(names=[f"n{i}" for i in range(count)], title="scenes", **facts)
        self.copies, self.change = copies or {}, change

    def _load_image(self, index):
        if index in self.copies:
            return self.change(scene(self.copies[index]))
        return scene(index)

    def _load_mask(self, index):
        return np.zeros((72, 72), np.uint8)


PATIENTS = [f"p{i // 5}" for i in range(100)]


def groups_of(dataset, names):
    return {dataset.groups[i] for i in dataset.indices(names)}


def test_split_is_a_partition_that_keeps_groups_whole():
    dataset = Scenes(100, groups=PATIENTS)
    split = make_split(dataset, val=0.1, test=20, seed=3, near_duplicates=False)
    assert (len(split.train), len(split.val), len(split.test)) == (70, 10, 20)
    assert sorted([*split.train, *split.val, *split.test]) == sorted(dataset.names)
    parts = [groups_of(dataset, names) for names in (split.train, split.val, split.test)]
    assert not (parts[0] & parts[1])
    assert not (parts[0] & parts[2])
    assert not (parts[1] & parts[2])


def test_split_follows_the_seed_and_nothing_else():
    first, again, other = (
        make_split(Scenes(50), seed=seed, near_duplicates=False) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.sha256 == again.sha256
    assert first.test != other.test
    assert first.sha256 != other.sha256
    # The first two of `printf 0/test/nI | sha256sum`: no library's random numbers play a part.
    assert make_split(Scenes(10), val=1, test=2, near_duplicates=False).test == ["n2", "n8"]


def test_group_sizes_give_the_nearest_number():
    dataset = Scenes(10, groups=list("aaaabbbbcc"))
    split = make_split(dataset, val=2, test=3, near_duplicates=False)
    assert len(split.val) in (2, 4)
    assert len(split.test) in (2, 4)
    assert len(groups_of(dataset, split.test)) == 1
    with pytest.raises(DataError, match="3 images in 1 groups do not suffice"):
        make_split(Scenes(3, groups=["a"] * 3), val=1, test=1, near_duplicates=False)
    with pytest.raises(DataError, match=r"val must be a share below 1"):
        make_split(dataset, val=1.5, near_duplicates=False)


def test_own_parts_are_kept_and_val_is_carved_from_train():
    own = ["test"] * 10 + ["train"] * 40
    dataset = Scenes(50, splits=own, groups=[f"g{i // 2}" for i in range(50)])
    split = make_split(dataset, val=8, test=0.5, near_duplicates=False)
    assert split.test == dataset.names[:10]
    assert len(split.val) == 8
    assert not groups_of(dataset, split.val) & groups_of(dataset, split.train)
    assert "test as the data set's authors made it" in split.made
    whole = Scenes(50, splits=["val"] * 5 + own[5:])
    assert make_split(whole, val=8, near_duplicates=False).val == whole.names[:5]
    mixed = make_split(dataset, val=8, test=10, own=False, near_duplicates=False)
    assert mixed.test != split.test


def test_near_duplicates_stay_together():
    copies = {i: i - 1 for i in range(1, 60, 2)}  # every second picture is a paler copy
    dataset = Scenes(60, copies=copies, change=lambda pixels: (pixels * 0.8 + 20).astype(np.uint8))
    split = make_split(dataset, val=10, test=20, seed=0)
    for names in (split.train, split.val, split.test):
        numbers = {int(name[1:]) for name in names}
        assert all((number ^ 1) in numbers for number in numbers)
    assert check_leaks(dataset, split).clean
    torn = make_split(dataset, val=10, test=20, seed=0, near_duplicates=False)
    report = check_leaks(dataset, torn)
    part = {name: key for key in ("train", "val", "test") for name in getattr(torn, key)}
    expected = {
        (f"n{i}", f"n{i + 1}") for i in range(0, 60, 2) if part[f"n{i}"] != part[f"n{i + 1}"]
    }
    assert expected
    assert set(report.near) == expected
    assert f"{len(expected)} leaks" in str(report)


def test_leaks_by_group_and_by_equal_pixels():
    dataset = Scenes(6, copies={5: 0}, groups=["a", "a", "b", "c", "d", "e"])
    report = check_leaks(dataset, Split(["n0", "n2"], ["n1"], ["n5"]))
    assert (report.groups, report.exact, report.near) == (["a"], [("n0", "n5")], [])
    assert not report.clean
    assert check_leaks(dataset, Split(["n0", "n1", "n5"], ["n2"], ["n3"])).clean


def test_find_duplicates_tells_copies_from_likenesses():
    dataset = Scenes(40, copies={7: 3, 9: 3, 30: 8}, change=lambda pixels: pixels)
    assert find_duplicates(dataset) == ([(3, 7), (3, 9), (8, 30)], [])
    shrunk = Scenes(40, copies={7: 3}, change=lambda pixels: pixels[::2, ::2].copy())
    assert find_duplicates(shrunk) == ([], [(3, 7)])
    flat = Scenes(3, copies={0: 0, 1: 1}, change=lambda pixels: pixels * 0 + pixels[0, 0])
    assert find_duplicates(flat) == ([], [])  # two flat pictures share a hash, not a look
    assert find_duplicates(dataset, [3, 9, 20])[0] == [(3, 9)]
    assert clusters(5, [(0, 2), (2, 4)]).tolist() == [0, 1, 0, 2, 0]


def test_labelled_subsets_are_nested_and_keep_groups():
    dataset = Scenes(100, groups=PATIENTS)
    split = make_split(dataset, val=10, test=20, near_duplicates=False)
    # Of 70 images in fives: 3.5, 7, 17.5, 35, 52.5 and 70 are asked for.
    subsets = [labelled_subset(split, share, 4) for share in (0.05, 0.1, 0.25, 0.5, 0.75, 1)]
    assert [len(names) for names in subsets] == [5, 5, 20, 35, 50, 70]
    for smaller, larger in itertools.pairwise(subsets):
        assert set(smaller) <= set(larger)
    for names in subsets:
        assert len(groups_of(dataset, names)) * 5 == len(names)
    assert labelled_subset(split, 0.5, 4) != labelled_subset(split, 0.5, 5)
    single = make_split(Scenes(100), near_duplicates=False)
    assert len(labelled_subset(single, count=7)) == 7
    assert set(labelled_subset(single, count=7)) < set(labelled_subset(single, count=20))


@pytest.mark.parametrize("wrong", [{}, {"fraction": 25}, {"fraction": 0.0}, {"count": 99}])
def test_labelled_subset_refuses_what_makes_no_sense(wrong):
    with pytest.raises(DataError, match=r"fraction|count"):
        labelled_subset(Split(["a", "b"], ["c"], ["d"]), **wrong)


def test_split_files(tmp_path):
    dataset = Scenes(30, groups=[f"Pé{i // 3}" for i in range(30)])
    split = make_split(dataset, near_duplicates=False)
    path = tmp_path / "split.json"
    save_split(split, path)
    assert load_split(path, dataset) == split
    assert json.loads(path.read_text("utf-8"))["sha256"] == split.sha256
    with pytest.raises(DataError, match="no image of these") as caught:
        load_split(path, Scenes(20))
    assert all(f"n{i}\n" in str(caught.value) for i in range(20, 30))
    content = json.loads(path.read_text("utf-8"))
    content["train"].append(content["test"].pop())
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(DataError, match="was changed after it was made"):
        load_split(path)
    path.write_text("{}", "utf-8")
    with pytest.raises(DataError, match="no split file"):
        load_split(path)
    with pytest.raises(DataError, match="more than once"):
        Split(["a"], ["a"], [])
