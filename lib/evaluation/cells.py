"""One cell of a table: several runs become "mean ± standard deviation (number of runs)"."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from lib.evaluation.records import Record, RecordError

NOT_RUN = "not run"


def cell_text(runs: Sequence[Record], value: str, checkpoint: str) -> str:
    """Mean ± sample standard deviation (runs); "not run" without runs, "undefined" if all NaN."""
    refuse_mixture(runs)
    numbers = run_scores(runs, value, checkpoint)
    if not numbers:
        return NOT_RUN
    numbers = [number for number in numbers if math.isfinite(number)]
    if not numbers:
        return "undefined"  # e.g. the rate of misses where no test image holds an object
    spread = f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{mean(numbers):.1f}{spread} ({len(numbers)})"


def run_scores(runs: Sequence[Record], value: str, checkpoint: str) -> list[float]:
    """One number a run, in percent where it is a share; runs without the checkpoint drop out."""
    numbers = []
    for run in runs:
        if checkpoint in run.scores:
            if value not in run.scores[checkpoint]:
                raise RecordError(
                    f"the run {run.label!r} has no score {value!r}, only "
                    f"{sorted(run.scores[checkpoint])}"
                )
            numbers.append(unit(value) * run.scores[checkpoint][value])
    return numbers


def refuse_mixture(runs: Sequence[Record]) -> None:
    """One cell averages over seeds and labelled subsets, and over nothing else."""
    for name in ("dataset", "dataset_fingerprint", "split_sha256", "method", "variant"):
        if len({getattr(run, name) for run in runs}) > 1:
            raise RecordError(f"runs of different {name} fall into one cell: filter the records")
    if any(_settings(run) != _settings(runs[0]) for run in runs):
        raise RecordError(
            f"runs of {runs[0].label!r} with different parameters fall into one cell: filter the "
            "records, or give the runs variants"
        )
    seeds = [(run.labelled_seed, run.seed) for run in runs]
    if len(set(seeds)) < len(seeds):
        raise RecordError(f"a seed of {runs[0].label!r} falls into one cell twice")


def _settings(run: Record) -> dict:
    """The parameters without seeds, which may differ between runs of one cell."""
    return {k: v for k, v in run.parameters.items() if k not in ("seed", "labelled_seed")}


def unit(value: str) -> float:
    """Factor from a stored score to the printed one: shares become percent, distances stay."""
    return 1.0 if value.startswith(("hd95", "asd")) else 100.0


def percent_text(percent: float | None) -> str:
    """A share of labels in percent as it is printed."""
    return "unknown" if percent is None else f"{percent:g}"


def sortable(value: object) -> tuple:
    """Numbers by size, then text, then None."""
    return (value is None, isinstance(value, str), value if value is not None else 0)
