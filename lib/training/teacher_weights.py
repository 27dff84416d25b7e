"""Whether records were made with the small SAM that is shipped now, or with earlier weights."""

from collections.abc import Sequence

from lib.evaluation.records import Record
from lib.sam.checkpoints import sam_label
from lib.training import family, mining_study
from lib.training.esp_medsam import study

FIRST = "small (1ab7081d)"  # what "small" meant before records named the weights
# Runs that ask no SAM, though their records name it, since it belongs to their study's settings.
ALONE = (*mining_study.WITHOUT_SAM, "masks alone", study.LONGER, study.FLOOR)
FAMILY_ALONE = (*family.BASELINES, *family.WITHOUT_SAM)  # without a plug-in


def teacher_note(records: Sequence[Record]) -> str:
    """A sentence that names earlier weights of the small SAM behind `records`; else ""."""
    names = {str(record.parameters.get("sam", "")) for record in records if asks_sam(record)}
    made = {FIRST if name == "small" else name for name in names if name.startswith("small")}
    earlier = sorted(made - {sam_label("small")})
    if not earlier:
        return ""
    return (
        f"Rows with a SAM were made with earlier weights of the small SAM, {', '.join(earlier)}; "
        f"this repository now ships {sam_label('small')}."
    )


def asks_sam(record: Record) -> bool:
    """Whether SAM had a part in the run of a record."""
    if record.method in FAMILY_ALONE:
        return bool(record.variant)
    return record.method not in ALONE
