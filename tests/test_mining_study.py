"""The study: one record a run, from one common start, found again when it is called again."""

from dataclasses import replace

import pytest
import torch

from lib.data.dataset import SegmentationDataset
from lib.data.splits import make_split
from lib.evaluation.records import RecordError, read_record, read_records
from lib.models.unet_pp import build_unet_pp
from lib.sam.frozen import FrozenSam
from lib.sam.small import build_small_sam
from lib.training import mining_study
from lib.training.mining_study import (
    MASKS,
    RUNS,
    SUPERVISED,
    Cell,
    StudyConfig,
    recorded,
    run_cell,
    run_names,
)

CONFIG = StudyConfig(
    size=32,
    sam_size=32,
    encoder="tu-mobilenetv3_small_050",
    first_steps=2,
    fine_steps=2,
    batch=4,
)


class Discs(SegmentationDataset):
    """Bright discs of different places and sizes."""

    def __init__(self):
        names = [f"disc{i:02d}" for i in range(20)]
        super().__init__(names=names, size=32, title="Discs")

    def _load_mask(self, index):
        y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        inside = (x - 8 - index % 5 * 3) ** 2 + (y - 10 - index // 5 * 3) ** 2 < (
            5 + index % 3
        ) ** 2
        return inside.to(torch.uint8).numpy()

    def _load_image(self, index):
        return 60 + 120 * self._load_mask(index)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    torch.manual_seed(0)
    return Cell(
        dataset=Discs(),
        sam_dataset=Discs(),
        split=make_split(Discs(), val=4, test=4, near_duplicates=False),
        fraction=0.5,
        seed=1,
        config=CONFIG,
        sam=FrozenSam(build_small_sam()),
        results=folder / "results",
        checkpoints=folder / "checkpoints",
        progress=False,
    )


@pytest.fixture(scope="module")
def records(cell):
    return run_cell(cell)


def test_every_run_leaves_a_record(cell, records):
    methods = {SUPERVISED, MASKS, *RUNS}
    assert {record.method for record in records} == methods
    stored = read_records(cell.results)
    assert {record.method for record in stored} == methods
    assert {record.labelled_count for record in stored} == {6}
    for record in stored:
        rows = record.per_image.values()
        assert {len(r) for r in rows} == {6 if record.method == MASKS else 4}


def test_parts_do_not_overlap_and_test_images_are_scored(cell, records):
    parts = [cell.labelled, cell.unlabelled, cell.val, cell.test]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 20
    names = [row["name"] for row in records[0].per_image["last"]]
    assert names == [cell.dataset.names[i] for i in cell.test]


def test_the_first_training_says_what_it_was(cell, records):
    first, config = records[0].parameters["method"], cell.config
    assert (first["steps"], first["batch"], first["size"]) == (
        config.first_steps,
        config.batch,
        config.size,
    )


def test_rounds_are_written_down(records):
    rounds = {record.method: len(record.history.get("rounds", [])) for record in records}
    assert rounds["one-time mining"] == 1
    assert rounds["continuous mining"] == 2  # five rounds do not fit into two steps
    assert rounds["supervised, more steps"] == 0


def test_a_second_call_trains_nothing_and_finds_the_same(cell, records, monkeypatch):
    def no_step(*_):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(mining_study.Supervised, "step", no_step)
    monkeypatch.setattr(mining_study.KnowledgeMining, "step", no_step)
    before = {path: path.read_bytes() for path in cell.results.iterdir()}
    again = run_cell(cell)
    assert [r.label for r in again] == [r.label for r in records]
    assert [recorded(cell, name) for name in run_names(cell)] == again
    assert {path: path.read_bytes() for path in cell.results.iterdir()} == before


def test_other_prompts_are_no_other_run_where_no_sam_is_asked(cell, records, tmp_path):
    """The checkpoints of f0 and of the runs without SAM serve a study with other prompts too."""
    config = replace(cell.config, keep=1, runs=("supervised, more steps", "self-training"))
    other = replace(cell, config=config, results=tmp_path)
    found = {record.method: record for record in run_cell(other)}
    for record in records:
        if record.method in config.runs:
            assert found[record.method].scores == record.scores


@pytest.mark.parametrize(("part", "name"), [("val", "validation"), ("test", "test")])
def test_a_study_without_an_image_to_score_is_refused_before_training(cell, part, name):
    with pytest.raises(ValueError, match=f"no {name} image at 0.5 of the labels"):
        replace(cell, split=replace(cell.split, **{part: ()}))


def test_a_missing_record_is_made_and_the_others_stay(cell, records):
    lost = next(path for path in cell.results.iterdir() if "one_time" in path.name)
    before = {path: path.read_bytes() for path in cell.results.iterdir()}
    scores = read_record(lost).scores
    lost.unlink()
    run_cell(cell)
    assert read_record(lost).scores == scores
    assert all(path.read_bytes() == old for path, old in before.items() if path != lost)


def test_records_of_other_settings_are_refused_and_another_sam_is_only_where_one_is_asked(cell):
    with pytest.raises(RecordError, match="a run of another size, batch; choose"):
        recorded(replace(cell, config=replace(cell.config, size=64, batch=2)), SUPERVISED)
    other = replace(cell, config=replace(cell.config, sam="vit_b"))
    assert recorded(other, SUPERVISED).method == SUPERVISED
    with pytest.raises(RecordError, match="a run of another sam; choose"):
        recorded(other, "one-time mining")


def test_other_prompts_are_a_variant_and_change_nothing_without_a_sam(cell, records):
    other = replace(cell, config=replace(cell.config, prompt_mode="box"))
    assert recorded(other, "self-training").label == "self-training"
    assert recorded(other, "one-time mining") is None
    made = replace(other, config=replace(other.config, runs=("one-time mining",)))
    labels = [record.label for record in run_cell(made)]
    assert labels == ["supervised", f"{MASKS} (box prompts)", "one-time mining (box prompts)"]


def test_masks_are_drawn_on_the_device_of_the_study(cell, monkeypatch):
    asked = []
    monkeypatch.setattr(mining_study, "find_device", lambda name: asked.append(name) or "cpu")
    network = build_unet_pp(encoder=CONFIG.encoder, encoder_weights=None, classes=2)
    mining_study.mask_scores(cell, network, source="network")
    assert asked == ["auto"]


def test_all_labels_leave_nothing_to_mine(cell, tmp_path):
    full = replace(cell, fraction=1.0, results=tmp_path, checkpoints=None)
    assert [r.method for r in run_cell(full)] == [SUPERVISED, "supervised, more steps"]
