"""Mixtures of modalities: joined data, balanced draws, nothing lost and nothing kept twice."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny_training import Squares, same

from lib.data.batches import BatchStream
from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError
from lib.data.mixture import BalancedStream, MixtureDataset


class Grey(SegmentationDataset):
    """Plain pictures whose grey level is their index; every second mask is full."""

    def __init__(self, count, *, size=16, classes=2, **lists):
        names = [f"grey-{i}" for i in range(count)]
        super().__init__(names=names, size=size, classes=classes, title="Grey", **lists)

    def _load_image(self, index):
        return np.full((16, 16), index, np.uint8)

    def _load_mask(self, index):
        return np.full((16, 16), index % 2, np.uint8)


def mixture():
    return MixtureDataset([("fundus", Grey(2)), ("polyps", Squares(12)), ("skin", Grey(5))])


def test_samples_are_those_of_the_parts():
    data = mixture()
    assert len(data) == 19
    assert data.modalities == ("fundus", "polyps", "skin")
    assert data.modality == [0] * 2 + [1] * 12 + [2] * 5
    assert data.names[1] == "fundus/grey-1"
    assert data.names[14] == "skin/grey-0"
    assert torch.equal(data.image(5), Squares(12).image(3))
    assert torch.equal(data.mask(5), Squares(12).mask(3))
    assert data[-1].image.unique().item() == pytest.approx(4 / 255)
    assert data.mask(-2).unique().item() == 1
    assert data.stored(1) == ("L", 16, 16)
    assert data.members("polyps") == list(range(2, 14))
    assert (data.size, data.classes) == (16, 2)


def test_groups_domains_splits_and_notes_are_carried_over():
    one = Grey(2, groups=["p", "p"], domains=["a", "b"], splits=["train", "test"])
    one.notes = ["read this"]
    data = MixtureDataset([("x", one), ("y", Grey(1))])
    assert data.groups == ["x/p", "x/p", "y/grey-0"]
    assert data.domains == ["a", "b", ""]
    assert data.splits == ["train", "test", ""]
    assert data.notes == ["x: read this"]


def test_pictures_are_kept_by_the_parts_alone():
    part = Grey(3)
    data = MixtureDataset([("x", part)])
    data[1]
    assert (list(part._images), list(part._masks)) == ([1], [1])
    assert data._held == 0


def test_one_modality_may_have_several_data_sets():
    data = MixtureDataset([("skin", Grey(2)), ("polyps", Squares(3)), ("skin", Squares(2))])
    assert data.modalities == ("skin", "polyps")
    assert data.members("skin") == [0, 1, 5, 6]


def test_fingerprint_tells_the_parts_apart():
    prints = {
        mixture().fingerprint(),
        MixtureDataset([("fundus", Grey(2))]).fingerprint(),
        MixtureDataset([("fundus", Grey(3))]).fingerprint(),
        MixtureDataset([("skin", Grey(2))]).fingerprint(),
    }
    assert len(prints) == 4
    assert mixture().fingerprint() in prints


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least one"),
        ([("x", Grey(2, classes=3))], "x: Grey has 3 classes"),
        ([("x", Grey(2)), ("y", Grey(2, size=8))], "one size, not x 16, y 8"),
        ([("x", Grey(2)), ("x", Grey(1))], "x/grey-0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(DataError, match=message):
        MixtureDataset(parts)


def test_a_modality_that_is_not_there_is_named():
    with pytest.raises(DataError, match="no modality 'mri' among fundus, polyps, skin"):
        mixture().members("mri")


# -- balanced draws --------------------------------------------------------------------------------


def balanced(**changes):
    settings = {"labelled": range(19), "labelled_batch": 6, "seed": 4}
    return BalancedStream(mixture(), **{**settings, **changes})


def drawn(stream, steps):
    return [index for step in range(steps) for index in stream.batch(step).labelled.index.tolist()]


@pytest.mark.parametrize("batch", [3, 4, 6])
def test_any_three_draws_in_a_row_hold_each_modality_once(batch):
    stream = balanced(labelled_batch=batch)
    modality = [stream.dataset.modality[i] for i in drawn(stream, 12)]
    for start in range(0, len(modality) - 2):
        assert sorted(modality[start : start + 3]) == [0, 1, 2]


def test_each_modality_runs_through_all_its_images_every_epoch_of_its_own():
    stream = balanced()
    indices = drawn(stream, 30)  # 60 draws a modality
    counts = Counter(indices)
    assert [counts[i] for i in range(2)] == [30, 30]
    assert [counts[i] for i in range(2, 14)] == [5] * 12
    assert [counts[i] for i in range(14, 19)] == [12] * 5
    polyps = [i for i in indices if 2 <= i < 14]
    epochs = [polyps[start : start + 12] for start in range(0, 60, 12)]
    assert all(sorted(epoch) == list(range(2, 14)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_epochs_count_for_each_sample_how_often_it_was_there_before():
    stream = balanced()
    seen = Counter()
    for step in range(20):
        part = stream.batch(step).labelled
        for index, epoch in zip(part.index.tolist(), part.epoch.tolist(), strict=True):
            assert epoch == seen[index]
            seen[index] += 1


def test_only_the_indices_given_are_drawn():
    stream = balanced(labelled=[0, 3, 4, 5], labelled_batch=4)
    assert set(drawn(stream, 8)) == {0, 3, 4, 5}
    assert Counter(drawn(stream, 6))[0] == 12  # half of all draws: the only fundus photograph


def test_batches_depend_on_seed_and_step_alone_and_on_no_worker():
    one, again, other = balanced(), balanced(), balanced(seed=5)
    assert same(vars(one.batch(7).labelled), vars(again.batch(7).labelled))
    assert drawn(one, 4) != drawn(other, 4)
    workers = balanced(workers=1)
    for batch, expected in zip(workers.iterate(2, 5), one.iterate(2, 5), strict=True):
        assert torch.equal(batch.labelled.index, expected.labelled.index)


def test_an_unlabelled_part_is_balanced_too():
    stream = balanced(labelled=[0, 2, 14], unlabelled=[1, 3, 4, 5, 15], unlabelled_batch=3)
    modality = [stream.dataset.modality[i] for i in stream.batch(1).unlabelled.index.tolist()]
    assert sorted(modality) == [0, 1, 2]


def test_draws_are_unbalanced_without_it():
    plain = BatchStream(mixture(), labelled=range(19), labelled_batch=6, seed=4)
    counts = Counter(plain.dataset.modality[i] for i in drawn(plain, 19))
    assert counts == {0: 12, 1: 72, 2: 30}


def test_other_data_sets_and_steps_are_refused():
    with pytest.raises(ValueError, match="of a MixtureDataset"):
        BalancedStream(Squares(), labelled=range(4), labelled_batch=2, seed=0)
    with pytest.raises(ValueError, match="step must be at least 0"):
        balanced().batch(-1)
