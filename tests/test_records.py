"""Records survive the disk, refuse what is wrong, and never lose another run's file."""

import json
import math
import subprocess

import numpy as np
import pytest

from lib.evaluation import provenance as provenance_of_run
from lib.evaluation.provenance import commit, packages, peak_memory_mb
from lib.evaluation.records import (
    Record,
    RecordError,
    file_name,
    find_record,
    read_record,
    read_records,
    write_record,
)


def record(**changes):
    values = {
        "method": "supervised",
        "dataset": "Kvasir-SEG",
        "dataset_fingerprint": "a" * 64,
        "split_sha256": "b" * 64,
        "labelled_fraction": 0.25,
        "labelled_count": 200,
        "seed": 1,
        "scores": {"last": {"dice": 0.75}},
        "per_image": {
            "last": [
                {"name": "one", "dice": 0.5, "hd95": 3.0},
                {"name": "two", "dice": 1.0, "hd95": 0.0},
            ]
        },
        "parameters": {"steps": 100, "size": 128},
        "created": "2025-01-01T00:00:00+00:00",
    }
    return Record(**(values | changes))


def test_round_trip(tmp_path):
    original = record(seconds=12.5, history={"validation": [[10, 0.5], [20, 0.6]]})
    assert read_record(write_record(original, tmp_path / "new")) == original


def test_file_names_are_deterministic_and_tell_runs_apart():
    assert file_name(record()) == "supervised-kvasir_seg-25pct-seed1.json"
    assert (
        file_name(record(variant="box only")) == "supervised-box_only-kvasir_seg-25pct-seed1.json"
    )
    assert "-u_net_plus_plus-" in file_name(record(variant="U-Net++"))
    assert file_name(record(labelled_seed=2)) == "supervised-kvasir_seg-25pct-subset2-seed1.json"
    assert file_name(record(labelled_fraction=None)) == "supervised-kvasir_seg-200labels-seed1.json"
    assert file_name(record(labelled_fraction=0.075)).split("-")[2] == "7.5pct"


def test_same_run_gives_the_same_bytes(tmp_path):
    path = write_record(record(), tmp_path)
    first = path.read_bytes()
    write_record(record(), tmp_path)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_not_finite_is_null_on_disk_and_nan_in_memory(tmp_path):
    scores = {"last": {"dice": float("nan"), "hd95": float("inf")}}
    rows = {"last": [{"name": "one", "dice": float("-inf")}]}
    path = write_record(record(scores=scores, per_image=rows), tmp_path)
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["scores"]["last"] == {"dice": None, "hd95": None}
    assert math.isnan(read_record(path).scores["last"]["dice"])
    assert math.isnan(read_record(path).per_image["last"][0]["dice"])


def test_numpy_scalars_are_stored_as_numbers(tmp_path):
    path = write_record(
        record(scores={"last": {"dice": np.float32(0.5), "n": np.int64(3)}}), tmp_path
    )
    assert read_record(path).scores["last"] == {"dice": 0.5, "n": 3}


def test_another_run_is_not_overwritten(tmp_path):
    write_record(record(), tmp_path)
    for change in (
        {"parameters": {"steps": 999}},
        {"split_sha256": "c" * 64},
        {"dataset_fingerprint": "c" * 64},
    ):
        with pytest.raises(RecordError, match=f"another {next(iter(change))}.*variant"):
            write_record(record(**change), tmp_path)
    write_record(record(scores={"last": {"dice": 0.8}}), tmp_path)  # the same run, done again
    assert read_records(tmp_path)[0].scores["last"]["dice"] == 0.8
    write_record(record(parameters={"steps": 999}), tmp_path, replace=True)
    assert read_records(tmp_path)[0].parameters == {"steps": 999}


def test_settings_are_stored_exactly_and_measurements_rounded(tmp_path):
    third = record(labelled_fraction=1 / 3, parameters={"decay": 2e-7}, seconds=1 / 3)
    path = write_record(third, tmp_path)
    stored = read_record(path)
    assert (stored.labelled_fraction, stored.parameters) == (1 / 3, {"decay": 2e-7})
    assert stored.seconds == 0.333333
    assert read_records(tmp_path, labelled_fraction=1 / 3) == [stored]
    with pytest.raises(RecordError, match="another parameters"):
        write_record(record(labelled_fraction=1 / 3, parameters={"decay": 4e-7}), tmp_path)


def test_a_run_is_found_by_what_describes_it(tmp_path):
    path = write_record(record(parameters={"steps": 100, "size": (64, 64)}), tmp_path)
    for known in ({}, {"steps": 100}, {"size": (64, 64)}):
        run = record(parameters=known, scores={}, per_image={})
        assert find_record(run, tmp_path) == read_record(path)
    assert find_record(record(seed=2), tmp_path) is None
    assert find_record(record(), tmp_path / "nowhere") is None
    with pytest.raises(RecordError, match="a run of another split_sha256, steps; choose another"):
        find_record(record(split_sha256="c" * 64, parameters={"steps": 200}), tmp_path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_record(record(), tmp_path)

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_record(record(scores={"last": {"dice": 0.1}}), tmp_path)
    assert read_record(path) == record()
    assert list(tmp_path.iterdir()) == [path]


def test_paths_of_the_machine_are_refused(tmp_path):
    for path in ("/data/kvasir", "C:\\data\\kvasir"):
        with pytest.raises(RecordError, match="published"):
            write_record(record(parameters={"data_root": path}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "1"),
        ("seed", True),
        ("labelled_count", 1.5),
        ("method", ""),
        ("labelled_fraction", 25),
        ("scores", {}),
        ("scores", {"last": 0.5}),
        ("seconds", "fast"),
        ("commit", 7),
        ("per_image", {"last": {"dice": [1.0], "name": ["one", "two"]}}),
    ],
)
def test_wrong_field_is_named_with_its_file(tmp_path, field, value):
    path = write_record(record(), tmp_path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {field: value}))
    with pytest.raises(RecordError, match=rf"{path.name}: field {field}"):
        read_record(path)


def test_missing_unknown_and_foreign(tmp_path):
    path = write_record(record(), tmp_path)
    document = json.loads(path.read_text())
    missing = {key: value for key, value in document.items() if key != "split_sha256"}
    for broken, message in (
        (missing, "field split_sha256 is missing"),
        (document | {"colour": 1}, "field colour is unknown"),
        (document | {"schema": 99}, "schema is 99"),
        ([1, 2], "one JSON object"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(RecordError, match=message):
            read_record(path)
    path.write_text("{ not json")
    with pytest.raises(RecordError, match=r"seed1\.json: not a JSON document"):
        read_records(tmp_path)


def test_filters(tmp_path):
    for seed in range(3):
        write_record(record(seed=seed), tmp_path)
    write_record(record(method="mean_teacher", labelled_fraction=0.5), tmp_path)
    assert [r.seed for r in read_records(tmp_path, method="supervised")] == [0, 1, 2]
    assert [r.seed for r in read_records(tmp_path, seed=[0, 2])] == [0, 2]
    assert [r.method for r in read_records(tmp_path, labelled_percent=50)] == ["mean_teacher"]
    assert read_records(tmp_path, method="knowsam") == []
    with pytest.raises(RecordError, match="colour"):
        read_records(tmp_path, colour="red")
    with pytest.raises(RecordError, match="no such directory"):
        read_records(tmp_path / "nowhere")


def test_uneven_rows_are_refused(tmp_path):
    rows = {"last": [{"name": "one", "dice": 1.0}, {"name": "two"}]}
    with pytest.raises(RecordError, match="different keys"):
        write_record(record(per_image=rows), tmp_path)


def test_commit_of_a_repository(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) is None  # no repository
    git("init", "-q")
    (tmp_path / "lib").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "lib" / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "results" / "new.json").write_text("{}")
    assert commit(tmp_path) == head  # results are not code
    for folder in ("lib", "weights", "workflow", "benchmarks", "data_scripts"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "code.py").write_text("a = 2\n")
        assert commit(tmp_path) == head + "+dirty"
        git("add", folder)
        git("commit", "-q", "-m", folder)
        head = git("rev-parse", "HEAD")
        assert commit(tmp_path) == head
    assert commit(tmp_path / "lib") is None  # not that repository's own top

    def slow(*arguments, **options):
        raise subprocess.TimeoutExpired("git", 30)

    monkeypatch.setattr(subprocess, "run", slow)
    assert commit(tmp_path) is None


def test_provenance_goes_into_a_record_and_names_no_machine(tmp_path):
    path = write_record(record(**provenance_of_run(), peak_memory_mb=peak_memory_mb()), tmp_path)
    again = read_record(path)
    assert again.hardware["cores"] >= 1
    assert again.packages == packages()
    assert again.packages["torch"]
    assert again.peak_memory_mb > 50  # torch alone takes more
    assert set(again.hardware) == {"cpu", "cores", "threads", "memory_gb", "gpus"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"variant": "c<0.5"}, {"variant": "c>0.5"}),
        ({"labelled_count": 200}, {"labelled_count": 201}),
    ],
)
def test_runs_whose_names_become_one_file_are_refused(tmp_path, first, second):
    write_record(record(**first), tmp_path)
    assert file_name(record(**first)) == file_name(record(**second))
    with pytest.raises(RecordError, match="is a run of another"):
        write_record(record(**second), tmp_path)


def test_names_of_any_script_and_length_give_a_file(tmp_path):
    lung = "\N{CJK UNIFIED IDEOGRAPH-80BA}"
    assert file_name(record(dataset=lung)) != file_name(record(dataset=f"{lung} 2"))
    long = write_record(record(dataset=300 * lung), tmp_path)
    assert len(long.name.encode()) < 255
    assert file_name(record(dataset=301 * lung)) != long.name


def test_scores_must_be_numbers(tmp_path):
    path = write_record(record(), tmp_path)
    document = json.loads(path.read_text())
    document["scores"]["last"]["dice"] = "0.9"
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match="numbers in each part"):
        read_record(path)
