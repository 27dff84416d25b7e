"""Tables made from records alone; what nobody measured is "not run", never a blank.

Every function returns a DataFrame of text, rounded as it is to be read (Dice, IoU and rates in
percent with one decimal, distances with one decimal), so that a notebook prints the same table
each time. `to_markdown` renders it. `lib.evaluation.comparison` holds the tables that compare.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import pandas as pd

from lib.evaluation.cells import cell_text, percent_text, sortable
from lib.evaluation.records import Record


def results_table(
    records: Sequence[Record],
    *,
    rows: str = "label",
    columns: str = "labelled_percent",
    value: str = "dice",
    checkpoint: str = "last",
    row_order: Sequence | Mapping | None = None,
    column_order: Sequence | Mapping | None = None,
) -> pd.DataFrame:
    """Mean ± standard deviation over seeds (number of runs), one cell a row and column value.

    Args:
        records: of one data set and split.
        rows, columns: names of record fields (or ``label``: method and variant).
        value: a key of the scores; ``checkpoint``: "last" or "best".
        row_order, column_order: the values to show, in this order; a mapping gives each its
            printed name. A value without record is a "not run". Default: those of the records.

    Raises:
        RecordError: runs that must not be averaged fall into one cell (other data, split,
            variant or parameters, or the same seeds twice).
    """
    cells = defaultdict(list)
    for record in records:
        cells[getattr(record, rows), getattr(record, columns)].append(record)
    row_names = _order(row_order, [row for row, _ in cells])
    column_names = _order(column_order, sorted({column for _, column in cells}, key=sortable))
    table = {
        shown: [cell_text(cells.get((row, column), []), value, checkpoint) for row in row_names]
        for column, shown in column_names.items()
    }
    return pd.DataFrame(table, index=pd.Index(row_names.values(), name=_header(rows)))


def table_by_checkpoint(records: Sequence[Record], *, value: str = "dice") -> pd.DataFrame:
    """Mean ± standard deviation over seeds, one row a label budget, one column a key of `scores`.

    Made for records whose keys are not "last" and "best" but things to compare, such as who drew
    a mask. Empty where there are no records.
    """
    groups = defaultdict(list)
    for record in sorted(records, key=lambda r: sortable(r.labelled_percent)):
        groups[record.labelled_percent].append(record)
    keys = list(dict.fromkeys(key for record in records for key in record.scores))
    table = {key: [cell_text(runs, value, key) for runs in groups.values()] for key in keys}
    index = pd.Index([percent_text(percent) for percent in groups], name="labels %")
    return pd.DataFrame(table, index=index)


def provenance_table(records: Sequence[Record]) -> pd.DataFrame:
    """Where the numbers come from: seeds, split, commit, hardware, seconds, memory."""
    groups = defaultdict(list)
    for record in records:
        groups[record.label, record.labelled_percent].append(record)
    return pd.DataFrame(
        {
            "method": label,
            "labels %": percent_text(percent),
            "seeds": _joined(sorted(run.seed for run in runs)),
            "split": _joined(run.split_sha256[:8] for run in runs),
            "commit": _joined(_short_commit(run.commit) for run in runs),
            "hardware": _joined(_hardware(run.hardware) for run in runs),
            "seconds": _mean_text([run.seconds for run in runs]),
            "peak MB": _mean_text([run.peak_memory_mb for run in runs]),
        }
        for (label, percent), runs in sorted(groups.items(), key=lambda g: sortable(g[0][1]))
    )


def to_markdown(frame: pd.DataFrame) -> str:
    """The table as Markdown; an index is shown where it has a name."""
    return frame.to_markdown(index=frame.index.name is not None, disable_numparse=True)


def _header(name: str) -> str:
    return {"label": "method", "labelled_percent": "labels %"}.get(name, name)


def _order(wanted: Sequence | Mapping | None, found: Sequence) -> dict:
    """Value -> printed name, in the order to show."""
    if isinstance(wanted, Mapping):
        return dict(wanted)
    values = list(dict.fromkeys(found if wanted is None else wanted))
    return {v: percent_text(v) if isinstance(v, float | int | None) else v for v in values}


def _joined(values: Iterable) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _short_commit(commit: str | None) -> str:
    if commit is None:
        return "unknown"
    return commit[:7] + ("+dirty" if commit.endswith("+dirty") else "")


def _hardware(hardware: Mapping) -> str:
    if not hardware:
        return "unknown"
    return ", ".join(
        [
            *hardware.get("gpus", []),
            f"{hardware.get('cpu', 'CPU')}, {hardware.get('cores', '?')} cores",
        ]
    )


def _mean_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.0f}" if known else "unknown"
