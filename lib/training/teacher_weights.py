"""Whether records were made with the small SAM that is shipped now, or with earlier weights."""

from collections.abc import Sequence

from lib.evaluation.records import Record
from lib.sam.checkpoints import sam_label

FIRST = "small (1ab7081d)"  # what "small" meant before records named the weights


def teacher_note(records: Sequence[Record]) -> str:
    """A sentence that names earlier weights of the small SAM behind `records`; else "".

    Rows without a SAM carry its name too, since it belongs to their study's settings: the note
    speaks of the rows that used one.
    """
    names = {str(record.parameters.get("sam", "")) for record in records}
    made = {FIRST if name == "small" else name for name in names if name.startswith("small")}
    earlier = sorted(made - {sam_label("small")})
    if not earlier:
        return ""
    return (
        f"Rows with a SAM were made with earlier weights of the small SAM, {', '.join(earlier)}; "
        f"this repository now ships {sam_label('small')}."
    )
