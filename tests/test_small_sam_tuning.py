"""Real images as a pool of objects, and the small SAM fine-tuned on all sets but one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lib.data.generated import GeneratedStream, ImagePool, unpack
from lib.data.object_pool import JoinedPools, ObjectPool, objects_of
from lib.evaluation.records import RecordError, read_records
from lib.sam.small import build_small_sam, load_small_sam
from lib.training import small_sam_tuning
from lib.training.small_sam import SmallSamConfig
from lib.training.small_sam_card import update_card
from lib.training.small_sam_objects import named_folder
from lib.training.small_sam_tuning import tune


class TwoParts:
    """Images of one value; in each, two squares of 10 and 6 px a side, or only the first."""

    size = 256

    def __init__(self, value, count, parts=2):
        self.value, self.count, self.parts = value, count, parts

    def __len__(self):
        return self.count

    def image(self, index):
        return torch.full((3, 256, 256), self.value)

    def mask(self, index):
        mask = torch.zeros(256, 256, dtype=torch.int64)
        mask[10:20, 10:20] = 1
        if self.parts == 2:
            mask[100:106, 100:106] = 1
        return mask

    def fingerprint(self):
        return f"{self.value}"


def tiny():
    torch.manual_seed(0)
    return build_small_sam(width=24, depth=1, heads=2, prompt_width=32)


def test_parts_of_each_class_and_the_whole():
    mask = np.zeros((256, 256), np.int64)
    mask[:10, :10] = 1  # 100 px
    mask[:6, 10:16] = 2  # 36 px, touching, but of another class
    mask[50, 50] = 1  # too small
    assert [int(part.sum()) for part in objects_of(mask)] == [137, 100, 36]
    assert objects_of(np.zeros((8, 8), np.int64)) == []


def test_one_part_is_not_told_twice():
    assert len(objects_of(TwoParts(0.5, 1, parts=1).mask(0).numpy())) == 1


def test_each_set_is_seen_equally_often():
    pool = ObjectPool({"a": TwoParts(0.2, 1), "b": TwoParts(0.6, 9)}, per_set=3, progress=False)
    assert pool.names == ["a"] * 3 + ["b"] * 3
    assert pool.images[:, 0, 0, 0].tolist() == [51] * 3 + [153] * 3
    batch = GeneratedStream(pool, batch=4, size=128).batch(0)
    assert batch.labelled.image.shape == (4, 3, 128, 128)
    assert unpack(batch.labelled.mask).sum((2, 3))[0, :4].tolist() == [136, 100, 36, 0]


def test_only_the_named_images_are_read():
    data = TwoParts(0.5, 9)
    read = []
    data.image = lambda index: read.append(index) or torch.full((3, 256, 256), 0.5)
    some = ObjectPool({"a": data}, per_set=4, progress=False, indices={"a": [1, 5]})
    assert sorted(read) == [1, 5]
    every = ObjectPool({"a": data}, per_set=4, progress=False)
    assert some.count == every.count == 4
    prints = [GeneratedStream(pool, batch=2).fingerprint() for pool in (some, every)]
    assert prints[0] != prints[1]


def test_generated_images_can_be_mixed_in(tmp_path):
    photographs = ObjectPool({"a": TwoParts(0.2, 1)}, per_set=2, progress=False)
    drawn = ImagePool(tmp_path, seed=3, count=1).fill(progress=False)
    pool = JoinedPools(photographs, drawn)
    assert pool.count == 3
    assert np.array_equal(pool.images[:2], photographs.images)
    assert np.array_equal(pool.images[2:], drawn.images)
    alone, together = (GeneratedStream(p, batch=2) for p in (photographs, pool))
    assert alone.fingerprint() != together.fingerprint()
    # of twenty places in batches, some are generated images and some are not
    seen = torch.cat([together.batch(step).labelled.index for step in range(10)])
    assert {0, 1, 2} == set(seen.tolist())


def test_another_size_is_refused():
    data = TwoParts(0.2, 1)
    data.size = 128
    with pytest.raises(ValueError, match="opened with size=256"):
        ObjectPool({"a": data}, per_set=1, progress=False)


def test_masks_without_an_object_are_refused():
    data = TwoParts(0.2, 2)
    data.mask = lambda index: torch.zeros(256, 256, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"a: none of the 2 masks .*leave the data set out"):
        ObjectPool({"a": data}, per_set=1, progress=False)


def only_with_object(index, count=9):
    """A data set in which the images `index` have an object, and a list of the masks read."""
    data, read = TwoParts(0.2, count), []
    full = data.mask

    def mask(i):
        read.append(i)
        return full(i) if i in index else torch.zeros(256, 256, dtype=torch.int64)

    data.mask = mask
    return data, read


def test_one_object_is_found_wherever_it_stands():
    for index in range(9):
        pool = ObjectPool({"a": only_with_object([index])[0]}, per_set=1, progress=False)
        assert pool.count == 1


def test_where_objects_are_rare_twice_as_many_images_are_looked_at():
    order = np.random.default_rng(0).permutation(9)
    data, read = only_with_object([order[1], order[8]])
    assert ObjectPool({"a": data}, per_set=2, progress=False).count == 2
    assert read == order[:4].tolist()


def test_what_is_left_out_is_not_read(tmp_path):
    data = {"a": TwoParts(0.2, 2), "b": TwoParts(0.6, 2)}
    data["b"].image = None  # reading it would fail
    settings = {
        "left_out": "b", "steps": 1, "size": 128, "per_set": 2, "start": tiny, "progress": False,
        "config": SmallSamConfig(prompts=2, rounds=1, batch=2), "generated": 0.5,
    }  # fmt: skip
    sam = tune(tmp_path, data, **settings)
    fresh = tiny().state_dict()
    assert any(not torch.equal(value, fresh[key]) for key, value in sam.state_dict().items())
    # the same run, all of what it learnt: the mean lies half way
    end = tune(tmp_path, data, **settings, keep=0).state_dict()
    assert all(
        torch.allclose(value, (fresh[key] + end[key]) / 2)
        for key, value in sam.state_dict().items()
    )
    card = (tmp_path / "README.md").read_text()
    assert "then real images: a; 1 generated" in card
    update_card(tmp_path / "small_sam.safetensors", accuracy={"a": {"images": 1}})
    assert "It was trained on real images of a." in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="left_out must be one of a, b"):
        tune(tmp_path, data, **settings | {"left_out": "c"})
    with pytest.raises(ValueError, match="generated must not be negative"):
        tune(tmp_path, data, **settings | {"generated": -1})
    with pytest.raises(ValueError, match="keep must be in"):
        tune(tmp_path, data, **settings | {"keep": 2})


def test_the_command_writes_weights_and_a_record(tmp_path, monkeypatch, capsys):
    """Two folders of generated pictures; each is left out once."""
    from PIL import Image

    for name in ("one", "two"):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        picture = np.zeros((64, 64), np.uint8)
        picture[20:40, 20:44] = 255
        Image.fromarray(picture).save(tmp_path / name / "images/x.png")
        Image.fromarray(picture).save(tmp_path / name / "masks/x.png")
    monkeypatch.setattr(small_sam_tuning, "CONFIG", SmallSamConfig(prompts=2, rounds=1, batch=1))
    command = [
        "--output", str(tmp_path / "out"), "--data-root", f"one={tmp_path / 'one'}",
        "--data-root", f"two={tmp_path / 'two'}", "--leave-out", "one",
        "--size", "128", "--per-set", "1", "--generated", "0", "--keep", "0",
        "--results", str(tmp_path / "records"),
    ]  # fmt: skip
    small_sam_tuning.main([*command, "--steps", "1"])
    (record,) = read_records(tmp_path / "records")
    assert record.parameters["tuning_steps"] == 1
    assert record.variant == "tuned on the other sets, nothing generated, no mean"
    assert record.scores["last"]["images"] == 1
    load_small_sam(tmp_path / "out/without-one/small_sam.safetensors")
    monkeypatch.setattr(small_sam_tuning, "tune", None)  # nothing may be trained from here on
    small_sam_tuning.main([*command, "--steps", "1"])
    assert "one: recorded already" in capsys.readouterr().out
    with pytest.raises(RecordError, match="a run of another tuning_steps; choose another folder"):
        small_sam_tuning.main([*command, "--steps", "2"])
    with pytest.raises(RecordError, match="a run of another images_at_most"):
        small_sam_tuning.main([*command, "--steps", "1", "--images", "2"])
    third = ["--data-root", f"three={tmp_path / 'two'}"]
    with pytest.raises(RecordError, match="a run of another tuning_trained_on"):
        small_sam_tuning.main([*command, *third, "--steps", "1"])
    with pytest.raises(SystemExit):
        small_sam_tuning.main([*command, "--data-root", f"one={tmp_path / 'two'}"])
    assert "two folders are called 'one'" in capsys.readouterr().err


def test_a_folder_has_a_name_of_its_own_or_its_last_part():
    assert named_folder("polyps=data/kvasir") == ("polyps", Path("data/kvasir"))
    assert named_folder("/runs/lr=0.1/polyps") == ("polyps", Path("/runs/lr=0.1/polyps"))
