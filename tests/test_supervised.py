"""The supervised baseline, evaluation, and the live curve that shows a run."""

import math
import sys

import pytest
import torch
from tiny_training import Squares, same, stream
from torch import nn

from lib.data.augment import weak_batch
from lib.display.progress import LiveCurve
from lib.training.evaluate import evaluate
from lib.training.history import History
from lib.training.loop import fit
from lib.training.method import Progress
from lib.training.supervised import Supervised, SupervisedConfig


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )


def supervised(**changes):
    return Supervised(SupervisedConfig.quick(**changes), network=network())


def test_defaults_are_the_documented_decisions():
    config = SupervisedConfig()
    assert (config.learning_rate, config.batch, config.bce, config.dice) == (1e-3, 16, 0.5, 1.0)
    (optimizer,) = supervised().optimizers()
    assert type(optimizer) is torch.optim.Adam
    method = supervised()
    rates = [method.learning_rate(Progress(step, 4)) for step in range(4)]
    assert rates == pytest.approx([1, 0.5 + 0.25 * math.sqrt(2), 0.5, 0.5 - 0.25 * math.sqrt(2)])


def test_quick_changes_only_the_cost():
    paper, quick = vars(SupervisedConfig()), vars(SupervisedConfig.quick(bce=2.0))
    differing = {key for key in paper if paper[key] != quick[key]}
    assert differing == {"batch", "steps", "size", "bce"}


def test_loss_is_half_cross_entropy_plus_dice_on_the_augmented_images():
    method = supervised()
    batch = stream().batch(1)
    total = method.step(batch, Progress(1, 10)).total
    labelled = batch.labelled
    images, masks = weak_batch(
        labelled.image,
        labelled.mask,
        seed=batch.seed,
        epoch=labelled.epoch,
        indices=labelled.index,
    )
    probability = method.network(images).softmax(1)[:, 1]
    truth = masks.float()
    entropy = nn.functional.binary_cross_entropy(probability, truth)
    overlap = 2 * (probability * truth).sum((1, 2)) + 1
    dice = 1 - overlap / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)
    torch.testing.assert_close(total, 0.5 * entropy + dice.mean())


def test_the_unlabelled_part_changes_nothing():
    with_it, without = supervised(), supervised()
    fit(with_it, stream(), steps=3, device="cpu", progress=False)
    alone = stream(unlabelled=(), unlabelled_batch=0)
    fit(without, alone, steps=3, device="cpu", progress=False)
    assert same(with_it.state_dict(), without.state_dict())


def test_it_learns_to_segment_unseen_squares():
    method = supervised(learning_rate=0.02)
    alone = stream(labelled=range(8), unlabelled=(), labelled_batch=4, unlabelled_batch=0)
    history = fit(method, alone, steps=60, device="cpu", progress=False)
    assert history.steps[-1]["total"] < 0.5 * history.steps[0]["total"]
    unseen = evaluate(method, Squares(), [8, 9, 10, 11])
    assert sum(row["dice"] for row in unseen) / 4 > 0.8


# -- evaluation ------------------------------------------------------------------------------------


def threshold(image):
    """Foreground where the mean of the channels is above 0.6."""
    bright = image.mean(1) - 0.6
    return torch.stack([-bright, bright], dim=1)


def test_evaluate_scores_each_image_in_order():
    data = Squares()
    rows = evaluate(threshold, data, [7, 2, 5], batch_size=2)
    assert [row["name"] for row in rows] == ["square-7", "square-2", "square-5"]
    for index, row in zip([7, 2, 5], rows, strict=True):
        predicted, truth = data.image(index).mean(0) > 0.6, data.mask(index) == 1
        overlap = (predicted & truth).sum().item()
        assert row["dice"] == pytest.approx(2 * overlap / (predicted.sum() + truth.sum()).item())
        assert 0.3 < row["dice"] < 1


def test_evaluate_does_not_depend_on_batches_and_leaves_the_mode():
    method = supervised()
    method.train()
    one, many = (evaluate(method, Squares(), range(5), batch_size=b) for b in (1, 5))
    assert one == many
    assert method.network[1].training
    assert method.network[1].num_batches_tracked == 0


def test_evaluate_of_a_bound_function_leaves_batch_norm_alone():
    """A method in training mode, as `fit` leaves it: its statistics are not those of a batch."""
    method, data = supervised().train(), Squares(6)
    with torch.no_grad():
        method.network[1].running_mean.fill_(0.3)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    expected = evaluate(method, data, range(6))
    assert evaluate(method.predict, data, range(6), batch_size=2) == expected
    assert evaluate(method.network.forward, data, range(6)) == expected
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert method.training


@pytest.mark.parametrize(
    ("predict", "indices", "message"),
    [
        (threshold, [], "no image to evaluate"),
        (lambda image: image, [3], r"square-3 are \(3, 16, 16\), expected .* \(2, 16, 16\)"),
        (lambda image: threshold(image)[..., ::2], [3], r"are \(2, 16, 8\)"),
    ],
)
def test_evaluate_refuses_what_it_cannot_score(predict, indices, message):
    with pytest.raises(ValueError, match=message):
        evaluate(predict, Squares(), indices)


# -- the live curve --------------------------------------------------------------------------------


def history_of(count):
    history = History()
    history.steps = [{"step": i, "total": 1 / i} for i in range(1, count + 1)]
    history.validations = [{"step": count, "dice": 0.5}]
    return history


class Shown:
    """Stands in for a notebook's output area."""

    def __init__(self, monkeypatch):
        self.pictures, self.displays = [], 0
        monkeypatch.setattr("IPython.display.display", self.display)
        monkeypatch.setitem(sys.modules, "ipykernel", sys)

    def display(self, image, display_id):
        self.displays += 1
        self.pictures.append(image.data)
        return self

    def update(self, image):
        self.pictures.append(image.data)


@pytest.fixture
def no_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


@pytest.mark.usefixtures("no_ci")
def test_live_curve_grows_in_a_notebook(monkeypatch):
    shown = Shown(monkeypatch)
    curve = LiveCurve(every=0)
    for count in (1, 2, 3):
        curve.update(history_of(count), 3)
    curve.close()
    assert len(shown.pictures) == 4
    assert all(picture.startswith(b"\x89PNG") for picture in shown.pictures)
    assert len(set(shown.pictures)) == 3  # the last is drawn again at the end


@pytest.mark.usefixtures("no_ci")
def test_live_curve_draws_no_more_often_than_asked(monkeypatch):
    shown = Shown(monkeypatch)
    curve = LiveCurve(every=3600)
    for count in (1, 2, 3):
        curve.update(history_of(count), 3)
    assert len(shown.pictures) == 1


@pytest.mark.usefixtures("no_ci")
def test_each_run_of_a_live_curve_has_a_picture_of_its_own(monkeypatch):
    shown = Shown(monkeypatch)
    curve = LiveCurve(every=3600)
    for _ in range(2):
        curve.update(history_of(1), 3)
        curve.close()
    assert len(shown.pictures) == 4  # both at the start and at the end
    assert shown.displays == 2


def test_live_curve_is_silent_under_ci(monkeypatch, capsys):
    shown = Shown(monkeypatch)
    monkeypatch.setenv("CI", "true")
    curve = LiveCurve(every=0)
    curve.update(history_of(1), 3)
    curve.close()
    assert shown.pictures == []
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("no_ci")
def test_live_curve_is_a_line_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    curve = LiveCurve()
    curve.update(history_of(2), 3)
    curve.close()
    assert "loss=0.5000" in capsys.readouterr().err
