"""Counts of confident and correct pixels, by hand."""

import math

import pytest
import torch

from lib.evaluation.confidence import confidence_table


def test_counts_by_hand():
    # Five pixels: foreground probabilities and true classes.
    p = torch.tensor([0.99, 0.9, 0.6, 0.3, 0.05])
    masks = torch.tensor([1, 0, 1, 1, 0])[None, None]
    logits = torch.stack([1 - p, p]).log()[None, :, None]
    table = confidence_table(logits, masks, [0.0, 0.85, 0.97, 1.1])
    assert table.index.tolist() == [0.0, 0.85, 0.97, 1.1]
    assert table["pass"].tolist() == pytest.approx([1, 3 / 5, 1 / 5, 0])
    # At 0.85: 0.99 (right), 0.9 (wrong: background), 0.05 (right).
    assert table["right"].tolist()[:3] == pytest.approx([3 / 5, 2 / 3, 1])
    assert table["object passes"].tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0])
    assert table["object right"].tolist()[:3] == pytest.approx([2 / 3, 1, 1])
    assert math.isnan(table["right"].iloc[3])


def test_the_right_class_counts_not_just_foreground():
    logits = torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1)
    row = confidence_table(logits, torch.ones(1, 1, 1, dtype=torch.int64), [0.9]).iloc[0]
    assert (row["pass"], row["right"], row["object right"]) == (1, 0, 0)


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="masks are"):
        confidence_table(torch.zeros(2, 2, 4, 4), torch.zeros(2, 4, 5), [0.5])
