"""What holds for every method of the semi-supervised family."""

import copy
import dataclasses

import pytest
import torch
from tiny_family import CLASSES, FAMILY, Poisoned, build, stream
from tiny_training import same

from lib.training.loop import fit
from lib.training.method import Progress, inference
from lib.training.semi_supervised import (
    SemiSupervisedConfig,
    cutmix_view,
    labelled_view,
    strong_view,
    unlabelled_view,
)


def run(method, steps=2, **changes):
    return fit(method, stream(**changes), steps=steps, device="cpu", progress=False)


@pytest.mark.parametrize("name", FAMILY)
def test_it_trains_on_four_classes_without_masks_of_unlabelled_images(name):
    with pytest.raises(AssertionError, match="was read"):  # the poison works
        Poisoned().mask(5)
    method = build(name)
    history = run(method)
    row = history.steps[-1]
    assert all(isinstance(value, float | int) for value in row.values())
    with inference(method):
        assert method.predict(torch.rand(2, 3, 16, 16)).shape == (2, CLASSES, 16, 16)


@pytest.mark.parametrize("name", FAMILY)
def test_the_loss_falls(name):
    """On one batch, again and again, with the unlabelled losses at their defaults."""
    # Dice alone, MC-Net+'s loss, has a far smaller gradient at first.
    method = build(name, learning_rate=1.0 if name == "MC-Net+" else 0.1)
    method.train()
    batch = stream(labelled_batch=4, unlabelled_batch=4).batch(0)
    (optimizer,) = method.optimizers()
    totals = []
    for step in range(6):
        torch.manual_seed(step)
        loss = method(batch, Progress(step, 100)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(Progress(step, 100))
        totals.append(loss.item())
    assert sum(totals[-2:]) < 0.97 * sum(totals[:2])


@pytest.mark.parametrize("name", FAMILY)
def test_unlabelled_images_change_what_is_learnt(name):
    """Each loss on unlabelled images reaches the network."""
    changes = {"threshold": 0.0} if name in ("FixMatch", "UniMatch") else {}
    changes |= {"pretraining": 0.0} if name == "BCP" else {}
    method = build(name, **changes)
    method.train()
    batch = stream().batch(0)

    def gradient(batch):
        torch.manual_seed(0)
        before = {k: v.clone() for k, v in method.state_dict().items()}
        method.zero_grad()
        method(batch, Progress(50, 100)).total.backward()
        method.load_state_dict(before)
        return next(p.grad.clone() for p in method.parameters() if p.grad is not None)

    other = dataclasses.replace(
        batch, unlabelled=dataclasses.replace(batch.unlabelled, image=1 - batch.unlabelled.image)
    )
    assert torch.equal(gradient(batch), gradient(batch))
    assert not torch.allclose(gradient(batch), gradient(other))


@pytest.mark.parametrize("name", FAMILY)
def test_a_checkpoint_carries_everything(name):
    """A method of other weights continues like the one whose state it was given."""
    first, second = build(name), build(name)
    run(first)
    second.load_state_dict(first.state_dict())
    for one, other in zip(first.optimizers(), second.optimizers(), strict=True):
        other.load_state_dict(copy.deepcopy(one.state_dict()))  # it shares its tensors
    for method in (first, second):
        method.train()
        method.zero_grad()
        torch.manual_seed(7)
        progress = Progress(2, 6)
        method(stream().batch(2), progress).total.backward()
        for optimizer in method.optimizers():
            optimizer.step()
        method.after_step(progress)
    assert same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("name", FAMILY)
def test_settings_are_the_family_s(name):
    config = build(name).config
    assert isinstance(config, SemiSupervisedConfig)
    (optimizer,) = build(name).optimizers()
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.SGD
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 1e-4)
    assert [build(name).learning_rate(Progress(step, 4)) for step in range(4)] == [
        1,
        0.75,
        0.5,
        0.25,
    ]
    quick = type(config).quick()
    differing = {f.name for f in dataclasses.fields(config)} - {
        f.name
        for f in dataclasses.fields(config)
        if getattr(config, f.name) == getattr(quick, f.name)
    }
    assert differing == {"labelled_batch", "unlabelled_batch", "steps", "size"}


@pytest.mark.parametrize("name", FAMILY)
def test_a_batch_without_unlabelled_images_is_refused(name):
    with pytest.raises(ValueError, match="unlabelled_batch of at least 1"):
        build(name).step(stream(unlabelled_batch=0).batch(0), Progress(0, 1))


@pytest.mark.parametrize("name", FAMILY)
def test_every_network_that_learns_is_a_student(name):
    """`student_logits` is differentiable and reaches every parameter that the optimiser has."""
    method = build(name)
    logits = method.student_logits(torch.rand(1, 3, 16, 16))
    assert {one.shape for one in logits} == {(1, CLASSES, 16, 16)}
    sum(one.sum() for one in logits).backward()
    (optimizer,) = method.optimizers()
    auxiliary = 3 * 2 if name == "URPC" else 0  # its deeper heads are no predictions
    missing = [p for p in optimizer.param_groups[0]["params"] if p.grad is None]
    assert len(missing) <= auxiliary


def test_negative_settings_are_refused():
    with pytest.raises(ValueError, match="learning_rate must be at least 0"):
        SemiSupervisedConfig(learning_rate=-1.0)
    with pytest.raises(ValueError, match="dice must be at least 0"):
        SemiSupervisedConfig(dice=-0.5)


def test_views_move_masks_and_keep_places():
    batch = stream().batch(2)
    images, masks = labelled_view(batch)
    assert images.shape == (4, 3, 16, 16)
    assert masks.shape == (4, 16, 16)
    assert not torch.equal(masks, batch.labelled.mask)
    weak = unlabelled_view(batch)
    assert torch.equal(weak, unlabelled_view(batch))
    first, second = (strong_view(weak, batch, view=name) for name in ("one", "two"))
    assert not torch.allclose(first, second)
    boxes = [cutmix_view(stream().batch(step)) for step in range(6)]
    assert boxes[0].shape == (4, 16, 16)
    assert 0 < torch.stack(boxes).float().mean() < 0.4
