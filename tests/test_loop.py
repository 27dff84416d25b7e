"""What a run does when nothing goes wrong, and how it says that something did."""

import json
import math
import os
import socket
import sys
from unittest.mock import Mock

import pytest
import torch
from tiny_training import Squares, Twins, processes, quality, same, stream, twins
from torch import nn

from lib.training import devices, reporting
from lib.training.devices import open_fabric
from lib.training.errors import TrainingError
from lib.training.evaluate import evaluate
from lib.training.history import History
from lib.training.loop import fit
from lib.training.method import Losses, Method, Progress, inference


class Line(Method):
    """One weight w, plain gradient descent on a loss that can be followed by hand."""

    def __init__(self, loss, optimizers=1):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0]))
        self.loss = loss
        self._optimizers = [torch.optim.SGD([self.w], lr=0.1) for _ in range(optimizers)]
        self.calls = []

    def optimizers(self):
        return self._optimizers

    def learning_rate(self, progress):
        return 1 - progress.fraction

    def before_step(self, progress, stream):
        self.calls.append(("before", progress.step, self.w.item()))

    def after_step(self, progress):
        self.calls.append(("after", progress.step, self.w.item()))

    def step(self, batch, progress):
        return Losses(total=self.loss(self.w, batch, progress).sum(), note=7)


def train(method, *, steps, **changes):
    return fit(method, stream(), steps=steps, device="cpu", progress=False, **changes)


# -- a run by hand ---------------------------------------------------------------------------------


def test_gradient_descent_by_hand():
    # loss w^2, rates .1 and .05: w = 1 -> 1 - .1 * 2 = .8 -> .8 - .05 * 1.6 = .72
    method = Line(lambda w, *_: w**2)
    history = train(method, steps=2)
    assert method.w.item() == pytest.approx(0.72)
    frame = history.frame()
    assert frame.index.tolist() == [1, 2]
    assert frame["total"].tolist() == pytest.approx([1, 0.64])
    assert frame["learning_rate"].tolist() == pytest.approx([0.1, 0.05])
    assert frame["note"].tolist() == [7, 7]
    assert [(name, step) for name, step, _ in method.calls] == [
        ("before", 0),
        ("after", 0),
        ("before", 1),
        ("after", 1),
    ]
    assert [w for *_, w in method.calls] == pytest.approx([1, 0.8, 0.8, 0.72])
    assert 0 < frame["seconds"][1] <= frame["seconds"][2] == history.seconds
    assert history.peak_memory_mb > 50  # torch alone is larger


def test_every_optimiser_steps_at_its_own_rate():
    method = Line(lambda w, *_: w)
    method._optimizers = [torch.optim.SGD([method.w], lr=0.1), torch.optim.SGD([method.w], lr=0.01)]
    history = train(method, steps=2)
    # gradient 1: w = 1 - (.1 + .01) - (.05 + .005)
    assert method.w.item() == pytest.approx(0.835)
    assert history.frame()["learning_rate_2"].tolist() == pytest.approx([0.01, 0.005])


def test_gradient_norm_is_limited():
    method = Line(lambda w, *_: 100 * w)
    train(method, steps=1, max_grad_norm=0.5)
    assert method.w.item() == pytest.approx(1 - 0.1 * 0.5, abs=1e-5)


def test_a_second_run_of_the_same_method_starts_at_the_full_rate_again():
    method = Line(lambda w, *_: w**2)
    train(method, steps=2)
    assert train(method, steps=2).frame()["learning_rate"].tolist() == pytest.approx([0.1, 0.05])


def test_a_run_depends_on_its_seed_only():
    first, second, other = twins(), twins(), twins()
    train(first, steps=4)
    torch.manual_seed(99)
    torch.rand(5)
    train(second, steps=4)
    fit(other, stream(seed=4), steps=4, device="cpu", progress=False)
    assert same(first.state_dict(), second.state_dict())
    assert not same(first.state_dict(), other.state_dict())


def test_training_learns():
    method = twins()
    before = evaluate(method, Squares(), [10, 11])
    history = train(method, steps=80)
    after = evaluate(method, Squares(), [10, 11])
    assert history.steps[-1]["total"] < 0.6 * history.steps[0]["total"]
    assert min(row["dice"] for row in after) > max(row["dice"] for row in before) + 0.1


# -- validation ------------------------------------------------------------------------------------


def test_best_weights_are_the_first_of_the_highest_score():
    scores = iter([0.2, 0.7, 0.7, math.nan, 0.5])
    method = Line(lambda w, *_: w**2)
    weights = []

    def validate(method):
        weights.append(method.w.item())
        return {"dice": next(scores), "iou": 0.9}

    history = train(method, steps=5, validate=validate, validate_every=1)
    assert (history.best_step, history.best_score) == (2, 0.7)
    assert history.best_state["w"].item() == weights[1] != method.w.item()
    assert history.frame()["val_iou"].tolist() == [0.9] * 5
    method.load_state_dict(history.best_state)
    assert method.w.item() == weights[1]


def test_validation_every_so_often_and_at_the_end():
    history = train(twins(), steps=7, validate=quality, validate_every=3)
    assert [row["step"] for row in history.validations] == [3, 6, 7]
    assert history.frame()["val_dice"].isna().tolist() == [True, True, False] * 2 + [False]


def test_validation_sees_evaluation_mode_without_gradients_and_training_goes_on_in_its_own_modes():
    modes = []

    class Frozen(Twins):
        def train(self, mode=True):
            super().train(mode)
            self.teacher.eval()
            return self

        def step(self, batch, progress):
            modes.append((self.a.training, self.teacher.training))
            return super().step(batch, progress)

    def validate(method):
        modes.append((method.a.training, method.teacher.training, torch.is_grad_enabled()))
        return {"dice": 0.5}

    train(Frozen(), steps=2, validate=validate, validate_every=1)
    assert modes == [(True, False), (False, False, False)] * 2


def test_inference_restores_modes_after_an_error():
    method = twins()
    method.teacher.eval()

    def fail():
        with inference(method):
            assert not method.a.training
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert method.a.training
    assert not method.teacher.training


def test_a_score_that_validation_does_not_return_is_named():
    with pytest.raises(KeyError, match=r"\['dice'\] without the score 'iou'"):
        train(twins(), steps=2, validate=quality, score="iou")


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_names_and_checkpoint(tmp_path, bad):
    def loss(w, batch, progress):
        return w * (bad if progress.step == 5 else 1)

    method = Line(loss)
    batch = stream().batch(5)
    with pytest.raises(
        TrainingError, match=r"not finite at step 6 of 9: total (nan|inf)"
    ) as caught:
        train(method, steps=9, directory=tmp_path, checkpoint_every=2)
    message = str(caught.value)
    assert all(name in message for name in batch.labelled.names + batch.unlabelled.names)
    assert str(tmp_path / "checkpoint-00000004.pt") in message
    assert (tmp_path / "checkpoint-00000004.pt").exists()
    assert math.isfinite(method.w.item())
    assert len(caught.value.history.steps) == 5


def test_broken_weights_never_push_out_good_checkpoints(tmp_path):
    # The loss is finite at step 4, its gradient is not: 0 * sqrt'(0).
    def loss(w, batch, progress):
        return torch.sqrt((w - w.detach()).square() + (progress.step != 3)) * (progress.step + 1)

    with pytest.raises(TrainingError, match=r"after step 4 the weights are not finite \(w"):
        train(Line(loss), steps=9, directory=tmp_path, checkpoint_every=1)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["checkpoint-00000002.pt", "checkpoint-00000003.pt"]


@pytest.mark.parametrize("where", ["weights", "buffer"])
def test_broken_weights_are_no_result_without_a_folder_either(where):
    def loss(w, batch, progress):
        return torch.sqrt((w - w.detach()).square() + (progress.step != 1)) * (progress.step + 1)

    method = Line(loss if where == "weights" else lambda w, batch, progress: (w**2).sum())
    if where == "buffer":
        method.register_buffer("running_mean", torch.tensor(torch.nan))
    with pytest.raises(TrainingError, match="after step 2 the weights are not finite"):
        train(method, steps=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 2, "checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"steps": 2, "precision": "8-bit"}, "precision must be one of 32-true"),
        ({"steps": 2, "devices": 3}, "labelled_batch 2 does not divide by 3 devices"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        train(twins(), **changes)


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not available"):
        open_fabric(device="cuda")


@pytest.mark.parametrize("name", ["gpu", ""])
def test_a_device_that_does_not_exist_is_named(name):
    with pytest.raises(ValueError, match=f'device must be "auto".* not {name!r}'):
        open_fabric(device=name)


def test_a_gpu_that_only_imitates_bfloat16_warns(monkeypatch):
    monkeypatch.setattr(devices, "find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(devices, "Fabric", Mock())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    with pytest.warns(UserWarning, match=r'Tesla T4 .* precision="16-mixed" is faster'):
        open_fabric(device="cuda", precision="bf16-mixed")


def test_the_cpu_may_have_a_number():
    assert open_fabric(device="cpu:0").device.type == "cpu"


# -- precision and devices -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]
)
def test_mixed_precision_computes_in_16_bits_from_images_in_32(precision, dtype):
    seen = []

    class Watched(Twins):
        def step(self, batch, progress):
            seen.append((batch.labelled.image.dtype, self.a(batch.labelled.image).dtype))
            return super().step(batch, progress)

    method = Watched()
    history = train(method, steps=3, precision=precision)
    assert seen[0] == (torch.float32, dtype)
    assert all(p.dtype == torch.float32 for p in method.parameters())
    assert math.isfinite(history.steps[-1]["total"])


def test_all_optimisers_of_a_step_share_one_loss_scale(monkeypatch):
    # A scale that grows after every step: had the first optimiser's step changed it, the second
    # would divide its gradients by twice the scale that they carry.
    growing = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda device: growing(device, init_scale=8.0, growth_interval=1)
    )
    method = Line(lambda w, *_: w)
    method.v = nn.Parameter(torch.tensor([1.0]))
    method.loss = lambda w, *_: w + method.v
    method._optimizers = [torch.optim.SGD([p], lr=0.1) for p in (method.w, method.v)]
    train(method, steps=1, precision="16-mixed")
    assert method.w.item() == pytest.approx(0.9)
    assert method.v.item() == pytest.approx(0.9)


def test_what_cannot_be_clipped_in_16_bits_is_refused_before_a_step():
    method = Line(lambda w, *_: w)
    method._optimizers = [torch.optim.Adam([method.w], lr=0.1, fused=True)]
    with pytest.raises(ValueError, match=r"cannot clip .* train in bf16-mixed"):
        train(method, steps=1, precision="16-mixed", max_grad_norm=1.0)
    train(method, steps=1, precision="16-mixed")
    train(method, steps=1, precision="bf16-mixed", max_grad_norm=1.0)


def mean_index(w, batch, progress):
    return w * batch.labelled.index.float().mean()


def one_of_two(rank, port, file):
    """What Fabric's launcher starts on each device: the same script, told its rank."""
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank), WORLD_SIZE="2", NODE_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    method = Line(mean_index)
    history = train(method, steps=2, devices=2)
    file.write_text(json.dumps([method.w.item(), *(row["total"] for row in history.steps)]))


def test_two_processes_share_a_batch_and_agree(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [tmp_path / "0.json", tmp_path / "1.json"]
    started = [
        processes().Process(target=one_of_two, args=(rank, port, file))
        for rank, file in enumerate(files)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(100)
    alone = Line(mean_index)
    history = train(alone, steps=2)
    expected = [alone.w.item(), *(row["total"] for row in history.steps)]
    # Each process sees one of the two images, so a process on its own would get other numbers.
    assert [json.loads(file.read_text()) for file in files] == [pytest.approx(expected)] * 2


# -- reporters and helpers -------------------------------------------------------------------------


def test_a_reporter_hears_every_step_and_the_end():
    class Listener:
        def __init__(self):
            self.heard = []

        def update(self, history, total):
            self.heard.append((history.steps[-1]["step"], total))

        def close(self):
            self.heard.append("closed")

    listener = Listener()
    fit(twins(), stream(), steps=3, device="cpu", progress=listener)
    assert listener.heard == [(1, 3), (2, 3), (3, 3), "closed"]


def history_of_two_steps():
    history = History()
    history.steps = [{"step": 1, "total": 2.0}]
    return history


@pytest.mark.parametrize("ci", [True, False])
def test_the_progress_line_is_silent_under_ci(monkeypatch, capsys, ci):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", "true")
    line = reporting.ProgressLine()
    line.update(history_of_two_steps(), 4)
    line.close()
    assert ("loss=2.0000" in capsys.readouterr().err) is not ci


def test_progress_fraction():
    assert [Progress(step, 4).fraction for step in range(4)] == [0, 0.25, 0.5, 0.75]
