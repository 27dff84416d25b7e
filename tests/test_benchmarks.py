"""Every benchmark writes under which code, packages and hardware it was measured."""

import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
FIGURES = {"ratio": 1.0, "seconds": 1.0, "extra_mb": 1.0, "weights_mb": 1.0}
MEASURING = {  # what takes long; it is replaced
    "engine": ("draw", "per_cpu_second", "per_second"),
    "esp_medsam": ("alone", "student", "parameter_table", "claims_table", "operations"),
    "knowsam": ("alone", "targets"),
    "sam": ("alone",),
}


@pytest.mark.parametrize("name", MEASURING)
def test_a_report_says_where_it_comes_from(name, tmp_path, monkeypatch):
    benchmark, asked = importlib.import_module(name), []
    origin = {"commit": "abc", "packages": {"torch": "2"}, "hardware": {"cpu": "a model"}}

    def measured(what=None, *_, **settings):
        assert asked, "the origin is asked first: the checkout may change meanwhile"
        return dict(FIGURES) if callable(what) else 1.0  # of `alone`, of all others

    monkeypatch.setattr(benchmark, "provenance", lambda: asked.append(name) or origin)
    for function in MEASURING[name]:
        monkeypatch.setattr(benchmark, function, measured)
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", ThreadPoolExecutor, raising=False)
    path = tmp_path / "report.json"
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--output", str(path)])
    benchmark.main()
    report = json.loads(path.read_text())
    assert {key: report[key] for key in origin} == origin
    assert report["benchmark"] == name
