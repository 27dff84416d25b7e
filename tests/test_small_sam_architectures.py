"""Small SAMs with other image encoders, and their comparison at an equal budget."""

import json
from types import SimpleNamespace

import pytest
import torch

from lib.sam.hybrid import HybridEncoder, build_hybrid_sam
from lib.sam.resize import resize_positions
from lib.sam.small import build_small_sam
from lib.training import small_sam_architectures
from lib.training.clock import Clock
from lib.training.small_sam import SmallSamConfig, SmallSamPretraining
from lib.training.small_sam_architectures import measure
from lib.training.small_sam_objects import generated_objects

NAME = "mobilenetv3_small_050"  # the smallest of timm's with features at stride 16


def hybrid():
    torch.manual_seed(0)
    return build_hybrid_sam(NAME, prompt_width=32)


def vit():
    torch.manual_seed(0)
    return build_small_sam(width=24, depth=1, heads=2, prompt_width=32)


@pytest.mark.parametrize("size", [128, 256])
def test_a_hybrid_gives_embeddings_where_the_vit_gives_them(size):
    sam = resize_positions(hybrid(), size)
    embedding = sam.image_encoder(torch.rand(2, 3, size, size))
    assert embedding.shape == (2, 32, size // 16, size // 16)
    assert sam.prompt_encoder.image_embedding_size == (size // 16, size // 16)
    assert sam.image_encoder.img_size == size


def test_a_network_without_stride_16_is_refused():
    with pytest.raises(ValueError, match="none at 16"):
        HybridEncoder("convmixer_768_32", out_chans=32)


def test_the_average_takes_over_the_statistics_of_batch_norm():
    sam = resize_positions(hybrid(), 32)
    method = SmallSamPretraining(SmallSamConfig(prompts=2, rounds=1, batch=2), sam=sam).train()
    method.sam.image_encoder(torch.rand(2, 3, 32, 32))
    method.after_step(SimpleNamespace(step=0))
    live, kept = (dict(s.image_encoder.named_buffers()) for s in (method.sam, method.average))
    moved = [name for name in live if name.endswith("running_mean")]
    assert moved
    assert all(torch.equal(live[name], kept[name]) for name in moved)
    assert any(live[name].abs().max() > 0 for name in moved)


def test_a_budget_of_cpu_time_ignores_the_wall_clock(monkeypatch):
    times = {"wall": 0.0, "cpu": 0.0}
    stub = SimpleNamespace(monotonic=lambda: times["wall"], process_time=lambda: times["cpu"])
    monkeypatch.setattr("lib.training.clock.time", stub)
    clock = Clock(1, cpu_time=True)
    times.update(wall=600.0, cpu=15.0)
    assert clock.fraction == pytest.approx(0.25)


def test_architectures_are_trained_scored_and_timed(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.data.generated.CHUNK", 2)
    images, masks = generated_objects(2)[:2]
    report = measure(
        tmp_path, {"generated": (images, masks)}, minutes=0.002,
        architectures={"vit": vit, "hybrid": hybrid}, pool=2, fresh=0.0, held_out=2,
        config=SmallSamConfig(prompts=2, rounds=1, batch=1), progress=False,
    )  # fmt: skip
    assert list(report) == ["vit", "hybrid"]
    for found in report.values():
        assert set(found["accuracy"]["generated"]) >= {"tight_box", "clicks_3"}
        assert found["encoder_ms"] > 0
        assert found["decoder_ms"] > 0
        assert found["megabytes"] == pytest.approx(4e-6 * found["parameters"], abs=0.15)
        assert {row["px"] for row in found["curve"]} == {128, 256}


def test_the_origin_is_asked_before_the_measurement(tmp_path, monkeypatch):
    asked = []

    def measured(*arguments, **settings):
        assert asked
        return {}

    module, images = small_sam_architectures, torch.zeros(1, 3, 8, 8)
    monkeypatch.setattr(module, "provenance", lambda: asked.append(1) or {"commit": "abc"})
    monkeypatch.setattr(module, "generated_objects", lambda count: (images, images[:, 0] > 0))
    monkeypatch.setattr(module, "measure", measured)
    path = tmp_path / "report.json"
    module.main(["--output", str(tmp_path), "--results", str(path)])
    assert json.loads(path.read_text())["commit"] == "abc"
