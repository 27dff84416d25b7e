"""One small SAM from several trainings that went on from the same weights: the mean of all.

    python -m lib.training.small_sam_soup --output DIR A.safetensors B.safetensors ...

Runs that start from equal weights and see different images end on different sides of one valley,
and the mean of their weights lies deeper in it than each (model soup: Wortsman et al. 2022, arXiv
2203.05482). They need no word from each other, so each core can have one. A file named twice counts
twice; the weights that all started from may be among the files, against forgetting.
"""

import argparse
import json
from pathlib import Path

import torch

from lib.sam.small import load_small_sam
from lib.training.small_sam_card import save_small_sam


@torch.no_grad()
def mean_of(sams):
    """The first of `sams` with the mean of all weights, in place; buffers stay the first's.

    Raises:
        ValueError: for none.
    """
    if not sams:
        raise ValueError("sams is empty: give at least one")
    for parameters in zip(*(sam.parameters() for sam in sams), strict=True):
        parameters[0].copy_(torch.stack(parameters).mean(0))
    return sams[0]


@torch.no_grad()
def mix(sam, other, *, share):
    """Move the weights of `sam` by `share` (0 to 1) towards those of `other`, in place.

    Where training went on from `other`, the straight line between both is good all along, and its
    middle keeps much of what either end knows (Wortsman et al. 2022, arXiv 2109.01903).

    Raises:
        ValueError: if `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    for mine, theirs in zip(sam.parameters(), other.parameters(), strict=True):
        mine.lerp_(theirs, share)


def joined_facts(cards):
    """Facts of a card (see `save_small_sam`) about the mean of the weights that `cards` describe.

    What all say is said once, the rest run by run; the curve is the first's.
    """
    trainings = [card["training"] for card in cards]
    joined = {"Weights": f"the mean of {len(cards)} (Wortsman et al. 2022, arXiv 2203.05482)"}
    for key in dict.fromkeys(key for facts in trainings for key in facts):
        said = [facts.get(key, "not stated") for facts in trainings]
        runs = (f"{number}: {text}" for number, text in enumerate(said, 1))
        joined[key] = said[0] if len(set(said)) == 1 else "; ".join(runs)
    facts = {"training": joined}
    facts |= {key: cards[0][key] for key in ("before", "curve", "curve_note") if key in cards[0]}
    if "curve_note" in facts and len(cards) > 1:
        facts["curve_note"] += " Of the first alone, before the mean."
    return facts


def main(arguments=None):
    """Load the files, write their mean and its card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="+", type=Path, help="files with their cards beside them")
    parser.add_argument("--output", required=True, type=Path, help="folder of the mean")
    chosen = parser.parse_args(arguments)
    cards = [json.loads(p.with_suffix(".json").read_text(encoding="utf-8")) for p in chosen.weights]
    sam = mean_of([load_small_sam(path) for path in chosen.weights])
    print(save_small_sam(sam, chosen.output, joined_facts(cards)))


if __name__ == "__main__":
    main()
