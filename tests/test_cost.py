"""Seconds and memory of a prediction."""

import time

import pytest
import torch

from lib.evaluation import cost
from lib.evaluation.cost import call_seconds, peak_memory


def test_warm_up_is_called_and_not_counted():
    delays = iter([0.05, 0.05, 0.0, 0.0, 0.01])
    seconds = call_seconds(lambda: time.sleep(next(delays)), warm_up=2, repeats=3)
    assert len(seconds) == 3
    assert 0.01 <= seconds[-1] < 0.05
    assert next(delays, None) is None


def test_calls_keep_no_gradient():
    seen = []
    call_seconds(lambda: seen.append(torch.is_inference_mode_enabled()), repeats=1)
    assert seen == [True] * 3


@pytest.mark.skipif(not (cost.PROCESS / "clear_refs").exists(), reason="Linux only")
def test_peak_counts_what_was_freed_meanwhile_but_not_what_came_before():
    before = torch.ones(20_000_000)  # 80 MB
    with peak_memory() as small:
        pass
    with peak_memory() as large:
        torch.ones(10_000_000).sum()  # 40 MB
    assert small.mb < 10
    assert 35 < large.mb < 60
    assert before.sum() > 0


def test_elsewhere_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "PROCESS", tmp_path / "absent")
    with peak_memory() as peak:
        pass
    assert peak.mb is None
