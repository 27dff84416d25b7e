"""Run the semi-supervised family on a folder of images: one record a run, resumable.

    python workflow/semi_supervised.py --data-root DIR --split results/splits/NAME.json

Runs whose records exist are skipped; runs that were interrupted go on from their checkpoints.
Give each job of a cluster its own --methods, --fractions and --seeds: runs do not depend on each
other. `--distillation frozen` or `adapted` adds SAM-induced distillation to the methods;
`--methods ablations` runs the rows of KnowSAM's ablations, or name single ones.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from lib.data.open import open_dataset
from lib.data.splits import load_split, make_split, save_split
from lib.sam.checkpoints import load_sam, sam_label
from lib.training.errors import TrainingError
from lib.training.family import NAMES, SAM_TEACHERS, WITH_SAM
from lib.training.family_study import (
    VARIANTS,
    FamilyCell,
    FamilyConfig,
    can_run,
    paper,
    recorded,
    run_method,
)
from lib.training.knowsam_switches import ABLATIONS


def main() -> int:
    """Read the command line and run the grid; 0 when every run has its record."""
    options = _arguments()
    config = _config(options)
    dataset = open_dataset(
        options.dataset, root=options.data_root, task=options.task, size=config.size
    )
    dataset.title = options.title or dataset.title
    split = _split(options, dataset)
    sam = partial(load_sam, config.sam, options.checkpoint, image_size=config.sam_size)
    config = replace(config, sam=sam_label(config.sam, options.checkpoint))  # for the records
    failed = 0
    for seed in options.seeds:
        for fraction in options.fractions:
            cell = FamilyCell(
                dataset=dataset,
                split=split,
                fraction=fraction,
                seed=seed,
                config=config,
                sam=sam,
                results=options.output,
                checkpoints=options.checkpoints,
            )
            where = f"{dataset.title}, {fraction:.0%} labels ({len(cell.labelled)}), seed {seed}"
            print(where, flush=True)
            for distillation in options.distillation:
                for name in _methods(options, distillation):
                    failed += not _run(cell, name, distillation)
    return 1 if failed else 0


def _run(cell: FamilyCell, name: str, distillation: str | None) -> bool:
    """One run and its line; False when training broke down, which shall not stop the others."""
    label = f"{name} ({VARIANTS[distillation]})" if distillation else name
    if not can_run(cell, name, distillation):
        print(f"  {label}: left out, no image is without a label", flush=True)
        return True
    if recorded(cell, name, distillation):
        print(f"  {label}: recorded already", flush=True)
        return True
    began = time.monotonic()
    try:
        record = run_method(cell, name, distillation)
    except TrainingError as error:
        print(f"  {label}: FAILED: {error}", flush=True)
        return False
    scores = ", ".join(f"{key} {value['dice']:.3f}" for key, value in record.scores.items())
    print(f"  {label}: Dice {scores} ({time.monotonic() - began:.0f} s)", flush=True)
    return True


def _methods(options: argparse.Namespace, distillation: str | None) -> list[str]:
    """Those asked for; by default all, and below a distillation those that have no SAM yet."""
    if options.methods:
        groups = {"ablations": ABLATIONS}
        return [row for name in options.methods for row in groups.get(name, (name,))]
    return [name for name in NAMES if not (distillation and name in WITH_SAM)]


def _config(options: argparse.Namespace) -> FamilyConfig:
    sizes = {
        "size": options.size,
        "steps": options.steps,
        "learning_rate": options.rate,
        "max_grad_norm": options.max_grad_norm,
        "sam": options.sam,
        "sam_size": options.sam_size,
        "validations": options.validations,
        "diagnosed": options.diagnosed,
        "precision": options.precision,
        "device": options.device,
    }
    if options.batch:
        sizes |= dict(zip(("labelled_batch", "unlabelled_batch"), options.batch, strict=True))
    given = {key: value for key, value in sizes.items() if value is not None}
    return paper(**given) if options.profile == "paper" else FamilyConfig(**given)


def _split(options: argparse.Namespace, dataset):
    if options.split.exists():
        return load_split(options.split, dataset)
    split = make_split(dataset, val=options.val, test=options.test, own=options.own_split)
    options.split.parent.mkdir(parents=True, exist_ok=True)
    save_split(split, options.split)
    return split


def _teacher(text: str) -> str | None:
    if text not in ("off", *SAM_TEACHERS):
        raise argparse.ArgumentTypeError(f"{text!r} is none of off, {', '.join(SAM_TEACHERS)}")
    return None if text == "off" else text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", default="folder", help="folder, synthetic or a layout's name")
    add("--data-root", type=Path, help="the folder of the data set")
    add("--task", help="which masks, for data sets with several kinds")
    add("--title", help="name of the data set in records and tables")
    add("--split", type=Path, required=True, help="split file; made if missing")
    add("--val", type=float, default=0.08, help="share of validation images")
    add("--test", type=float, default=0.12, help="share of test images")
    add(
        "--own-split", action=argparse.BooleanOptionalAction, default=True,
        help="the test and validation images that the data's authors chose, where they did",
    )  # fmt: skip
    add(
        "--methods", nargs="+", choices=("ablations", *NAMES, *ABLATIONS), metavar="NAME",
        help=f"of {', '.join(NAMES)}; or ablations: {', '.join(ABLATIONS)}",
    )  # fmt: skip
    add("--distillation", nargs="+", type=_teacher, default=[None], help="off, frozen, adapted")
    add("--fractions", type=float, nargs="+", default=[0.1, 0.3], help="labelled, in (0, 1]")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--profile", choices=("quick", "paper"), default="quick")
    add("--size", type=int, help="side of the networks' images in pixels")
    add("--steps", type=int, help="optimiser steps of a run")
    add("--batch", type=int, nargs=2, metavar=("L", "U"), help="labelled and unlabelled a step")
    add("--rate", type=float, help="learning rate of the networks' SGD")
    add("--max-grad-norm", type=float, help="longer gradients are scaled down to this norm")
    add("--sam", help="small, vit_b, vit_l or vit_h")
    add("--checkpoint", type=Path, help="SAM's checkpoint, where it has one")
    add("--sam-size", type=int, help="side of the images SAM is shown, a multiple of 16")
    add("--validations", type=int, help="how often a run is scored on validation")
    add("--diagnosed", type=int, help="unlabelled images whose masks are compared with the truth")
    add("--precision", help="32-true, bf16-mixed or 16-mixed")
    add("--device", help="auto, cpu, cuda, cuda:1 or mps")
    add("--output", type=Path, default=Path("results/semi_supervised"))
    add("--checkpoints", type=Path, default=Path("checkpoints"))
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, TrainingError) as error:  # data, records, weights, settings, checkpoints
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        sys.exit(130)
