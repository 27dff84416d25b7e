"""Crashes, full disks, damaged files: what a run must survive."""

import errno
import hashlib
import json
import os
import random
import signal
import time
import warnings

import pytest
import torch
from tiny_training import TwinsConfig, processes, quality, same, stream, twins

from lib.training import checkpoint as checkpoint_module
from lib.training.checkpoint import read_checkpoint
from lib.training.errors import CheckpointError
from lib.training.loop import fit

STEPS = 30


def run(directory=None, *, config=None, steps=STEPS, seed=3, progress=False, **changes):
    """One run of the tiny method; returns it with its history."""
    method = twins(config)
    settings = {"checkpoint_every": 4, "validate": quality, "validate_every": 6, **changes}
    history = fit(
        method,
        stream(seed),
        steps=steps,
        directory=directory,
        device="cpu",
        progress=progress,
        **settings,
    )
    return method, history


def digest(method, history):
    """SHA-256 of everything that a run leaves, time and memory apart."""
    sha = hashlib.sha256()
    states = [method.state_dict(), history.best_state]
    for state in [*states, *(o.state_dict() for o in method.optimizers())]:
        for name, value in flatten(state):
            sha.update(name.encode())
            is_tensor = isinstance(value, torch.Tensor)
            sha.update(value.numpy().tobytes() if is_tensor else repr(value).encode())
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.steps]
    sha.update(json.dumps([rows, history.validations, history.best_step]).encode())
    return sha.hexdigest()


def flatten(tree, prefix=""):
    if isinstance(tree, dict | list | tuple):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in pairs:
            yield from flatten(value, f"{prefix}/{key}")
    else:
        yield prefix, tree


# -- SIGKILL ---------------------------------------------------------------------------------------


class KillAt:
    """A reporter that kills the process after a step, when its checkpoint may just be written."""

    def __init__(self, step):
        self.step = step

    def update(self, history, total):
        if history.steps[-1]["step"] == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self):
        pass


def child(directory, where, step):
    """Run in a process of its own that dies as told; a survivor writes its digest to a file."""
    torch.set_num_threads(1)
    if where in ("half written", "before renaming", "after renaming"):
        die_while_saving(where, step)
    method, history = run(directory, progress=KillAt(step) if where == "after step" else False)
    directory.with_suffix(".sha256").write_text(f"{digest(method, history)} {len(history.steps)}")


def die_while_saving(where, step):
    """Make this process die at the renaming of the first checkpoint from ``step`` on."""
    replace = os.replace

    def dying_replace(source, target):
        if int(source.stem.split("-")[1]) >= step:
            if where == "half written":
                os.truncate(source, source.stat().st_size // 2)
            if where == "after renaming":
                replace(source, target)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = dying_replace


def test_killed_at_random_steps_and_resumed_ends_bit_identical(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"kill points drawn with seed {seed}")  # pytest shows it when the test fails
    points = sorted(random.Random(seed).sample(range(1, STEPS), 6))
    ways = ["after step", "half written", "after step", "before renaming", "after renaming", "any"]
    context = processes()

    def start(name, where="nowhere", step=0):
        process = context.Process(target=child, args=(tmp_path / name, where, step))
        process.start()
        return process

    start("whole").join(200)
    for where, step in zip(ways, points, strict=True):
        print(where, step)
        process = start("killed", where, step)
        if where == "any":
            wait_for_checkpoint(tmp_path / "killed", process)
            process.kill()
        process.join(200)
        # Only the last may be over before it is killed.
        assert process.exitcode == -signal.SIGKILL or (where == "any" and process.exitcode == 0)
    start("killed").join(200)

    whole, killed = ((tmp_path / f"{name}.sha256").read_text() for name in ("whole", "killed"))
    assert whole.endswith(f" {STEPS}")
    assert killed == whole


def wait_for_checkpoint(directory, process):
    before = set(directory.glob("*.pt"))
    while process.is_alive() and set(directory.glob("*.pt")) == before:
        time.sleep(0.001)


# -- resuming --------------------------------------------------------------------------------------


def test_checkpoints_and_validation_do_not_change_the_run(tmp_path):
    method, _ = run(tmp_path / "a")
    often, _ = run(tmp_path / "b", checkpoint_every=1, validate_every=1)
    bare, history = run(validate=None)
    assert same(method.state_dict(), often.state_dict())
    assert same(method.state_dict(), bare.state_dict())
    assert history.best_step is None


def test_a_finished_run_returns_at_once(tmp_path):
    method, history = run(tmp_path)
    again = twins()
    second = fit_again(again, tmp_path)
    assert same(vars(history), vars(second))
    assert same(method.state_dict(), again.state_dict())


def fit_again(method, directory):
    def forbidden(*_):
        raise AssertionError("a finished run made another step")

    method.step = forbidden
    return fit(
        method,
        stream(),
        steps=STEPS,
        directory=directory,
        checkpoint_every=4,
        validate=quality,
        validate_every=6,
        device="cpu",
        progress=False,
    )


def test_the_two_newest_checkpoints_are_kept(tmp_path):
    run(tmp_path)
    assert names(tmp_path) == ["checkpoint-00000028.pt", "checkpoint-00000030.pt"]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_two_processes_in_one_folder_leave_each_other_s_files(tmp_path):
    """Another's half-written file stays, one that nobody has touched for an hour goes."""
    young, old = (tmp_path / f"checkpoint-00000004-{pid}.tmp" for pid in (1, 2))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    run(tmp_path)
    assert young.exists()
    assert not old.exists()


def test_not_resuming_starts_over(tmp_path):
    run(tmp_path, steps=40)
    method, history = run(tmp_path, steps=8, resume=False)
    assert names(tmp_path) == ["checkpoint-00000004.pt", "checkpoint-00000008.pt"]
    assert digest(method, history) == digest(*run(steps=8))


class InterruptAt:
    """A reporter that presses Ctrl-C, or the scheduler's SIGTERM, after a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def update(self, history, total):
        if history.steps[-1]["step"] == self.step:
            os.kill(os.getpid(), self.number)

    def close(self):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_says_how_to_resume_and_changes_nothing(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 10 of 30 and saved in"):
        run(tmp_path, progress=InterruptAt(9, number))
    assert signal.getsignal(number) is before
    assert names(tmp_path)[-1] == "checkpoint-00000010.pt"
    assert digest(*run(tmp_path)) == digest(*run())


def test_interrupt_without_a_directory_says_so():
    with pytest.raises(KeyboardInterrupt, match="nothing is saved without a directory"):
        run(progress=InterruptAt(3, signal.SIGINT))


@pytest.mark.parametrize("step", [18, STEPS])
def test_a_validation_that_fails_loses_no_step(tmp_path, step):
    calls = []

    def fragile(method):
        calls.append(method)
        if len(calls) == step // 6:
            raise RuntimeError("out of memory")
        return quality(method)

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        run(tmp_path, validate=fragile)
    assert f"stopped after step {step} of 30 and saved in" in caught.value.__notes__[0]
    assert names(tmp_path)[-1] == f"checkpoint-{step:08d}.pt"
    assert digest(*run(tmp_path, validate=fragile)) == digest(*run())
    assert len(calls) == STEPS // 6 + 1


# -- damage ----------------------------------------------------------------------------------------


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:1000])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, empty])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    expected = digest(*run(tmp_path))
    damage(tmp_path / "checkpoint-00000030.pt")
    with pytest.warns(UserWarning, match=r"checkpoint-00000030.pt .*falling back"):
        method, history = run(tmp_path)
    assert digest(method, history) == expected
    assert same(read_checkpoint(tmp_path / "checkpoint-00000030.pt")["step"], 30)


@pytest.mark.filterwarnings("ignore:.*falling back")
def test_all_checkpoints_damaged_is_an_error(tmp_path):
    run(tmp_path)
    for path in tmp_path.iterdir():
        cut_off(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read .*resume=False"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 4}, r"seed: 3 in the checkpoint, 4 now"),
        ({"steps": 31}, r"steps: 30 in the checkpoint, 31 now"),
        (
            {"config": TwinsConfig(adam=0.02)},
            r"parameters\.adam: 0\.01 in the checkpoint, 0\.02 now",
        ),
        ({"max_grad_norm": 1.0}, r"max_grad_norm: None in the checkpoint, 1\.0 now"),
    ],
)
def test_another_runs_checkpoint_is_refused_by_what_differs(tmp_path, change, difference):
    run(tmp_path)
    with pytest.raises(CheckpointError, match=f"belongs to another run:\n  {difference}\n"):
        run(tmp_path, **change)


def test_other_data_are_refused(tmp_path):
    method = twins()
    fit(method, stream(), steps=2, directory=tmp_path, device="cpu", progress=False)
    other = stream(labelled=range(5))
    with pytest.raises(CheckpointError, match=r"data\.indices"):
        fit(method, other, steps=2, directory=tmp_path, device="cpu", progress=False)


# -- full disk -------------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while ``disk["full"]`` is set: half of the bytes arrive."""
    state = {"full": False}
    flush = os.fsync

    def fsync(descriptor):
        if state["full"]:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(checkpoint_module.os, "fsync", fsync)
    return state


class FullBetween:
    """A reporter that fills the disk after step ``start`` and frees it after step ``stop``."""

    def __init__(self, disk, start, stop):
        self.disk, self.start, self.stop = disk, start, stop

    def update(self, history, total):
        self.disk["full"] = self.start <= history.steps[-1]["step"] < self.stop

    def close(self):
        pass


def test_training_goes_on_while_the_disk_is_full_and_warns_once(tmp_path, disk):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method, history = run(tmp_path, progress=FullBetween(disk, 9, 21))
    told = [str(w.message) for w in caught if "No space left on device" in str(w.message)]
    assert len(told) == 1
    assert "step 12 could not be written" in told[0]
    assert digest(method, history) == digest(*run())
    assert names(tmp_path) == ["checkpoint-00000028.pt", "checkpoint-00000030.pt"]


def test_a_disk_full_to_the_end_keeps_the_checkpoints_from_before(tmp_path, disk):
    with (
        pytest.warns(UserWarning, match="No space left"),
        pytest.raises(CheckpointError, match="last checkpoint could not be written") as caught,
    ):
        run(tmp_path, progress=FullBetween(disk, 9, 99))
    assert len(caught.value.history.steps) == STEPS
    assert names(tmp_path) == ["checkpoint-00000004.pt", "checkpoint-00000008.pt"]
    disk["full"] = False
    assert digest(*run(tmp_path)) == digest(*run())


def test_state_that_could_not_be_loaded_is_refused_at_the_first_checkpoint(tmp_path):
    method = twins()
    method.get_extra_state = lambda: {"seen": tmp_path}  # a Path would need unpickling of code
    with pytest.raises(CheckpointError, match="could not be resumed: get_extra_state"):
        fit(method, stream(), steps=3, directory=tmp_path, device="cpu", progress=False)
    assert names(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot create the folder .*file"):
        run(tmp_path / "file" / "run")
