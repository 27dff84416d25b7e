"""Tables of the small SAM's studies, against values read off by hand."""

import dataclasses
import json

import pytest

from lib.evaluation.records import Record, write_record
from lib.training.small_sam_tables import (
    TRAINED_ON,
    architecture_table,
    ingredient_table,
    study_tables,
    tuning_table,
)
from lib.training.small_sam_tuning import variant_of


def record(dataset, variant, scores):
    """A record whose images 0, 1, ... got `scores` with every prompt."""
    prompts = ("tight_box", "jittered_box", "clicks_1", "clicks_3")
    rows = [{"name": str(k), **dict.fromkeys(prompts, v)} for k, v in enumerate(scores)]
    return Record(
        method="small_sam", variant=variant, dataset=dataset, dataset_fingerprint="f",
        split_sha256="", labelled_fraction=None, labelled_count=0, seed=0,
        scores={"last": dict.fromkeys(prompts, sum(scores) / len(scores))},
        per_image={"last": rows}, parameters={},
    )  # fmt: skip


def test_architectures_by_cost_and_score():
    found = {
        "megabytes": 15.94, "encoder_ms": 31.2, "decoder_ms": 6.04,
        "accuracy": {"polyps": {"jittered_box": 0.704, "clicks_1": 0.55}},
    }  # fmt: skip
    table = architecture_table({"architectures": {"ViT": found}})
    assert table.loc["ViT"].to_dict() == {
        "MB": "15.9", "encoder, ms": "31", "decoder, ms": "6.0",
        "polyps: jittered box / 1 click": "70 / 55",
    }  # fmt: skip


def test_what_an_ingredient_adds():
    report = {
        "ingredients": {"hidden": "hardly visible"},
        "complete": {"polyps": {"clicks_1": 0.5184}},
        "adds": {"hidden": {"polyps": {"clicks_1": {"mean": -0.012, "standard_error": 0.0051}}}},
    }
    table = ingredient_table(report, "clicks_1")
    assert table.to_dict() == {"polyps": {"all": "51.8", "hidden: hardly visible": "-1.2 ± 0.5"}}


def test_a_gain_is_paired_by_image():
    before = [record("polyps", "zero-shot", [0.2, 0.6]), record("nuclei", "zero-shot", [0.5, 0.5])]
    after = [record("polyps", "tuned on the other sets", [0.3, 0.7])]
    table = tuning_table(before, after)
    assert table.index.tolist() == ["polyps"]
    # Both images gain 10, so the interval has no width.
    assert set(table.loc["polyps"]) == {"40 +10 [+10, +10]"}
    assert table.columns.tolist() == ["jittered box", "1 click", "3 clicks"]


def test_nothing_tuned_is_an_empty_table():
    assert tuning_table([], []).columns.tolist() == ["jittered box", "1 click", "3 clicks"]


def test_a_gain_needs_the_same_images_and_a_record_before():
    after = [record("polyps", "tuned", [0.3, 0.7])]
    with pytest.raises(ValueError, match="no record of polyps"):
        tuning_table([], after)
    with pytest.raises(ValueError, match="two records of polyps"):
        tuning_table([record("polyps", "zero-shot", [0.2, 0.6])], after * 2)
    fewer = dataclasses.replace(after[0], variant="zero-shot")
    fewer.per_image["last"][1]["name"] = "other"
    with pytest.raises(ValueError, match="different images"):
        tuning_table([record("polyps", "zero-shot", [0.3, 0.7])], [fewer])


def test_all_tables_come_from_one_folder(tmp_path):
    assert set(study_tables(tmp_path).split("\n\n")) == {"not run"}
    (tmp_path / "benchmarks").mkdir()
    costs = {"megabytes": 1, "encoder_ms": 2, "decoder_ms": 3}
    scores = {"polyps": {"jittered_box": 0.7, "clicks_1": 0.5}}
    gain = {"mean": 0.01, "standard_error": 0.002}
    reports = {
        "architectures": {"architectures": {"ViT": {**costs, "accuracy": scores}}},
        "ingredients": {
            "ingredients": {"hidden": "hardly visible"}, "complete": scores,
            "adds": {"hidden": {"polyps": {"jittered_box": gain, "clicks_1": gain}}},
        },
    }  # fmt: skip
    reports["restyled"] = reports["ingredients"]
    for name, report in reports.items():
        path = tmp_path / "benchmarks" / f"small_sam_{name}.json"
        path.write_text(json.dumps(report))
    for dataset in ("polyps", "nuclei"):
        write_record(record(dataset, "zero-shot", [0.2, 0.6]), tmp_path / "small_sam")
        write_record(record(dataset, variant_of(), [0.3, 0.7]), tmp_path / "small_sam")
    write_record(record("polyps", variant_of(keep=0), [0.1, 0.5]), tmp_path / "small_sam")
    write_record(record("nuclei", variant_of(0, 0), [0.0, 0.4]), tmp_path / "small_sam")
    for variant in TRAINED_ON[:2]:
        write_record(record("nuclei", variant, [0.4, 0.8]), tmp_path / "small_sam")
    text = study_tables(tmp_path)
    assert text.count("+1.0 ± 0.2") == 4
    *_, last, longer, restyled, not_run = text.split("\n\n")
    for variant, table in zip(TRAINED_ON, (longer, restyled), strict=False):
        assert variant in table
        assert "40 +20 [+20, +20]" in table
    assert not_run == "not run"
    assert "no mean" in last
    assert [line.count("not run") for line in last.splitlines()] == [0, 0, 1, 1]
