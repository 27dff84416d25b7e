"""The rows of KnowSAM's ablations, each a change of the configuration.

Huang et al. 2025 (KnowSAM, arXiv 2412.13742), Tables IV (what the fusion sees), V (prompts), VI
(patch exchange) and VII (losses), and a few rows that the paper does not have. Table IX (MedSAM as
teacher) is another checkpoint, not another configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pandas as pd

from lib.evaluation.cells import NOT_RUN, cell_text, percent_text
from lib.evaluation.comparison import comparison_table
from lib.evaluation.records import Record
from lib.training.family import build_method
from lib.training.method import Method

NOT_PUBLISHED = "not published"


@dataclass(frozen=True)
class Switch:
    """One row: which method, what is changed, and where the paper has it.

    method: a name of `lib.training.family.NAMES`. changes: of its configuration.
    table, row: of results/published/knowsam.csv; empty where the paper has no such row.
    """

    method: str
    changes: Mapping = field(default_factory=dict)
    table: str = ""
    row: str = ""


_ENTROPY_OFF, _MUTUAL_OFF = {"entropy_weight": 0.0}, {"consistency_weight": 0.0}
_FROZEN = {"encoder_adapters": False, "decoder_adapters": False}

SWITCHES: Mapping[str, Switch] = MappingProxyType(
    {
        "HAM: predictions": Switch(
            "MC-seg",
            {"entropy_view": False, "dissimilarity_view": False},
            "IV",
            "HAM: predictions",
        ),
        "HAM: no dissimilarity": Switch(
            "MC-seg", {"dissimilarity_view": False}, "IV", "HAM: predictions+entropy"
        ),
        "HAM: all": Switch("MC-seg", {}, "IV", "HAM: predictions+entropy+dissimilarity"),
        "box prompt": Switch("KnowSAM", {"prompts": "box"}, "V", "KnowSAM output, box prompt"),
        "mask prompt alone": Switch("KnowSAM", {"prompts": "none"}),
        "LPS": Switch("KnowSAM", {}, "V", "KnowSAM output, LPS"),
        "UGDA off": Switch("MC-seg", {"exchange": False}, "VI", "without UGDA"),
        "UGDA lowest": Switch("KnowSAM", {"exchange_highest": False}),
        "L_sup": Switch("MC-seg", _ENTROPY_OFF | _MUTUAL_OFF, "VII", "sup"),
        "L_sup + L_ent": Switch("MC-seg", _MUTUAL_OFF, "VII", "sup+ent"),
        "L_sup + L_mut": Switch("MC-seg", _ENTROPY_OFF, "VII", "sup+mut"),
        "L_sup + L_kd": Switch("KnowSAM", _ENTROPY_OFF | _MUTUAL_OFF, "VII", "sup+kd"),
        "MC-seg": Switch("MC-seg", {}, "VII", "sup+ent+mut"),
        "KnowSAM": Switch("KnowSAM", {}, "VII", "sup+ent+mut+kd"),
        "SKD off": Switch("KnowSAM", {"distillation_weight": 0.0}),
        "frozen SAM": Switch("KnowSAM", _FROZEN),
    }
)
# The rows that change something; the others are the methods as they are.
ABLATIONS = tuple(name for name, switch in SWITCHES.items() if switch.changes)


def build_switched(name: str, **settings) -> Method:
    """Build the method of one row of `SWITCHES`; `settings` as for `build_method`.

    Raises:
        ValueError: no row has this name.
    """
    if name not in SWITCHES:
        raise ValueError(f"no row is called {name!r}; there are {', '.join(SWITCHES)}")
    switch = SWITCHES[name]
    return build_method(switch.method, **{**settings, **switch.changes})


def switches_table(
    records: Sequence[Record],
    paper: pd.DataFrame,
    *,
    percents: Sequence[float] = (10.0, 30.0),
    value: str = "dice",
    checkpoint: str = "last",
) -> pd.DataFrame:
    """Our runs beside the paper's ablations; what nobody measured is "not run".

    The last columns hold what each switch changed in ours: the difference to the method without it,
    same seeds, image by image, with its 95 % interval over test images and the number of pairs.

    Args:
        records: of one data set and split. A row without changes is the plain method's record; any
            other is the record whose variant is the row's name.
        paper: rows of `lib.evaluation.published`, narrowed down to one data set.
        percents: shares of labels, one pair of columns each.
    """
    printed = paper.set_index(["table", "method", "labelled_percent"])[f"{value}_percent"]
    lines = []
    for name, switch in SWITCHES.items():
        variant = name if switch.changes else ""
        runs = [r for r in records if (r.method, r.variant) == (switch.method, variant)]
        changes = ", ".join(f"{key}={what}" for key, what in switch.changes.items())
        line = {"row": name, "method": switch.method, "changes": changes or "none"}
        line["table"] = switch.table or "-"
        for percent in percents:
            chosen = [run for run in runs if run.labelled_percent == percent]
            number = printed.get((switch.table, switch.row, percent))
            share = f"{percent_text(percent)} %"
            line[f"ours, {share}"] = cell_text(chosen, value, checkpoint)
            line[f"paper, {share}"] = NOT_PUBLISHED if number is None else f"{number:.1f}"
        for percent in percents:
            ours = [run for run in records if run.labelled_percent == percent]
            change = _change(ours, name, value, checkpoint) if switch.changes else ""
            line[f"change, {percent_text(percent)} %"] = change
        lines.append(line)
    return pd.DataFrame(lines)


def _change(records: Sequence[Record], name: str, value: str, checkpoint: str) -> str:
    method = SWITCHES[name].method
    pair = [r for r in records if r.method == method and r.variant in ("", name)]
    if {r.variant for r in pair} != {"", name}:
        return NOT_RUN
    table = comparison_table(pair, baseline=method, value=value, checkpoint=checkpoint)
    return table[f"difference to {method}"].iloc[-1]  # the baseline stands first
