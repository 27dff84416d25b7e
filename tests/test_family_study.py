"""The study of the family: one record a run, found again, and its tables."""

import runpy
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny_family import CLASSES
from tiny_sam import tiny_sam
from tiny_training import Squares

from lib.data.splits import make_split
from lib.evaluation.records import RecordError, read_records
from lib.training import family_study
from lib.training.family_study import (
    BY_NETWORK,
    BY_SAM,
    FamilyCell,
    FamilyConfig,
    can_run,
    paper,
    recorded,
    run_method,
)
from lib.training.family_tables import (
    against_plain,
    budget_text,
    family_beside_published,
    family_records,
    family_table,
    plug_in_table,
    unlabelled_masks_table,
)
from lib.training.knowsam_switches import ABLATIONS

CONFIG = FamilyConfig(
    size=16,
    sam_size=64,
    widths=(4, 4, 4, 4, 6),
    steps=2,
    labelled_batch=2,
    unlabelled_batch=2,
    validations=2,
    diagnosed=3,
)
RUNS = [
    ("supervised U-Net", None),
    ("KnowSAM", None),
    ("SemiSAM", None),
    ("CPS", "frozen"),
    ("CPS", "adapted"),
    ("UGDA lowest", None),  # a row of KnowSAM's ablations
]


class Kinds(Squares):
    """Squares of three classes, several images a patient."""

    def __init__(self):
        super().__init__(count=20)
        self.classes = CLASSES
        self.groups = [f"patient{i // 2}" for i in range(20)]

    def _load_mask(self, index):
        return super()._load_mask(index) * (1 + index % 3)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    return FamilyCell(
        dataset=Kinds(),
        split=make_split(Kinds(), val=4, test=4, near_duplicates=False),
        fraction=0.5,
        seed=1,
        config=CONFIG,
        sam=lambda: tiny_sam(64),
        results=folder / "results",
        checkpoints=folder / "checkpoints",
        progress=False,
    )


@pytest.fixture(scope="module")
def records(cell):
    return {run: run_method(cell, *run) for run in RUNS}


def test_every_run_leaves_a_record_of_its_own(cell, records):
    stored = read_records(cell.results)
    assert len(stored) == len(RUNS)
    labels = {record.label for record in stored}
    assert labels >= {"CPS (SKD, frozen SAM)", "KnowSAM", "KnowSAM (UGDA lowest)"}
    for record in stored:
        assert record.labelled_count == 6
        assert [len(rows) for rows in record.per_image.values()] == [4, 4]
        assert {"dice_1", "dice_2", "dice_3", "hd95"} <= record.scores["last"].keys()
        assert record.parameters["learning_rate"] == CONFIG.learning_rate
        assert [row[0] for row in record.history["validation"]] == [1, 2]


def test_every_method_is_given_the_same_rate(records):
    for (_, distillation), record in records.items():
        method = record.parameters["method"]
        assert (method["method"] if distillation else method)["learning_rate"] == 0.05


def test_patients_are_not_torn_apart(cell):
    parts = [cell.labelled, cell.unlabelled, cell.val, cell.test]
    patients = [{cell.dataset.groups[i] for i in part} for part in parts]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 10


def test_sam_s_masks_are_scored_beside_the_network_s(records):
    for run, record in records.items():
        has_sam = run != ("supervised U-Net", None)
        assert record.scores[BY_NETWORK]["images"] == 3
        assert (BY_SAM in record.scores) == has_sam
    for run in [("KnowSAM", None), ("CPS", "adapted")]:
        scores = records[run].scores
        assert scores[BY_SAM] != scores[BY_NETWORK]


def test_masks_of_unlabelled_images_serve_the_report_only(cell, records, monkeypatch):
    """Poisoned masks of unlabelled images change the diagnosis and nothing else."""
    true_mask = Kinds._load_mask

    def poisoned(self, index):
        mask = true_mask(self, index)
        return (mask == 0).astype(mask.dtype) if index in cell.unlabelled else mask

    monkeypatch.setattr(Kinds, "_load_mask", poisoned)
    again = replace(cell, dataset=Kinds(), results=cell.results.parent / "other", checkpoints=None)
    run = ("CPS", "frozen")
    record = run_method(again, *run)
    assert record.scores["last"] == records[run].scores["last"]
    assert record.history == records[run].history
    assert record.scores[BY_NETWORK] != records[run].scores[BY_NETWORK]


def test_recorded_runs_are_found_and_other_ones_refused(cell, records):
    assert recorded(cell, "KnowSAM").created == records["KnowSAM", None].created
    assert recorded(cell, "URPC") is None
    assert recorded(cell, "CPS") is None
    longer = replace(cell, config=replace(CONFIG, steps=3))
    with pytest.raises(RecordError, match=r"another steps; choose another folder .*--output"):
        recorded(longer, "KnowSAM")


def test_another_sam_is_another_run_only_where_one_is_asked(cell, records):
    other = replace(cell, config=replace(CONFIG, sam="vit_b"))
    assert recorded(other, "supervised U-Net") == recorded(cell, "supervised U-Net") is not None
    for run in [("KnowSAM", None), ("UGDA lowest", None), ("CPS", "adapted")]:
        with pytest.raises(RecordError, match="another sam; choose"):
            recorded(other, *run)


def test_a_row_of_the_ablations_is_the_method_with_one_switch(cell, records):
    plain, switched = (records[name, None] for name in ("KnowSAM", "UGDA lowest"))
    ours, theirs = switched.parameters["method"], plain.parameters["method"]
    assert {key for key in ours if ours[key] != theirs[key]} == {"exchange_highest"}
    assert recorded(cell, "UGDA lowest").created == switched.created
    with pytest.raises(ValueError, match=r"UGDA lowest is a row .* takes no distillation"):
        family_study.build(cell, "UGDA lowest", "frozen")


def test_a_complete_run_is_taken_from_its_checkpoint(cell, records, monkeypatch):
    def no_step(*_):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(family_study.Method, "forward", no_step)
    for run in [("KnowSAM", None), ("CPS", "adapted")]:
        again = run_method(cell, *run)
        assert again.scores == records[run].scores


def test_all_labels_leave_the_baselines(cell, tmp_path):
    full = replace(cell, fraction=1.0, results=tmp_path, checkpoints=None)
    assert can_run(full, "supervised U-Net")
    assert not can_run(full, "supervised U-Net", "frozen")
    assert not can_run(full, "BCP")
    assert not can_run(full, "UGDA off")
    assert BY_NETWORK not in run_method(full, "supervised U-Net").scores


def test_paper_is_knowsam_s_protocol():
    config = paper(steps=7)
    assert (config.size, config.labelled_batch, config.unlabelled_batch) == (256, 12, 12)
    assert (config.learning_rate, config.sam, config.steps) == (0.01, "vit_b", 7)


def test_tables_name_what_was_not_run(cell, records, tmp_path):
    assert family_records(tmp_path / "nowhere", "Squares") == []
    stored = family_records(cell.results, "Squares")
    assert len(stored) == len(RUNS)
    plain = family_table(stored, percents=[50.0])
    dice = records["KnowSAM", None].scores["last"]["dice"]
    assert plain.loc["KnowSAM", "50"] == f"{100 * dice:.1f} (1)"
    assert plain.loc["CPS", "50"] == "not run"
    plugged = plug_in_table(stored, percent=50.0, methods=["CPS", "BCP"])
    assert plugged.loc["CPS", "SKD off"] == "not run"
    assert plugged.loc["CPS", "SKD, frozen SAM"].endswith("(1)")
    assert set(plugged.loc["BCP"]) == {"not run"}
    runs = [r for r in stored if r.label == "KnowSAM"]
    against = against_plain(stored, "supervised U-Net", runs).set_index("method")
    assert list(against.index) == ["supervised U-Net", "KnowSAM"]  # and not those with a plug-in
    assert against.loc["KnowSAM", "difference to supervised U-Net"].endswith("(1)")
    masks = unlabelled_masks_table(stored, percent=50.0)
    assert set(masks.index) == {
        "KnowSAM", "SemiSAM", "CPS (SKD, frozen SAM)", "CPS (SKD, adapted SAM)",
    }  # fmt: skip
    assert "2 steps of 2 labelled and 2 unlabelled images at 16 px" in budget_text(stored)
    assert "SAM: small at 64 px" in budget_text(stored)
    without = [r for r in stored if not r.variant and r.method == "supervised U-Net"]
    assert "SAM" not in budget_text(without)


def test_published_numbers_stand_beside_ours(cell, records):
    csv = Path(__file__).parent.parent / "results" / "published" / "knowsam.csv"
    table = family_beside_published([], csv, dataset="Kvasir").set_index(["method", "labels %"])
    assert table.loc[("KnowSAM", "10"), "published"] == "86.0"
    assert table.loc[("two-way SAM", "30"), "published"] == "87.4"
    assert set(table["ours"]) == {"not run"}


def test_the_command_makes_its_split_and_skips_what_is_recorded(tmp_path, monkeypatch, capsys):
    path = Path(__file__).parent.parent / "workflow" / "semi_supervised.py"
    command = runpy.run_path(str(path))["main"]
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for i in range(12):
        mask = 255 * Squares()._load_mask(i)
        Image.fromarray(Squares()._load_image(i)).save(tmp_path / "data" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{i}.png")
    folders = {
        "data-root": "data",
        "split": "split.json",
        "output": "records",
        "checkpoints": "checkpoints",
    }
    arguments = [word for key, name in folders.items() for word in (f"--{key}", tmp_path / name)]
    arguments += ["--size", "16", "--steps", "1", "--batch", "2", "2", "--seeds", "3"]
    arguments += ["--val", "0.2", "--test", "0.2", "--fractions", "0.5", "1"]
    arguments += ["--methods", "supervised U-Net", "Mean Teacher"]
    monkeypatch.setattr("sys.argv", ["semi_supervised.py", *map(str, arguments)])
    assert command() == 0
    assert "Mean Teacher: left out, no image is without a label" in capsys.readouterr().out
    records = read_records(tmp_path / "records")
    assert [r.label for r in records] == ["Mean Teacher", "supervised U-Net", "supervised U-Net"]
    assert command() == 0
    assert capsys.readouterr().out.count("recorded already") == 3


def test_the_command_takes_all_rows_of_the_ablations_at_once():
    path = Path(__file__).parent.parent / "workflow" / "semi_supervised.py"
    methods = runpy.run_path(str(path))["_methods"]
    assert methods(Namespace(methods=["MC-seg", "ablations"]), None) == ["MC-seg", *ABLATIONS]
