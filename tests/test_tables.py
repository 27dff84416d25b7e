"""Tables whose every number can be worked out by hand."""

import statistics

import pandas as pd
import pytest

from lib.evaluation.cells import cell_text
from lib.evaluation.comparison import beside_published, comparison_table, published
from lib.evaluation.records import Record, RecordError
from lib.evaluation.tables import provenance_table, results_table, to_markdown
from lib.paths import repository_root


def run(method="supervised", *, percent=25, seed=0, dices=(0.5, 0.7), **changes):
    rows = [{"name": f"image{i}", "dice": d, "hd95": 10.0} for i, d in enumerate(dices)]
    values = {
        "method": method,
        "dataset": "Kvasir-SEG",
        "dataset_fingerprint": "a" * 64,
        "split_sha256": "b" * 64,
        "labelled_fraction": percent / 100,
        "labelled_count": 8 * percent,
        "seed": seed,
        "scores": {"last": {"dice": statistics.mean(dices), "hd95": 10.0}},
        "per_image": {"last": rows},
        "parameters": {"steps": 100},
        "commit": "0123456789abcdef",
        "hardware": {"cpu": "A CPU", "cores": 2, "gpus": []},
        "seconds": 60.0 + seed,
        "peak_memory_mb": 1000.0,
    }
    return Record(**(values | changes))


def test_mean_and_sample_deviation_over_seeds():
    # Dice 0.60, 0.62, 0.70: mean 64.0, sample standard deviation sqrt((16 + 4 + 36) / 2) = 5.29
    records = [run(seed=s, dices=(d, d)) for s, d in enumerate((0.60, 0.62, 0.70))]
    assert results_table(records).loc["supervised", "25"] == "64.0 ± 5.3 (3)"
    assert results_table(records[:1]).loc["supervised", "25"] == "60.0 (1)"
    assert results_table(records, value="hd95").loc["supervised", "25"] == "10.0 ± 0.0 (3)"


def test_what_was_not_run_is_said():
    table = results_table(
        [run()],
        row_order={"supervised": "U-Net++", "one_time": "mined once"},
        column_order=[5, 25],
    )
    assert table.index.tolist() == ["U-Net++", "mined once"]
    assert table.columns.tolist() == ["5", "25"]
    assert table.loc["U-Net++", "25"] == "60.0 (1)"
    assert table.loc["U-Net++", "5"] == table.loc["mined once", "25"] == "not run"
    assert results_table([run()], checkpoint="best").loc["supervised", "25"] == "not run"
    assert results_table([], row_order=["supervised"], column_order=[5]).iloc[0, 0] == "not run"


def test_share_of_labels_is_ordered_by_size():
    table = results_table([run(percent=p) for p in (100, 5, 25)])
    assert table.columns.tolist() == ["5", "25", "100"]


def test_undefined_scores_are_not_averaged():
    records = [
        run(seed=s, scores={"last": {"dice": value}}) for s, value in enumerate((0.5, float("nan")))
    ]
    assert results_table(records).iloc[0, 0] == "50.0 (1)"
    assert results_table(records[1:]).iloc[0, 0] == "undefined"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 0}, "twice"),
        ({"split_sha256": "c" * 64}, "different split_sha256"),
        ({"dataset_fingerprint": "c" * 64}, "different dataset_fingerprint"),
        ({"parameters": {"steps": 999}}, "different parameters"),
    ],
)
def test_what_must_not_be_averaged_is_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        results_table([run(seed=0), run(**({"seed": 1} | changes))])


def test_seeds_among_the_parameters_do_no_harm_and_variants_have_their_own_row():
    records = [run(seed=s, parameters={"steps": 1, "seed": s}) for s in (0, 1)]
    assert results_table(records).iloc[0, 0] == "60.0 ± 0.0 (2)"
    table = results_table([run(), run(variant="box only")])
    assert table.index.tolist() == ["supervised", "supervised (box only)"]


def test_an_unknown_score_is_named():
    with pytest.raises(RecordError, match="no score 'iou'"):
        results_table([run()], value="iou")


def test_difference_is_paired_by_labels_and_seed():
    # Seed 0: +0.10 and +0.10; seed 1: +0.20 and +0.20; both images 15.0 better on average.
    records = [
        run(seed=0, dices=(0.5, 0.9)),
        run(seed=1, dices=(0.4, 0.6)),
        run("one_time", seed=0, dices=(0.6, 1.0)),
        run("one_time", seed=1, dices=(0.6, 0.8)),
        run("one_time", seed=0, percent=50),  # no baseline with 50 %
    ]
    table = comparison_table(records).set_index(["method", "labels %"])
    assert table.loc[("one_time", "25"), "difference to supervised"] == (
        "+15.0 [+15.0, +15.0] (2: +10.0 to +20.0)"
    )
    assert table.loc[("one_time", "50"), "difference to supervised"] == "not run"
    assert table.loc[("supervised", "25"), "difference to supervised"] == ""
    assert table.loc[("supervised", "25"), "dice %"] == "60.0 ± 14.1 (2)"
    # Image means of the baseline are 45 and 75; a resample holds one, the other or both.
    assert table.loc[("supervised", "25"), "95 % over images"] == "[45.0, 75.0]"


def test_one_image_has_no_interval():
    records = [run(dices=(0.5,)), run("one_time", dices=(0.6,))]
    line = comparison_table(records).set_index("method").loc["one_time"]
    assert line["difference to supervised"] == "+10.0 [one image] (1)"
    assert line["95 % over images"] == "one image"


def test_a_difference_says_how_many_pairs_it_rests_on():
    records = [run(seed=0), run("one_time", seed=0), run("one_time", seed=1)]
    line = comparison_table(records).set_index("method").loc["one_time"]
    assert line["dice %"].endswith("(2)")
    assert line["difference to supervised"] == "+0.0 [+0.0, +0.0] (1)"


def test_a_score_of_the_whole_set_has_no_difference_by_image():
    scores = {"last": {"pooled_dice": 0.6}}
    with pytest.raises(RecordError, match="single images"):
        comparison_table([run(scores=scores)], value="pooled_dice")


def test_a_baseline_of_another_split_or_seed_is_no_partner():
    for change in ({"split_sha256": "c" * 64}, {"seed": 7}, {"labelled_seed": 1}):
        records = [run(**change), run("one_time")]
        table = comparison_table(records).set_index("method")
        assert table.loc["one_time", "difference to supervised"] == "not run"


def test_provenance():
    table = provenance_table([run(seed=0), run(seed=2, commit=None)])
    assert table.iloc[0].to_dict() == {
        "method": "supervised",
        "labels %": "25",
        "seeds": "0, 2",
        "split": "bbbbbbbb",
        "commit": "0123456, unknown",
        "hardware": "A CPU, 2 cores",
        "seconds": "61",
        "peak MB": "1000",
    }


def test_rows_go_by_budget_and_the_baseline_leads():
    unknown = run(labelled_fraction=None)
    records = [run("mined", percent=25), unknown, run(percent=25), run(percent=5)]
    rows = [("supervised", "5"), ("supervised", "25"), ("mined", "25"), ("supervised", "unknown")]
    compared = comparison_table(records)
    assert list(zip(compared["method"], compared["labels %"], strict=True)) == rows
    budgets = provenance_table(records)["labels %"].tolist()
    assert budgets == ["5", "25", "25", "unknown"]


def test_committed_published_numbers():
    paper = published(repository_root() / "results" / "published" / "knowsam.csv")
    assert len(paper) == 440
    row = paper.query("table == 'I' and dataset == 'CVC-300' and labelled_percent == 10")
    assert row.set_index("method").loc["MT", "dice_percent"] == 56.64
    assert paper.dice_percent.between(0, 100).all()


def test_beside_published():
    paper = pd.DataFrame(
        {
            "table": "I",
            "dataset": "Kvasir",
            "labelled_percent": [10, 25],
            "method": "MT",
            "dice_percent": [70.04, 80.0],
        }
    )
    records = [run("mean_teacher", percent=10), run("mean_teacher", percent=5)]
    table = beside_published(records, paper, names={"mean_teacher": "MT", "knowsam": "KnowSAM"})
    lines = [tuple(line) for line in table.itertuples(index=False)]
    assert lines[:3] == [
        ("mean_teacher", "5", "60.0 (1)", "not published"),
        ("mean_teacher", "10", "60.0 (1)", "70.0"),
        ("mean_teacher", "25", "not run", "80.0"),
    ]
    assert lines[4] == ("knowsam", "10", "not run", "not published")
    with pytest.raises(ValueError, match="narrow them down"):
        beside_published(records, pd.concat([paper, paper]), names={"mean_teacher": "MT"})
    with pytest.raises(ValueError, match="no column hd95"):
        beside_published(records, paper, names={"mean_teacher": "MT"}, value="hd95")


def test_published_file_is_checked(tmp_path):
    path = tmp_path / "paper.csv"
    path.write_text("table,dataset,method,dice_percent\nI,Kvasir,MT,70\n")
    with pytest.raises(ValueError, match="labelled_percent is missing"):
        published(path)
    path.write_text("table,dataset,labelled_percent,method,dice_percent\nI,Kvasir,10,MT,about 70\n")
    with pytest.raises(ValueError, match="dice_percent holds text"):
        published(path)


def test_markdown_keeps_the_text_as_it_is():
    lines = to_markdown(results_table([run(percent=5)], column_order=[5, 10])).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["method", "5", "10"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "supervised",
        "60.0 (1)",
        "not run",
    ]


def test_distances_are_no_percent():
    runs = [run(scores={"last": {"asd": 2.0, "hd95": 3.0, "dice": 0.5}})]
    shown = [cell_text(runs, value, "last") for value in ("asd", "hd95", "dice")]
    assert shown == ["2.0 (1)", "3.0 (1)", "50.0 (1)"]
