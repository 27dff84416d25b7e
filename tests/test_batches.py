"""Batch streams: a pure function of the step, whole epochs, and no unlabelled mask read."""

from collections import Counter

import pytest
import torch

from lib.data.batches import BatchStream


class Numbered:
    """Image i is filled with i / 100; masks of unlabelled images must not be asked for."""

    def __init__(self, count, labelled):
        self.names = [f"picture {i}" for i in range(count)]
        self.labelled = set(labelled)

    def image(self, i):
        return torch.full((3, 4, 4), i / 100)

    def mask(self, i):
        if i not in self.labelled:
            raise AssertionError(f"the mask of unlabelled image {i} was read")
        return torch.full((4, 4), i)


def stream(labelled=range(5), unlabelled=range(5, 12), count=12, **changes):
    options = {"labelled_batch": 2, "unlabelled_batch": 3, "seed": 0, **changes}
    dataset = Numbered(count, labelled)
    return BatchStream(dataset, labelled=labelled, unlabelled=unlabelled, **options)


def same(first, second):
    """Equality of all that two batches hold."""
    parts = [(first.labelled, second.labelled), (first.unlabelled, second.unlabelled)]
    return (first.epoch, first.seed, first.step) == (
        second.epoch,
        second.seed,
        second.step,
    ) and all(
        a.names == b.names
        and all(torch.equal(getattr(a, n), getattr(b, n)) for n in vars(a) if n != "names")
        for a, b in parts
    )


def test_what_a_batch_holds():
    batch = stream().batch(4)
    assert batch.labelled.image.shape == (2, 3, 4, 4)
    assert batch.labelled.mask.shape == (2, 4, 4)
    assert batch.labelled.mask.dtype == batch.labelled.index.dtype == torch.int64
    assert batch.unlabelled.image.shape == (3, 3, 4, 4)
    assert not hasattr(batch.unlabelled, "mask")
    assert (batch.seed, batch.step) == (0, 4)
    for part in (batch.labelled, batch.unlabelled):
        torch.testing.assert_close(part.image[:, 0, 0, 0], part.index / 100)
        assert part.names == [f"picture {i}" for i in part.index]
    assert torch.equal(batch.labelled.mask[:, 0, 0], batch.labelled.index)


def test_masks_of_unlabelled_images_are_never_read():
    dataset = Numbered(12, labelled=[0, 1])
    with pytest.raises(AssertionError, match="was read"):
        dataset.mask(7)
    batches = BatchStream(
        dataset,
        labelled=[0, 1],
        unlabelled=range(2, 12),
        labelled_batch=2,
        unlabelled_batch=4,
        seed=0,
    )
    seen = {i for batch in batches.iterate(0, 20) for i in batch.unlabelled.index.tolist()}
    assert seen == set(range(2, 12))


@pytest.mark.parametrize(("part", "size", "members"), [("labelled", 2, 5), ("unlabelled", 3, 7)])
def test_an_epoch_holds_each_sample_once_and_epochs_differ(part, size, members):
    """5 samples in twos and 7 in threes: batches straddle the borders of epochs."""
    steps = members * 4
    batches = [getattr(batch, part) for batch in stream().iterate(0, steps)]
    index = torch.cat([batch.index for batch in batches]).tolist()
    epoch = torch.cat([batch.epoch for batch in batches]).tolist()
    assert epoch == [place // members for place in range(steps * size)]
    orders = set()
    for start in range(0, len(index), members):
        order = index[start : start + members]
        assert len(set(order)) == members
        orders.add(tuple(order))
    assert len(orders) > size * 3  # size * 4 epochs; a few might coincide by chance


def test_the_epoch_of_a_batch_is_that_of_its_first_labelled_sample():
    batch = stream().batch(2)  # places 4 and 5 of five samples
    assert batch.labelled.epoch.tolist() == [0, 1]
    assert batch.epoch == 0


def test_fewer_labelled_images_than_places():
    batch = stream(labelled=range(4), labelled_batch=8).batch(3)
    assert Counter(batch.labelled.index.tolist()) == dict.fromkeys(range(4), 2)
    assert batch.labelled.epoch.tolist() == [6] * 4 + [7] * 4


def test_a_batch_depends_on_seed_and_step_alone():
    first, second = stream(), stream()
    later = second.batch(9)
    second.batch(1)
    assert same(first.batch(9), later)
    orders = {
        tuple(torch.cat([b.labelled.index for b in stream(seed=seed).iterate(0, 5)]).tolist())
        for seed in range(4)
    }
    assert len(orders) == 4


def test_workers_give_the_same_batches_and_leave_the_global_generator_alone():
    alone = list(stream().iterate(3, 9))
    state = torch.get_rng_state()
    prepared = list(stream(workers=2).iterate(3, 9))
    assert torch.equal(torch.get_rng_state(), state)
    assert [batch.step for batch in prepared] == [3, 4, 5, 6, 7, 8]
    assert all(same(a, b) for a, b in zip(alone, prepared, strict=True))


def test_without_unlabelled_images():
    batch = stream(unlabelled=(), unlabelled_batch=0).batch(0)
    assert batch.unlabelled is None
    assert batch.to("cpu").unlabelled is None


def test_to_moves_every_tensor():
    batch = stream().batch(0).to("meta")
    for part in (batch.labelled, batch.unlabelled):
        assert all(v.is_meta for v in vars(part).values() if isinstance(v, torch.Tensor))
    assert batch.labelled.names == stream().batch(0).labelled.names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled": []}, "labelled is empty"),
        ({"labelled": [0, 12]}, r"labelled has indices outside the data set of 12: \[12\]"),
        ({"unlabelled": [3, 3]}, "unlabelled has repeated indices"),
        ({"unlabelled": []}, "unlabelled_batch is 3 but unlabelled is empty"),
        ({"labelled_batch": 0}, "labelled_batch must be at least 1"),
    ],
)
def test_impossible_streams_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        stream(**changes)


def test_images_of_different_sizes_are_named():
    batches = stream()
    batches.dataset.image = lambda i: torch.zeros(3, 4, 4 + i)
    with pytest.raises(ValueError, match=r"images of one size, got picture .*size="):
        batches.batch(0)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        stream().batch(-1)
