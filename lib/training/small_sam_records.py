"""Records of how a small SAM follows prompts on real and on generated images.

    python -m lib.training.small_sam_records --data-root polyps=DIR [--data-root NAME=DIR ...]

One record a data set under `results/small_sam`, with every image's scores. Nothing is trained.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from lib.data.engine import VERSION
from lib.evaluation.provenance import provenance
from lib.evaluation.records import Record, find_record, write_record
from lib.sam.checkpoints import sam_label
from lib.sam.small import IMAGE_SIZE, WEIGHTS, load_small_sam
from lib.training.small_sam_card import update_card
from lib.training.small_sam_evaluation import (
    BOX_ERROR,
    CLICKS,
    evaluate_prompts,
    summarise_prompts,
)
from lib.training.small_sam_objects import (
    HELD_OUT_SEED,
    generated_objects,
    named_folder,
    named_once,
    real_objects,
)

METHOD = "small_sam"
IMAGES = 300  # of a set that are scored


def run_of(
    *, dataset, fingerprint, seed=0, variant="zero-shot", parameters=None, weights="", limit=IMAGES
) -> Record:
    """A record before anything was measured; by it an older one is found.

    `weights`: which were measured or, with `parameters` (how they were trained on), started from,
    such as "small (1ab7081d)"; `limit`: at most so many images are scored.
    """
    return Record(
        method=METHOD,
        variant=variant,
        dataset=dataset,
        dataset_fingerprint=fingerprint,
        split_sha256="",
        labelled_fraction=None,
        labelled_count=0,
        seed=seed,
        scores={},
        per_image={},
        parameters={
            "size": IMAGE_SIZE,
            "box_error": BOX_ERROR,
            "clicks": CLICKS,
            "images_at_most": limit,
        }
        | ({"sam": weights} if weights else {})
        | {f"tuning_{key}": value for key, value in (parameters or {}).items()},
    )


def measured(run, sam, images, masks, names, *, classical=0) -> Record:
    """Evaluate `images` (`N x 3 x 256 x 256`) and `masks` (bool) into the record `run`.

    `classical`: on so many of them GrabCut and random walker are run too.
    """
    began = time.monotonic()
    origin = provenance()
    scores = evaluate_prompts(sam, images, masks, classical=classical)
    rows = [
        {"name": name, **{key: float(values[k]) for key, values in scores.items()}}
        for k, name in enumerate(names)
    ]
    means = summarise_prompts(scores) | {"images": len(names)}
    if classical:
        means["images_of_classics"] = min(classical, len(names))
    seconds = time.monotonic() - began
    found = {"scores": {"last": means}, "per_image": {"last": rows}, "seconds": seconds}
    return replace(run, **found, **origin)


def main(arguments=None):
    """Evaluate weights, write the records and, if asked to, the card's table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data-root", action="append", default=[], type=named_folder, metavar="[NAME=]DIR",
        help="folder of a data set, and what the card calls it",
    )  # fmt: skip
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="default: the shipped ones")
    parser.add_argument("--variant", default="zero-shot", help="what the records call the weights")
    parser.add_argument("--results", default="results/small_sam")
    parser.add_argument("--images", type=int, default=IMAGES, help="at most so many of each set")
    parser.add_argument("--classical", type=int, default=100, help="with GrabCut and random walker")
    parser.add_argument(
        "--generated", action=argparse.BooleanOptionalAction, default=True,
        help="score generated images too",
    )  # fmt: skip
    parser.add_argument(
        "--card", action="store_true", help="write the means into the card, beside those it has"
    )
    chosen = parser.parse_args(arguments)
    sam, accuracy = load_small_sam(chosen.weights), {}
    sets = [(name, root, None) for name, root in named_once(parser, chosen.data_root).items()]
    if chosen.generated:
        images, masks, names = generated_objects(chosen.images)
        sets.insert(0, ("generated", "Generated", f"engine {VERSION}, seed {HELD_OUT_SEED}"))
    for name, source, fingerprint in sets:
        if fingerprint is None:
            dataset, images, masks, names = real_objects(source, chosen.images)
            source, fingerprint = dataset.title, dataset.fingerprint()
        run = run_of(
            dataset=source, fingerprint=fingerprint, variant=chosen.variant,
            weights=sam_label("small", chosen.weights), limit=chosen.images,
        )  # fmt: skip
        if found := find_record(run, chosen.results):
            print(f"{name}: recorded already")
            accuracy[name] = found.scores["last"]
            continue
        record = measured(run, sam, images, masks, names, classical=chosen.classical)
        print(write_record(record, chosen.results), flush=True)
        accuracy[name] = record.scores["last"]
    if chosen.card:
        card = json.loads(chosen.weights.with_suffix(".json").read_text(encoding="utf-8"))
        update_card(chosen.weights, accuracy=card.get("accuracy", {}) | accuracy)


if __name__ == "__main__":
    main()
