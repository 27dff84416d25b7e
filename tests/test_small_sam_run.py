"""The pretraining command: budget by the clock, a moving pool of images, resumption."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.data.engine import VERSION
from lib.data.generated import GeneratedStream, ImagePool
from lib.sam.small import build_small_sam
from lib.training.clock import Clock
from lib.training.errors import CheckpointError
from lib.training.method import Progress
from lib.training.small_sam import SmallSamConfig
from lib.training.small_sam_card import save_small_sam
from lib.training.small_sam_ingredients import PROMPTS, RESTYLED, compare, measure
from lib.training.small_sam_objects import generated_objects
from lib.training.small_sam_run import (
    CURVE,
    MinuteLine,
    TimedPretraining,
    TimedStream,
    main,
    pretrain,
)
from lib.training.small_sam_soup import mix


@pytest.fixture
def now(monkeypatch):
    """A wall clock that is set by hand."""
    time = {"now": 100.0}
    stub = SimpleNamespace(monotonic=lambda: time["now"], process_time=lambda: 0.0)
    monkeypatch.setattr("lib.training.clock.time", stub)
    return time


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("lib.data.generated.CHUNK", 2)


def tiny():
    torch.manual_seed(0)
    return build_small_sam(width=24, depth=1, heads=2, prompt_width=32)


def test_the_clock_goes_on_after_an_interruption(now):
    clock = Clock(minutes=2)
    now["now"] += 30
    assert clock.fraction == pytest.approx(0.25)
    saved = clock.state_dict()
    now["now"] += 1000  # killed and started again later
    again = Clock(minutes=2)
    again.load_state_dict(saved)
    now["now"] += 30
    assert again.fraction == pytest.approx(0.5)
    now["now"] += 500
    assert again.fraction == 1
    with pytest.raises(ValueError, match="minutes must be positive"):
        Clock(minutes=0)


def test_the_learning_rate_follows_the_clock_not_the_steps(now):
    clock = Clock(minutes=10)
    method = TimedPretraining(SmallSamConfig(warmup=0.0), sam=tiny(), clock=clock)
    rates = []
    for _ in range(3):
        rates.append(method.learning_rate(Progress(1000, 10**7)))
        now["now"] += 300
    assert rates == pytest.approx([1, 0.505, 0.01])  # a cosine from 1 to the floor
    assert method.learning_rate(Progress(4, 10**7)) == pytest.approx(0.1 * 0.01)


def test_the_clock_is_part_of_a_checkpoint(now):
    first = TimedPretraining(SmallSamConfig(), sam=tiny(), clock=Clock(minutes=10))
    now["now"] += 300
    state = first.state_dict()
    second = TimedPretraining(SmallSamConfig(), sam=tiny(), clock=Clock(minutes=10))
    second.load_state_dict(state)
    assert second.clock.fraction == pytest.approx(0.5)


def test_the_stream_ends_with_its_share_of_the_time(tmp_path, small_chunks, now):
    pool = ImagePool(tmp_path, seed=3, count=4)
    stream = TimedStream(pool, clock=Clock(minutes=1), share=0.5, batch=2, size=128)
    steps = []
    for batch in stream.iterate(0, 100):
        steps.append(batch.step)
        now["now"] += 10
    assert steps == [0, 1, 2]  # 10, 20, 30 seconds of 60


def test_new_images_enter_the_pool_and_batches_depend_on_the_step_alone(tmp_path, small_chunks):
    """Iterated with a worker that draws ahead, and each batch alone in an empty pool: equal."""
    settings = {"batch": 2, "size": 128, "seed": 1, "fresh": 0.5, "offset": 1}
    pool = ImagePool(tmp_path / "a", seed=3, count=4)
    stream = GeneratedStream(pool, **settings)
    assert [stream.first(step) for step in range(5)] == [1, 1, 3, 3, 5]
    batches = list(stream.iterate(0, 5))
    assert sorted(pool.held - 1) == [5, 6, 7, 8]
    assert [b.labelled.index.min().item() >= stream.first(b.step) for b in batches] == [True] * 5
    alone = GeneratedStream(ImagePool(tmp_path / "b", seed=3, count=4), **settings)
    for step in (4, 2):
        assert torch.equal(alone.batch(step).labelled.image, batches[step].labelled.image)
    resumed = list(GeneratedStream(pool, **settings).iterate(3, 5))
    assert torch.equal(resumed[0].labelled.image, batches[3].labelled.image)
    assert torch.equal(resumed[1].labelled.image, batches[4].labelled.image)


def test_a_share_of_the_images_is_restyled_and_their_masks_stay(tmp_path):
    pool = ImagePool(tmp_path, seed=3, count=4).fill(workers=1, progress=False)
    plain, half, all_of_them = (
        GeneratedStream(pool, batch=40, seed=1, restyled=share) for share in (0.0, 0.5, 1.0)
    )
    drawn, restyled = plain.batch(0).labelled, all_of_them.batch(0).labelled
    first = slice(1)  # one generator draws for the batch: further images are other ones
    assert torch.equal(drawn.mask[first], restyled.mask[first])
    assert not torch.allclose(drawn.image[first], restyled.image[first], atol=0.01)
    hidden = GeneratedStream(ImagePool(tmp_path, seed=3, count=4, hidden=0.4), batch=40, seed=1)
    streams = (plain, half, all_of_them, hidden)
    assert len({stream.fingerprint() for stream in streams}) == 4
    assert not torch.equal(hidden.batch(0).labelled.image[first], drawn.image[first])
    with pytest.raises(ValueError, match="restyled must be in"):
        GeneratedStream(pool, batch=1, restyled=50)


def test_a_run_goes_through_both_sizes_and_is_read_back(tmp_path, monkeypatch):
    """One step of each size, a card; the same call again trains nothing."""
    monkeypatch.setattr("lib.training.small_sam_run.CHECKPOINT_EVERY", 1)
    settings = {
        "small_share": 0.5, "pool": 4, "fresh": 0.5, "restyled": 0.25, "hidden": 0.4,
        "config": SmallSamConfig(prompts=2, rounds=1, batch=1), "progress": False, "held_out": 2,
        "build": tiny,
    }  # fmt: skip
    sam, facts = pretrain(tmp_path, minutes=1e-4, **settings)
    assert sam.image_encoder.img_size == 256
    assert [row["px"] for row in facts["curve"]] == [128, 256]
    assert [row["images seen"] for row in facts["curve"]] == [2, 3]
    assert f"version {VERSION}" in facts["training"]["Data"]
    assert "4 images, seen 0.8 times" in facts["training"]["Data"]
    assert facts["training"]["Restyled"].startswith("25% of the images")
    assert facts["training"]["Hardly visible"] == "40% of the single objects"
    again, same = pretrain(tmp_path, minutes=1e-4, **settings)
    assert same == facts
    expected = sam.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    save_small_sam(sam, tmp_path / "card", facts)
    assert json.loads((tmp_path / "card/small_sam.json").read_text())["curve"] == facts["curve"]
    others = {"seed": 7, "small_share": 0.6, "minutes": 0.01, "cpu_time": True, "restyled": 1.0}
    for name, value in others.items():
        with pytest.raises(ValueError, match=f"128px.pt is of a run with another {name}: give"):
            pretrain(tmp_path, **{"minutes": 1e-4, **settings, name: value})
    saved = torch.load(tmp_path / "128px.pt", weights_only=True)
    assert saved["settings"].pop("restyled") == 0.25  # as by versions that knew no such thing
    torch.save(saved, tmp_path / "128px.pt")
    with pytest.raises(ValueError, match="with another restyled"):
        pretrain(tmp_path, minutes=1e-4, **settings)
    (tmp_path / "256px.pt").unlink()
    shutil.rmtree(tmp_path / "256px")
    pretrain(tmp_path, minutes=1e-4, **{**settings, "restyled": 0.0})
    (tmp_path / "128px.pt").unlink()
    with pytest.raises(CheckpointError, match="minutes"):  # killed in the first stage
        pretrain(tmp_path, minutes=0.01, **settings)


def test_the_log_shows_every_evaluation_once(now, capsys):
    """Evaluations rarely fall on a full minute; the next line brings them."""
    clock = Clock(minutes=10)
    line = MinuteLine(clock, 128)
    row = {"step": 7, "total": 1, "box_iou": 0, "corrected_iou": 0, "learning_rate": 0}
    found = {"step": 5} | dict.fromkeys(CURVE, 0.5)
    history = SimpleNamespace(steps=[row], validations=[found])
    line.update(history, None)
    assert capsys.readouterr().out == ""  # no minute has passed
    for _ in range(2):
        now["now"] += 61
        line.update(history, None)
    assert capsys.readouterr().out.count("held out, step 5") == 1


def test_a_share_of_everything_at_128_px_is_refused(tmp_path):
    with pytest.raises(ValueError, match="small_share"):
        pretrain(tmp_path, minutes=1, small_share=1.0)


def test_a_pool_with_a_gap_is_filled(tmp_path, small_chunks):
    pool = ImagePool(tmp_path, seed=3, count=4).fill(workers=1, progress=False)
    before = np.array(pool.images)
    pool.held[1] = 0  # killed while this slot was written
    pool.images[1] = 0
    again = ImagePool(tmp_path, seed=3, count=4)
    assert again.missing(0).tolist() == [1]
    assert np.array_equal(again.fill(workers=1, progress=False).images, before)


def test_what_an_ingredient_adds_by_hand():
    """Two seeds, two images: differences are taken image by image."""

    def one(*values):
        return {"set": {"tight_box": list(values)}}

    scores = {
        (0, ()): one(0.8, 0.6), (0, ("hidden",)): one(0.7, 0.6),
        (1, ()): one(0.9, 0.5), (1, ("hidden",)): one(0.6, 0.5),
    }  # fmt: skip
    scores |= {(seed, (RESTYLED,)): found for (seed, without), found in scores.items() if without}
    found = compare(scores, ("hidden", RESTYLED))
    assert found["complete"] == {"set": {"tight_box": 0.7}}
    added = found["adds"]["hidden"]["set"]["tight_box"]
    assert added["by_seed"] == [0.05, 0.15]
    assert added["mean"] == 0.1
    assert added["standard_error"] == 0.1  # of 0.2 and 0: deviation 0.1414, over root 2
    assert found["adds"][RESTYLED]["set"]["tight_box"]["by_seed"] == [-0.05, -0.15]


def test_ingredients_are_measured_and_read_back(tmp_path, monkeypatch):
    streams = []

    class Noted(GeneratedStream):
        def __init__(self, pool, **settings):
            streams.append((pool.without, settings["restyled"]))
            super().__init__(pool, **settings)

    monkeypatch.setattr("lib.training.small_sam_ingredients.GeneratedStream", Noted)
    objects = {"set": generated_objects(2)[:2]}
    settings = {
        "steps": 1, "seeds": (0,), "pool": 2, "ingredients": ("hidden", RESTYLED), "start": tiny,
        "config": SmallSamConfig(prompts=2, rounds=1, batch=1), "progress": False,
    }  # fmt: skip
    found = measure(tmp_path, objects, **settings)
    assert set(found["adds"]["hidden"]["set"]) == set(PROMPTS)
    names = ["seed-0", "seed-0-hidden", "seed-0-restyled"]
    assert sorted(p.stem for p in tmp_path.glob("*.json")) == names
    assert measure(tmp_path, objects, **settings) == found
    assert streams == [((), 0.0), (("hidden",), 0.0), ((), 0.5)]
    with pytest.raises(ValueError, match=r"seed-0\.json is of a run with another steps: give"):
        measure(tmp_path, objects, **{**settings, "steps": 2})
    with pytest.raises(ValueError, match="with another images of set"):
        measure(tmp_path, {"set": generated_objects(3)[:2]}, **settings)


def test_weights_are_mixed_on_a_straight_line():
    """From 1 a quarter of the way to 5 is 2."""
    first, second = tiny(), tiny()
    for sam, value in ((first, 1.0), (second, 5.0)):
        for weights in sam.parameters():
            torch.nn.init.constant_(weights, value)
    mix(first, second, share=0.25)
    assert all((weights == 2).all() for weights in first.parameters())
    with pytest.raises(ValueError, match="share must be in"):
        mix(first, second, share=1.5)


def test_a_share_of_nothing_cannot_be_kept(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--keep", "0.5"])
    assert "--keep needs --start" in capsys.readouterr().err
