"""Tables of the semi-supervised study, made from its records alone.

Every function returns a DataFrame of text for `lib.evaluation.to_markdown`; a run that nobody made
is "not run". Mean ± standard deviation over seeds (number of seeds); Dice and IoU in percent.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lib.evaluation.cells import cell_text, percent_text
from lib.evaluation.comparison import beside_published, comparison_table, published
from lib.evaluation.records import Record, read_records
from lib.evaluation.tables import results_table
from lib.training.family import NAMES, WITH_SAM
from lib.training.family_study import BY_NETWORK, BY_SAM, VARIANTS

PERCENTS = (10.0, 30.0)  # KnowSAM's two budgets
FEW = 1.0  # where it is labels that are short, not steps
ALL = 100.0  # what the plain baselines reach when nothing is unlabelled stands beside them
# Our rows and the rows of KnowSAM's Tables I, II, III (VIII for those with a SAM) they stand
# beside. The supervised rows, CPS, FixMatch and UniMatch are in none of them.
PUBLISHED = {
    "Mean Teacher": "MT",
    "UA-MT": "UA-MT",
    "URPC": "URPC",
    "MC-Net+": "MC-Net+",
    "BCP": "BCP",
    "MC-seg": "MC-seg",
    "SemiSAM": "SemiSAM",
    "two-way SAM": "CPC-SAM",  # not the same method, but the nearest one
    "KnowSAM": "KnowSAM",
}


def family_records(directory: str | Path, dataset: str) -> list[Record]:
    """The study's records of one data set; none where the folder does not exist yet."""
    return read_records(directory, dataset=dataset) if Path(directory).is_dir() else []


def family_table(
    records: Sequence[Record],
    *,
    value: str = "dice",
    checkpoint: str = "last",
    methods: Sequence[str] = NAMES,
    percents: Sequence[float] = (FEW, *PERCENTS, ALL),
) -> pd.DataFrame:
    """Methods as they are (without a plug-in) by share of labels."""
    plain = [record for record in records if not record.variant]
    return results_table(
        plain,
        value=value,
        checkpoint=checkpoint,
        row_order=list(methods),
        column_order=list(percents),
    )


def plug_in_table(
    records: Sequence[Record],
    *,
    percent: float = 10.0,
    value: str = "dice",
    checkpoint: str = "last",
    methods: Sequence[str] = tuple(name for name in NAMES if name not in WITH_SAM),
) -> pd.DataFrame:
    """Methods by SAM-induced distillation off, by a frozen SAM, by an adapted SAM."""
    columns = {"SKD off": ""} | {f"SKD, {k} SAM": v for k, v in VARIANTS.items() if k}
    table = {
        shown: [
            cell_text(_chosen(records, name, variant, percent), value, checkpoint)
            for name in methods
        ]
        for shown, variant in columns.items()
    }
    return pd.DataFrame(table, index=pd.Index(methods, name="method"))


def against_plain(records: Sequence[Record], baseline: str, runs: Sequence[Record]) -> pd.DataFrame:
    """`runs` against the method `baseline` as it is, at the shares of labels that `runs` have."""
    percents = {run.labelled_percent for run in runs}
    plain = [r for r in records if r.label == baseline and r.labelled_percent in percents]
    return comparison_table([*plain, *runs], baseline=baseline)


def unlabelled_masks_table(
    records: Sequence[Record], *, percent: float = 10.0, value: str = "dice"
) -> pd.DataFrame:
    """Whose masks of unlabelled training images are better: the network's own or SAM's?

    One row a method (and distillation) with a SAM, in the order of the records.
    """
    chosen = [
        record
        for record in records
        if record.labelled_percent == percent
        and record.variant in VARIANTS.values()  # not the ablations
        and BY_SAM in record.scores
    ]
    labels = list(dict.fromkeys(record.label for record in chosen))
    table = {
        shown: [cell_text([r for r in chosen if r.label == label], value, key) for label in labels]
        for shown, key in {"network": BY_NETWORK, "SAM": BY_SAM}.items()
    }
    return pd.DataFrame(table, index=pd.Index(labels, name="method"))


def family_beside_published(
    records: Sequence[Record],
    csv: str | Path,
    *,
    dataset: str,
    value: str = "dice",
    checkpoint: str = "last",
    methods: Sequence[str] = tuple(PUBLISHED),
) -> pd.DataFrame:
    """Our runs beside KnowSAM's Tables I to III and VIII.

    Args:
        records: of one data set and split.
        csv: results/published/knowsam.csv.
        dataset: the paper's name of the data set, such as "Kvasir" or "ACDC".
        methods: keys of `PUBLISHED`.
    """
    paper = published(csv)
    paper = paper[paper["dataset"] == dataset]
    main = paper[paper["table"].isin(["I", "II", "III"])]
    with_sam = paper[(paper["table"] == "VIII") & ~paper["method"].isin(main["method"])]
    names = {name: PUBLISHED[name] for name in methods}
    plain = [r for r in records if not r.variant and r.labelled_percent in PERCENTS]  # the paper's
    return beside_published(
        plain, pd.concat([main, with_sam]), names=names, value=value, checkpoint=checkpoint
    )


def budget_text(records: Sequence[Record]) -> str:
    """What all runs had in common, in one sentence; it names every budget if there are several."""
    if not records:
        return "No run is recorded yet."
    budgets = dict.fromkeys(
        "{steps} steps of {labelled_batch} labelled and {unlabelled_batch} unlabelled images at "
        "{size} px, learning rate {learning_rate:g}".format(**record.parameters)
        for record in records
    )
    sams = dict.fromkeys(
        "{sam} at {sam_size} px".format(**record.parameters)
        for record in records
        if record.variant or record.method in WITH_SAM
    )
    percents = ", ".join(percent_text(p) for p in sorted({r.labelled_percent for r in records}))
    teachers = f" SAM: {'; '.join(sams)}." if sams else ""
    return f"{'; '.join(budgets)}.{teachers} Labels: {percents} %."


def _chosen(records: Sequence[Record], name: str, variant: str, percent: float) -> list[Record]:
    return [
        record
        for record in records
        if (record.method, record.variant, record.labelled_percent) == (name, variant, percent)
    ]
