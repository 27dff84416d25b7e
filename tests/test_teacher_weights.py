"""Records made with earlier weights of the small SAM say so."""

from types import SimpleNamespace

import pytest

from lib.sam.checkpoints import sam_label
from lib.training.teacher_weights import FIRST, teacher_note


def records(*names, method="KnowSAM", variant=""):
    return [
        SimpleNamespace(method=method, variant=variant, parameters={"sam": name} if name else {})
        for name in names
    ]


@pytest.mark.parametrize("names", [(), (None,), ("vit_b (00112233)",)])
def test_nothing_is_said_of_records_without_the_small_sam(names):
    assert teacher_note(records(*names)) == ""


def test_nothing_is_said_of_the_shipped_weights():
    assert teacher_note(records(sam_label("small"))) == ""


def test_earlier_weights_are_named():
    note = teacher_note(records("small", sam_label("small"), "small (00112233)"))
    earlier, shipped = note.split(";")
    assert "small (00112233)" in earlier
    assert (FIRST in earlier) == (sam_label("small") != FIRST)
    assert shipped.endswith(f"now ships {sam_label('small')}.")


@pytest.mark.parametrize(
    ("method", "variant", "said"),
    [
        ("supervised, more steps", "", False),
        ("masks alone", "given", False),
        ("CPS", "", False),
        ("CPS", "SKD, frozen SAM", True),
        ("both", "given", True),
    ],
)
def test_rows_that_ask_no_sam_do_not_count(method, variant, said):
    assert bool(teacher_note(records("small (00112233)", method=method, variant=variant))) == said
