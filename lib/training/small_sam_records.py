"""Records of how the shipped small SAM follows prompts on real and on generated images.

    python -m lib.training.small_sam_records --data-root DIR [--data-root DIR ...]

One record a data set under `results/small_sam`, with every image's scores. Nothing is trained.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from lib.data.engine import VERSION, generate
from lib.data.open import open_dataset
from lib.evaluation.provenance import provenance
from lib.evaluation.records import Record, write_record
from lib.sam.checkpoints import load_sam
from lib.sam.small import IMAGE_SIZE
from lib.training.small_sam_evaluation import (
    BOX_ERROR,
    CLICKS,
    evaluate_prompts,
    largest_object,
    summarise_prompts,
)

METHOD = "small_sam"
HELD_OUT_SEED = 999
SMALLEST = 20  # px at 256 px: below that a box is a few pixels wide


def record_of(sam, images, masks, names, *, dataset, fingerprint, seed=0) -> Record:
    """Evaluate `images` (`N x 3 x 256 x 256`) and `masks` (bool) into a record."""
    began = time.monotonic()
    origin = provenance()
    scores = evaluate_prompts(sam, images, masks, seed=seed)
    rows = [
        {"name": name, **{key: float(values[k]) for key, values in scores.items()}}
        for k, name in enumerate(names)
    ]
    means = summarise_prompts(scores) | {"images": len(names)}
    return Record(
        method=METHOD,
        variant="zero-shot",
        dataset=dataset,
        dataset_fingerprint=fingerprint,
        split_sha256="",
        labelled_fraction=None,
        labelled_count=0,
        seed=seed,
        scores={"last": means},
        per_image={"last": rows},
        parameters={"size": IMAGE_SIZE, "box_error": BOX_ERROR, "clicks": CLICKS},
        seconds=time.monotonic() - began,
        **origin,
    )


def real_objects(root, limit):
    """Largest objects of at most `limit` images, drawn with a fixed seed, of a data set's folder.

    Returns the data set, images `N x 3 x 256 x 256`, masks (bool) and names.
    """
    dataset = open_dataset("folder", root=root, size=IMAGE_SIZE)
    images, masks, names = [], [], []
    for index in np.random.default_rng(0).permutation(len(dataset)):
        found = largest_object(dataset.mask(int(index)))
        if found is None or found.sum() < SMALLEST:
            continue
        images.append(dataset.image(int(index)))
        masks.append(torch.from_numpy(found))
        names.append(dataset.names[int(index)])
        if len(images) == limit:
            break
    return dataset, torch.stack(images), torch.stack(masks), names


def generated_objects(count, seed=HELD_OUT_SEED):
    """Generated images of a seed that no pool uses (uint8), their largest objects and names."""
    scenes = [generate(seed, index) for index in range(count)]
    images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes])
    masks = np.stack([s.masks[s.masks.sum((1, 2)).argmax()] for s in scenes])
    return images, torch.from_numpy(masks), [f"{seed}-{k}" for k in range(count)]


def main(arguments=None):
    """Evaluate the shipped weights and write the records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", action="append", default=[], help="folder of a data set")
    parser.add_argument("--results", default="results/small_sam")
    parser.add_argument("--images", type=int, default=300, help="at most so many of each set")
    chosen = parser.parse_args(arguments)
    sam = load_sam("small")
    images, masks, names = generated_objects(chosen.images)
    origin = f"engine {VERSION}, seed {HELD_OUT_SEED}"
    facts = {"dataset": "Generated", "fingerprint": origin}
    print(write_record(record_of(sam, images, masks, names, **facts), chosen.results))
    for root in map(Path, chosen.data_root):
        dataset, images, masks, names = real_objects(root, chosen.images)
        facts = {"dataset": dataset.title, "fingerprint": dataset.fingerprint()}
        print(write_record(record_of(sam, images, masks, names, **facts), chosen.results))


if __name__ == "__main__":
    main()
