"""A small SAM that has seen medical images: fine-tuned on folders of masks, judged on another.

    python -m lib.training.small_sam_tuning --output DIR \
        --data-root polyps=DIR --data-root ultrasound=DIR ... [--leave-out polyps ...]

For each data set that is left out, the shipped small SAM is trained a little further, with the
recipe of its pretraining, on all the others, and scored on the one that it did not see. What it
gains over the shipped weights is what knowing *other* medical images is worth (MedSAM's claim:
Ma et al. 2024, arXiv 2304.12306). Weights and card go to DIR/without-NAME;
`load_sam("small", "DIR/without-NAME/small_sam.safetensors")` makes a teacher of them.

Two things are kept from the pretraining, against forgetting: as many generated images are mixed in
as real ones, and what is scored is the mean of the weights before and after. Without the first
(`--generated 0`), where the only reddish images of the training have vessels to be drawn, vessels
are drawn on polyps; the second (`--keep`) is how the shipped weights were made.
"""

import argparse
import copy
from pathlib import Path

import torch

from lib.data.generated import GeneratedStream, ImagePool
from lib.data.object_pool import JoinedPools, ObjectPool
from lib.data.open import open_dataset
from lib.evaluation.records import find_record, write_record
from lib.sam.checkpoints import sam_label
from lib.sam.resize import resize_positions
from lib.sam.small import IMAGE_SIZE, load_small_sam
from lib.training.loop import fit
from lib.training.small_sam import SmallSamConfig, SmallSamPretraining
from lib.training.small_sam_card import save_small_sam
from lib.training.small_sam_objects import named_folder, named_once, real_objects
from lib.training.small_sam_records import IMAGES, measured, run_of
from lib.training.small_sam_soup import mix

TUNED = "tuned on the other sets"
# A gentle continuation; the average follows within the few steps.
CONFIG = SmallSamConfig(learning_rate=3e-4, warmup=0.1, ema=0.99)


def tune(
    output, datasets, *, left_out, steps, size=IMAGE_SIZE, per_set=200, generated=1.0, keep=0.5,
    seed=0, start=load_small_sam, config=None, progress=True,
):  # fmt: skip
    """Train on all of `datasets` but `left_out`; returns the averaged SAM in eval mode.

    Args:
        output: folder of checkpoints and weights; an interrupted run resumes there.
        datasets: name -> data set with 256 px a side.
        left_out: the name that is not trained on, or None to train on all.
        size: 256, or 128 for a quarter of the cost a step.
        per_set: images of each data set.
        generated: generated images for each real one; 0 for none.
        keep: share of the weights before in what is returned; 0 for those after alone.
        start: makes the SAM to go on from; `config`: default `CONFIG`.

    Raises:
        ValueError: if `left_out` is not among the names, nothing else is there, `generated` is
            negative, or `keep` is outside [0, 1].
    """
    if left_out is not None and left_out not in datasets:
        raise ValueError(f"left_out must be one of {', '.join(datasets)}, not {left_out!r}")
    seen = {name: data for name, data in datasets.items() if name != left_out}
    if not seen:
        raise ValueError("datasets must hold at least one that is not left out")
    if generated < 0:
        raise ValueError(f"generated must not be negative, got {generated}")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep must be in [0, 1], got {keep}")
    pool = ObjectPool(seen, per_set=per_set, seed=seed, progress=progress)
    if count := round(generated * pool.count):
        drawn = ImagePool(Path(output) / "pool", seed=seed, count=count)
        pool = JoinedPools(pool, drawn.fill(progress=progress))
    torch.manual_seed(seed)
    config = config or CONFIG
    method = SmallSamPretraining(config, sam=resize_positions(start(), size))
    stream = GeneratedStream(pool, batch=config.batch, size=size, seed=seed)
    fit(
        method, stream, steps=steps, directory=Path(output) / "steps", max_grad_norm=1.0,
        progress=progress,
    )  # fmt: skip
    sam = resize_positions(copy.deepcopy(method.average).cpu(), IMAGE_SIZE).eval()
    training = {
        "Data": f"the shipped small SAM, then real images: {', '.join(seen)}; {count} generated",
        "Steps": f"{steps} of {config.batch} images at {size} px",
        "Recipe": "`lib/training/small_sam_tuning.py`",
        "Terms": "those of the data it was trained on; not shipped with this project",
    }
    if keep:
        mix(sam, start(), share=keep)
        training["Weights"] = f"{keep:g} of those before and {1 - keep:g} of those after"
    save_small_sam(sam, output, {"training": training, "trained_on": sorted(seen)})
    return sam


def variant_of(generated=1.0, keep=0.5) -> str:
    """What a record calls weights that were made with these settings of `tune`."""
    without = (", nothing generated" * (not generated), ", no mean" * (not keep))
    return TUNED + "".join(without)


def main(arguments=None):
    """Leave one data set out after the other; one record each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the weights")
    parser.add_argument(
        "--data-root", action="append", required=True, type=named_folder, metavar="[NAME=]DIR",
        help="folder of a data set",
    )  # fmt: skip
    parser.add_argument("--leave-out", nargs="+", help="names; default: each in turn")
    parser.add_argument(
        "--all", action="store_true", help="leave none out: no record, weights only"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, choices=(128, 256), default=256)
    parser.add_argument("--per-set", type=int, default=200, help="images of each data set")
    parser.add_argument(
        "--generated", type=float, default=1.0, help="generated images for each real one"
    )
    parser.add_argument("--keep", type=float, default=0.5, help="share of the weights before")
    parser.add_argument("--images", type=int, default=IMAGES, help="at most so many are scored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", default="results/small_sam")
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.keep <= 1:
        parser.error(f"--keep must be in [0, 1], not {chosen.keep:g}")
    roots = named_once(parser, chosen.data_root)
    datasets = {n: open_dataset("folder", root=r, size=IMAGE_SIZE) for n, r in roots.items()}
    settings = {
        "steps": chosen.steps, "size": chosen.size, "per_set": chosen.per_set,
        "generated": chosen.generated, "keep": chosen.keep, "seed": chosen.seed,
    }  # fmt: skip
    if chosen.all:
        tune(chosen.output / "all", datasets, left_out=None, **settings)
        return
    if unknown := sorted(set(chosen.leave_out or ()) - set(roots)):
        parser.error(f"--leave-out {unknown[0]}: the data sets are {', '.join(roots)}")
    for name in chosen.leave_out or roots:
        dataset, images, masks, names = real_objects(roots[name], chosen.images)
        others = (data for other, data in datasets.items() if other != name)
        trained_on = sorted(f"{data.title} ({data.fingerprint()[:8]})" for data in others)
        run = run_of(
            dataset=dataset.title, fingerprint=dataset.fingerprint(), seed=chosen.seed,
            variant=variant_of(chosen.generated, chosen.keep), weights=sam_label("small"),
            parameters={**settings, "trained_on": trained_on}, limit=chosen.images,
        )  # fmt: skip
        if find_record(run, chosen.results):
            print(f"{name}: recorded already")
            continue
        sam = tune(chosen.output / f"without-{name}", datasets, left_out=name, **settings)
        record = measured(run, sam, images, masks, names)
        print(write_record(record, chosen.results), flush=True)


if __name__ == "__main__":
    main()
