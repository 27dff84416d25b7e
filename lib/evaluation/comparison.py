"""Comparisons: each method against a baseline with equal labels, and ours beside a paper's."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import pandas as pd

from lib.evaluation.cells import NOT_RUN, cell_text, percent_text, sortable, unit
from lib.evaluation.records import Record, RecordError
from lib.evaluation.statistics import bootstrap_interval, paired_difference

NOT_PUBLISHED = "not published"
ONE_IMAGE = "one image"  # in place of an interval over images


def comparison_table(
    records: Sequence[Record],
    *,
    baseline: str = "supervised",
    value: str = "dice",
    checkpoint: str = "last",
) -> pd.DataFrame:
    """Each method against the baseline with the same labels and the same seeds.

    The difference is taken image by image, averaged over the pairs of runs, and given with its
    95 % bootstrap interval over test images, the number of pairs and, of several, the least and
    the largest difference of a pair: "+3.6 [+2.0, +5.1] (3: +1.9 to +4.8)". The interval speaks of
    other test images, not of other seeds. A run without its partner has no difference: "not run".
    ``baseline`` is the label of a run (its method, and variant in brackets).

    Raises:
        RecordError: the value is not scored image by image, or runs are mixed (`results_table`).
        ValueError: two runs to be compared were scored on different images.
    """
    groups = defaultdict(list)
    for record in records:
        groups[record.label, record.labelled_percent].append(record)
    lines = []
    # By budget, the baseline first, then the order of the records.
    for label, percent in sorted(groups, key=lambda g: (sortable(g[1]), g[0] != baseline)):
        runs = groups[label, percent]
        partners = [_partner(run, groups.get((baseline, percent), [])) for run in runs]
        pairs = [(run, other) for run, other in zip(runs, partners, strict=True) if other]
        lines.append(
            {
                "method": label,
                "labels %": percent_text(percent),
                _title(value): cell_text(runs, value, checkpoint),
                "95 % over images": _interval(runs, value, checkpoint),
                f"difference to {baseline}": ""
                if label == baseline
                else _difference(pairs, value, checkpoint),
            }
        )
    return pd.DataFrame(lines)


def published(csv: str | Path) -> pd.DataFrame:
    """Numbers printed in a paper: columns table, dataset, labelled_percent, method and scores.

    Dice and IoU stand in ``dice_percent`` and ``iou_percent``, distances in ``hd95`` and ``asd``.

    Raises:
        ValueError: a column is missing or a number is not a number.
    """
    frame = pd.read_csv(csv, dtype={"table": str, "dataset": str, "method": str})
    required = ["table", "dataset", "labelled_percent", "method", "dice_percent"]
    if missing := [name for name in required if name not in frame.columns]:
        raise ValueError(f"{csv}: column {missing[0]} is missing")
    for name in frame.columns.difference(["table", "dataset", "method"]):
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ValueError(f"{csv}: column {name} holds text, expected numbers")
    return frame


def beside_published(
    records: Sequence[Record],
    paper: pd.DataFrame,
    *,
    names: Mapping[str, str],
    value: str = "dice",
    checkpoint: str = "last",
) -> pd.DataFrame:
    """Our runs beside a paper's numbers, row by row.

    Args:
        records: of one data set and split.
        paper: rows of `published`, narrowed down to one data set and one table.
        names: label of our run -> the method's name in the paper.

    Raises:
        ValueError: the paper's rows are not unique for a method and a share of labels.
    """
    column = f"{value}_percent" if value in ("dice", "iou") else value
    if column not in paper.columns:
        raise ValueError(f"the published rows have no column {column}")
    key = ["method", "labelled_percent"]
    if paper.duplicated(key).any():
        raise ValueError(
            "the published rows name a method twice for one share of labels: narrow them down to "
            "one data set and one table first"
        )
    printed = paper.set_index(key)[column].dropna()
    percents = {p for method, p in printed.index if method in names.values()}
    percents |= {record.labelled_percent for record in records}
    lines = []
    for ours, theirs in names.items():
        for percent in sorted(percents, key=sortable):
            runs = [r for r in records if (r.label, r.labelled_percent) == (ours, percent)]
            number = printed.get((theirs, percent))
            lines.append(
                {
                    "method": ours,
                    "labels %": percent_text(percent),
                    "ours": cell_text(runs, value, checkpoint),
                    "published": NOT_PUBLISHED if number is None else f"{number:.1f}",
                }
            )
    return pd.DataFrame(lines)


def _partner(run: Record, baselines: Sequence[Record]) -> Record | None:
    """The baseline's run on the same data, split and labels with the same seed."""
    same = ("dataset_fingerprint", "split_sha256", "labelled_fraction", "labelled_seed", "seed")
    for other in baselines:
        if all(getattr(run, name) == getattr(other, name) for name in same):
            return other
    return None


def _difference(pairs: Sequence[tuple[Record, Record]], value: str, checkpoint: str) -> str:
    pairs = [pair for pair in pairs if all(checkpoint in run.per_image for run in pair)]
    if not pairs:
        return NOT_RUN
    ours = _image_means([run for run, _ in pairs], value, checkpoint)
    theirs = _image_means([other for _, other in pairs], value, checkpoint)
    single = [
        mean(_image_means([run], value, checkpoint).values())
        - mean(_image_means([other], value, checkpoint).values())
        for run, other in pairs
    ]
    spread = f": {min(single):+.1f} to {max(single):+.1f}" if len(single) > 1 else ""
    if len(ours) < 2:
        return f"{mean(single):+.1f} [{ONE_IMAGE}] ({len(pairs)}{spread})"
    result = paired_difference(ours, theirs)
    return f"{result.mean:+.1f} [{result.low:+.1f}, {result.high:+.1f}] ({len(pairs)}{spread})"


def _interval(runs: Sequence[Record], value: str, checkpoint: str) -> str:
    runs = [run for run in runs if checkpoint in run.per_image]
    if not runs:
        return NOT_RUN
    means = list(_image_means(runs, value, checkpoint).values())
    if len(means) < 2:
        return ONE_IMAGE
    low, high = bootstrap_interval(means)
    return f"[{low:.1f}, {high:.1f}]"


def _image_means(runs: Sequence[Record], value: str, checkpoint: str) -> dict[str, float]:
    """Each test image's score, averaged over the runs: name -> score in the table's unit."""
    scores = defaultdict(list)
    for run in runs:
        for row in run.per_image[checkpoint]:
            if value not in row:
                raise RecordError(f"{value!r} is no score of single images, only of the whole set")
            scores[row["name"]].append(unit(value) * row[value])
    return {name: mean(values) for name, values in scores.items()}


def _title(value: str) -> str:
    return value if unit(value) == 1 else f"{value} %"
