"""The mean of several trainings of the small SAM, and what its card says."""

import json

import pytest
import torch

from lib.sam.small import build_small_sam, load_small_sam
from lib.training.small_sam_card import save_small_sam
from lib.training.small_sam_soup import joined_facts, main, mean_of


def tiny(value):
    sam = build_small_sam(width=24, depth=1, heads=2, prompt_width=32)
    for weights in sam.parameters():
        torch.nn.init.constant_(weights, value)
    return sam


def test_the_mean_of_1_2_and_6_is_3():
    mean = mean_of([tiny(1.0), tiny(2.0), tiny(6.0)])
    assert all((weights == 3).all() for weights in mean.parameters())


def test_none_has_no_mean():
    with pytest.raises(ValueError, match="give at least one"):
        mean_of([])


def test_the_card_says_once_what_all_runs_share():
    cards = [
        {
            "training": {"Data": "scenes", "Steps": steps},
            "before": {"Steps": "9"},
            "curve_note": ".",
        }
        for steps in ("10", "20")
    ]
    facts = joined_facts(cards)
    assert facts["training"]["Data"] == "scenes"
    assert facts["training"]["Steps"] == "1: 10; 2: 20"
    assert facts["training"]["Weights"].startswith("the mean of 2")
    assert facts["before"] == {"Steps": "9"}
    assert facts["curve_note"] == ". Of the first alone, before the mean."


def test_the_command_writes_weights_that_can_be_loaded(tmp_path):
    torch.manual_seed(0)
    sams = [build_small_sam() for _ in range(2)]
    paths = [
        str(save_small_sam(sam, tmp_path / str(k), {"training": {"Seed": str(k)}}))
        for k, sam in enumerate(sams)
    ]
    main([*paths, "--output", str(tmp_path / "mean")])
    weights = tmp_path / "mean" / "small_sam.safetensors"
    found = load_small_sam(weights).state_dict()
    name = "image_encoder.pos_embed"
    expected = (sams[0].state_dict()[name] + sams[1].state_dict()[name]) / 2
    torch.testing.assert_close(found[name], expected)
    card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["training"]["Seed"] == "1: 0; 2: 1"
