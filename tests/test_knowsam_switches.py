"""The rows of KnowSAM's ablations, and which loss teaches which part."""

import dataclasses
import math

import pytest
import torch
from tiny_sam import tiny_sam
from torch import nn

from lib.evaluation import Record, published
from lib.paths import resolve
from lib.training.family import Budget
from lib.training.knowsam_switches import SWITCHES, build_switched, switches_table
from lib.training.who_learns import gradient_table

TINY = Budget(widths=(4, 4, 6, 6, 8), labelled_batch=2, unlabelled_batch=2, steps=4, size=32)
PAPER = published(resolve("results/published/knowsam.csv"))
KVASIR = PAPER[PAPER["dataset"] == "Kvasir"]


@pytest.mark.parametrize("name", SWITCHES)
def test_every_row_builds_and_changes_what_it_names_and_nothing_else(name):
    settings = {"classes": 2, "budget": TINY, "sam": lambda: tiny_sam(64)}
    method = build_switched(name, **settings)
    plain = build_switched(SWITCHES[name].method, **settings)
    ours, theirs = (dataclasses.asdict(m.config) for m in (method, plain))
    changed = {key: value for key, value in ours.items() if value != theirs[key]}
    assert changed == dict(SWITCHES[name].changes)


def test_every_row_that_names_a_table_stands_in_the_paper():
    rows = set(zip(KVASIR["table"], KVASIR["method"], strict=True))
    named = [(s.table, s.row) for s in SWITCHES.values() if s.table]
    assert len(named) == 12
    assert set(named) <= rows


def test_unknown_row():
    with pytest.raises(ValueError, match="UGDA of"):
        build_switched("UGDA of", classes=2)


def record(method, variant, dice, percent=0.1):
    return Record(
        method=method, variant=variant, dataset="polyps", dataset_fingerprint="f",
        split_sha256="s", labelled_fraction=percent, labelled_count=1, seed=0,
        scores={"last": {"dice": dice}}, per_image={},
    )  # fmt: skip


def test_records_stand_in_their_rows_beside_the_paper():
    runs = [record("MC-seg", "UGDA off", 0.5), record("MC-seg", "", 0.75, 0.3)]
    table = switches_table(runs, KVASIR).set_index("row")
    assert table.loc["UGDA off", ["ours, 10 %", "paper, 10 %"]].tolist() == ["50.0 (1)", "80.5"]
    assert table.loc["UGDA off", "ours, 30 %"] == "not run"
    for same in ("MC-seg", "HAM: all"):  # one run, in each table that has it
        assert table.loc[same, ["ours, 30 %", "paper, 30 %"]].tolist() == ["75.0 (1)", "87.2"]
    assert table.loc["SKD off", ["ours, 10 %", "paper, 10 %"]].tolist() == [
        "not run", "not published",
    ]  # fmt: skip


def test_gradient_table_by_hand():
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    x = torch.tensor([[3.0]])
    losses = {
        "first alone": first(x).sum(),  # gradient 3
        "second, first detached": (second(x) * first(x).detach()).sum(),
        "nobody": first(x).detach().sum(),
    }
    table = gradient_table(losses, {"a": first, "b": second})
    assert table["a"].tolist() == ["3", "-", "-"]
    expected = abs(3 * 3 * first.weight.item())
    assert math.isclose(float(table.loc["second, first detached", "b"]), expected, rel_tol=0.05)
    assert first.weight.grad is None
    with pytest.raises(ValueError, match="'c' has no trainable"):
        gradient_table(losses, {"c": nn.Flatten()})


def test_each_switch_is_set_against_the_method_without_it():
    def run(variant, dices, seed=0):
        rows = [{"name": str(i), "dice": dice} for i, dice in enumerate(dices)]
        found = record("MC-seg", variant, sum(dices) / len(dices))
        return dataclasses.replace(found, seed=seed, per_image={"last": rows})

    runs = [run("", [0.5, 0.7]), run("", [0.1, 0.1], seed=1), run("UGDA off", [0.4, 0.6])]
    table = switches_table(runs, KVASIR).set_index("row")
    assert table.loc["UGDA off", "change, 10 %"] == "-10.0 [-10.0, -10.0] (1)"
    assert table.loc["UGDA off", "change, 30 %"] == "not run"
    assert table.loc["MC-seg", "change, 10 %"] == ""
