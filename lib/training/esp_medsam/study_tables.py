"""Tables of the ESP-MedSAM study, from its records alone."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev

import pandas as pd

from lib.evaluation.cells import NOT_RUN, unit
from lib.evaluation.records import Record
from lib.evaluation.tables import results_table

SEEN, UNSEEN = "seen domains", "unseen domains"


def domain_table(
    records: Sequence[Record],
    *,
    columns: Sequence[str],
    rows: Sequence[str] = (),
    value: str = "dice",
) -> pd.DataFrame:
    """One row a test set, one column a label such as "both (given)"; mean ± std over seeds.

    rows: titles of test sets, by default those of the records, unseen ones below seen ones; a
        title or a column without record is "not run".
    """
    found = {r.dataset: r for r in records}
    ordered = sorted(found, key=lambda title: (not found[title].parameters["seen"], title))
    chosen = [record for record in records if record.label in columns]
    return results_table(
        chosen,
        rows="dataset",
        columns="label",
        value=value,
        row_order=list(rows) or ordered,
        column_order=list(columns),
    )


def seen_and_unseen(
    records: Sequence[Record], *, rows: Sequence[str], value: str = "dice"
) -> pd.DataFrame:
    """One row a label: the mean over all seen and over all unseen test sets, ± std over seeds.

    Each test set counts the same, however many images it has. In brackets: test sets, seeds. A
    label without record is "not run".
    """
    table = {SEEN: [], UNSEEN: []}
    for label in rows:
        for column, seen in ((SEEN, True), (UNSEEN, False)):
            runs = [r for r in records if r.label == label and r.parameters["seen"] == seen]
            table[column].append(_cell(runs, value))
    return pd.DataFrame(table, index=pd.Index(list(rows), name="variant (evaluation)"))


def _cell(runs: Sequence[Record], value: str) -> str:
    """The mean over test sets of each seed, then mean and standard deviation over seeds."""
    by_seed = defaultdict(dict)
    for run in runs:
        by_seed[run.seed][run.dataset] = unit(value) * run.scores["last"][value]
    if not by_seed:
        return NOT_RUN
    sets = {tuple(sorted(scores)) for scores in by_seed.values()}
    if len(sets) > 1:  # a seed whose run is not complete must not be averaged with others
        raise ValueError(f"the seeds of {runs[0].label!r} have different test sets: {sorted(sets)}")
    means = [mean(scores.values()) for scores in by_seed.values()]
    spread = f" ± {stdev(means):.1f}" if len(means) > 1 else ""
    return f"{mean(means):.1f}{spread} ({len(sets.pop())}; {len(means)})"
