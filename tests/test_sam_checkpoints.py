"""Loading a SAM: what fits is loaded exactly, what does not fit says what it is."""

import hashlib
import os
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import Attention
from tiny_sam import tiny_sam

from lib.sam import checkpoints
from lib.sam.attention import FusedAttention
from lib.sam.checkpoint_files import WeightsError, read_state_dict
from lib.sam.checkpoints import load_sam, sam_label
from lib.sam.small import WEIGHTS


@pytest.fixture
def tiny_vit_b(monkeypatch):
    """Let "vit_b" stand for a tiny SAM, so that a whole checkpoint is small."""
    monkeypatch.setitem(sam_model_registry, "vit_b", tiny_sam)
    return tiny_sam(seed=7)


def saved(path, content):
    torch.save(content, path)
    return path


def empty_state(name):
    """The state dict of an official model, each tensor one stored number: a file of some kB."""
    with torch.device("meta"):
        shapes = sam_model_registry[name]().state_dict()
    return {key: torch.zeros(1).expand(value.shape) for key, value in shapes.items()}


def test_weights_arrive_in_every_format_and_wrapper(tiny_vit_b, tmp_path):
    state = tiny_vit_b.state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    files = [
        saved(tmp_path / "plain.pth", state),
        saved(tmp_path / "medsam.pth", {"model": parallel, "epoch": 3, "optimizer": {}}),
        saved(tmp_path / "half.pth", {k: v.double() for k, v in state.items()}),
    ]
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "s.safetensors")
    for path in [*files, tmp_path / "old.pth", tmp_path / "s.safetensors"]:
        sam = load_sam("vit_b", path)
        loaded = sam.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state), path
        assert not sam.training
        assert {parameter.dtype for parameter in sam.parameters()} == {torch.float32}


def test_loaded_weights_do_not_depend_on_the_file_any_more(tiny_vit_b, tmp_path):
    path = saved(tmp_path / "a.pth", tiny_vit_b.state_dict())
    sam = load_sam("vit_b", path)
    os.truncate(path, 0)  # a mapped tensor would now end the process with SIGBUS
    assert torch.equal(sam.image_encoder.pos_embed, tiny_vit_b.image_encoder.pos_embed)


def test_checkpoint_of_another_image_size_keeps_its_own_or_takes_the_wanted(tiny_vit_b, tmp_path):
    path = saved(tmp_path / "at512.pth", tiny_sam(512).state_dict())
    assert load_sam("vit_b", path).image_encoder.img_size == 512
    assert load_sam("vit_b", path, image_size=256).image_encoder.img_size == 256


def test_attention_and_position_switches(tiny_vit_b, tmp_path):
    path = saved(tmp_path / "a.pth", tiny_vit_b.state_dict())
    block = load_sam("vit_b", path).image_encoder.blocks[1]
    assert type(block.attn) is FusedAttention
    assert block.attn.rel_pos_h.abs().sum() > 0
    plain = load_sam("vit_b", path, fused_attention=False, relative_positions=False)
    assert all(type(block.attn) is Attention for block in plain.image_encoder.blocks)
    assert all(block.attn.rel_pos_h.abs().sum() == 0 for block in plain.image_encoder.blocks)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_official_sizes_are_recognised(name, tmp_path):
    path = saved(tmp_path / "x.pth", empty_state(name))
    asked = "vit_b" if name != "vit_b" else "vit_l"
    with pytest.raises(WeightsError, match=rf"x.pth holds {name} .*{asked} was asked for"):
        load_sam(asked, path)


def test_official_vit_b_at_256(tmp_path):
    path = saved(tmp_path / "vit_b.pth", empty_state("vit_b"))
    random_state = torch.random.get_rng_state()
    sam = load_sam("vit_b", path, image_size=256)
    assert torch.equal(torch.random.get_rng_state(), random_state)  # no draw is used up
    assert not any(t.is_meta for t in [*sam.parameters(), *sam.buffers()])
    assert sam.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert sum(parameter.numel() for parameter in sam.image_encoder.blocks.parameters()) > 8e7
    assert sam.image_encoder.blocks[2].attn.rel_pos_h.shape == (31, 64)
    assert sam.image_encoder.blocks[1].attn.rel_pos_h.shape == (27, 64)


def test_missing_unexpected_and_misshapen_tensors_are_named(tiny_vit_b, tmp_path):
    state = tiny_vit_b.state_dict()
    del state["mask_decoder.iou_token.weight"]
    state["adapter.weight"] = torch.zeros(1)
    state["image_encoder.neck.0.weight"] = torch.zeros(1, 2)
    with pytest.raises(WeightsError) as error:
        load_sam("vit_b", saved(tmp_path / "a.pth", state))
    for part in (
        "1 missing: mask_decoder.iou_token.weight",
        "1 unexpected: adapter.weight",
        "image_encoder.neck.0.weight (1, 2) instead of (32, 32, 1, 1)",
    ):
        assert part in str(error.value)


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, zipped):
    trap = tmp_path / "was_run"
    path = tmp_path / "evil.pth"
    torch.save({"model": Payload(str(trap))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"evil\.pth is refused.*mkdir.*can run any code"):
        read_state_dict(path)
    assert not trap.exists()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files(tmp_path, kind):
    state = {"a": torch.randn(10_000)}
    path = tmp_path / f"cut.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(WeightsError, match=r"cut.*(truncated|no complete).*download it again"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "Git-LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", r"a web page \(HTML\)"),
        (b"Access denied", "holds text"),
        (bytes(range(1, 200)), "no known format"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, message):
    path = tmp_path / "sam_vit_b.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"sam_vit_b.pth.*{message}"):
        read_state_dict(path)


def test_missing_file_and_folder_say_how_to_get_it(tmp_path):
    with pytest.raises(WeightsError, match=r"does not exist.*data_scripts.checkpoints vit_b"):
        load_sam("vit_b", tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        load_sam("vit_b", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder.weight": torch.zeros(2)}, "no SAM checkpoint.*encoder.weight"),
        ({"epoch": 3}, "a state dict .* is needed"),
        (torch.zeros(3), "a state dict .* is needed"),
        ({}, "a state dict .* is needed"),
    ],
)
def test_foreign_content(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message):
        load_sam("vit_b", saved(tmp_path / "f.pth", content))


def test_other_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(WeightsError, match=r"images.zip is no PyTorch checkpoint"):
        read_state_dict(tmp_path / "images.zip")


def test_official_name_with_other_content_warns(tiny_vit_b, tmp_path, monkeypatch):
    path = saved(tmp_path / "sam_vit_b_01ec64.pth", tiny_vit_b.state_dict())
    with pytest.warns(UserWarning, match="not the official content"):
        load_sam("vit_b", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    official = checkpoints.OFFICIAL["vit_b"]._replace(sha256=digest)
    monkeypatch.setitem(checkpoints.OFFICIAL, "vit_b", official)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_sam("vit_b", path)


def test_arguments_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match=r"unknown SAM 'vit_x'.*vit_b, vit_l, vit_h, small"):
        load_sam("vit_x")
    with pytest.raises(WeightsError, match=r"load_sam\('vit_b'\) needs a checkpoint"):
        load_sam("vit_b")
    with pytest.raises(ValueError, match="not both"):
        load_sam("vit_b", tmp_path / "a.pth", untrained=True)


def test_untrained_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sam_model_registry, "vit_l", lambda: tiny_sam(512))
    assert load_sam("vit_l", untrained=True, image_size=256).image_encoder.img_size == 256


def test_small_untrained_and_from_a_file(tmp_path):
    small = load_sam("small", untrained=True)
    path = saved(tmp_path / "s.pth", small.state_dict())
    again = load_sam("small", path).state_dict()
    assert all(torch.equal(again[key], value) for key, value in small.state_dict().items())


def test_a_label_names_the_weights_by_their_hash(tmp_path):
    file = tmp_path / "sam.pth"
    file.write_bytes(b"abc")  # SHA-256 of FIPS 180-4's example
    assert sam_label("vit_b", file) == "vit_b (ba7816bf)"
    shipped = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert sam_label("small") == f"small ({shipped[:8]})"


def test_broken_numbers_are_refused(tiny_vit_b, tmp_path):
    state = tiny_vit_b.state_dict()
    name = next(iter(state))
    for value, message in ((torch.nan, "not finite"), (None, "whole numbers")):
        broken = dict(state)
        broken[name] = state[name].to(torch.int8) if value is None else state[name] * value
        with pytest.raises(WeightsError, match=message):
            load_sam("vit_b", saved(tmp_path / "broken.pth", broken))


def test_a_flipped_byte_in_a_zip_is_found(tiny_vit_b, tmp_path):
    path = saved(tmp_path / "a.pth", tiny_vit_b.state_dict())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_sam("vit_b", path)


def test_a_label_needs_a_file(tmp_path):
    with pytest.raises(WeightsError, match="vit_b needs the file"):
        sam_label("vit_b")
    with pytest.raises(WeightsError, match="does not exist"):
        sam_label("vit_b", tmp_path / "none.pth")
