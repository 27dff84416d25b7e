"""Run the Knowledge Mining study on a folder of images: one record a run, resumable.

    python workflow/knowledge_mining.py --data-root DIR --split results/splits/NAME.json \
        --fractions 0.05 0.25 --seeds 0 1 2

Cells whose records exist are skipped; cells that were interrupted go on from their checkpoints.
Give each job of a cluster its own --fractions and --seeds: the cells do not depend on each other.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from lib.data.open import open_dataset
from lib.data.splits import Split, load_split, make_split, save_split
from lib.sam.checkpoints import load_sam, sam_label
from lib.sam.embeddings import EmbeddingCache, room_for
from lib.sam.frozen import FrozenSam
from lib.training.errors import TrainingError
from lib.training.mining_study import (
    RUNS,
    Cell,
    StudyConfig,
    paper,
    recorded,
    run_cell,
    run_names,
)


def main() -> None:
    """Read the command line and run every cell of the grid."""
    options = _arguments()
    sizes = {"keep": options.keep, "sam": options.sam}
    sizes |= {"size": options.size, "first_steps": options.steps, "fine_steps": options.fine_steps}
    sizes |= {"batch": options.batch, "precision": options.precision, "encoder": options.encoder}
    sizes |= {"fine_learning_rate": options.fine_rate, "validations": options.validations}
    sizes |= {"prompt_mode": options.prompt_mode}
    sizes |= {"runs": options.runs and tuple(options.runs)}
    given = {key: value for key, value in sizes.items() if value is not None}
    config = paper(**given) if options.profile == "paper" else StudyConfig(**given)

    dataset = _open(options, config.size)
    split = _split(options, dataset)
    room = room_for(len(split.train), config.sam_size)
    cache = EmbeddingCache(options.cache, max_bytes=room)
    sam = load_sam(config.sam, options.checkpoint, image_size=config.sam_size)
    sam = FrozenSam(sam, cache=cache, device=config.device)
    config = replace(config, sam=sam_label(config.sam, options.checkpoint))  # for the records
    sam_dataset = _open(options, config.sam_size)

    for seed in options.seeds:
        for fraction in options.fractions:
            cell = Cell(
                dataset=dataset,
                sam_dataset=sam_dataset,
                split=split,
                fraction=fraction,
                seed=seed,
                config=config,
                sam=sam,
                results=options.output,
                checkpoints=options.checkpoints,
            )
            if all(recorded(cell, name) for name in run_names(cell)):
                print(f"{dataset.title}, {fraction:.0%} labels, seed {seed}: recorded already")
                continue
            print(f"{dataset.title}, {fraction:.0%} labels, seed {seed}")
            for record in run_cell(cell):
                scores = ", ".join(f"{k} {v['dice']:.3f}" for k, v in record.scores.items())
                print(f"  {record.method}: Dice {scores}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="folder", help="folder, synthetic or a layout's name")
    parser.add_argument("--data-root", type=Path, help="the folder of the data set")
    parser.add_argument("--task", help="which masks, for data sets with several kinds")
    parser.add_argument("--title", help="name of the data set in records and tables")
    parser.add_argument("--split", type=Path, required=True, help="split file; made if missing")
    parser.add_argument("--val", type=float, default=0.08, help="share of validation images")
    parser.add_argument("--test", type=float, default=0.12, help="share of test images")
    parser.add_argument(
        "--own-split", action=argparse.BooleanOptionalAction, default=True,
        help="the test and validation images that the data's authors chose, where they did",
    )  # fmt: skip
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.05, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--profile", choices=("quick", "paper"), default="quick")
    parser.add_argument("--sam", help="small, vit_b, vit_l or vit_h")
    parser.add_argument("--checkpoint", type=Path, help="SAM's checkpoint, where it has one")
    parser.add_argument("--keep", type=int, help="objects prompted an image (3 polyps, 2 lungs)")
    parser.add_argument("--prompt-mode", help="points+box (the default), box, points, ...")
    parser.add_argument("--size", type=int, help="side of the network's images in pixels")
    parser.add_argument("--encoder", help="of the U-Net++, as segmentation-models-pytorch names it")
    parser.add_argument("--steps", type=int, help="steps before mining")
    parser.add_argument("--fine-steps", type=int, help="steps after mining")
    parser.add_argument("--fine-rate", type=float, help="learning rate after mining")
    parser.add_argument("--runs", nargs="+", choices=RUNS, help="after the first; default: all")
    parser.add_argument("--validations", type=int, help="how often a run is scored on validation")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--precision", help="32-true, bf16-mixed or 16-mixed")
    parser.add_argument("--output", type=Path, default=Path("results/knowledge_mining"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/embeddings"))
    return parser.parse_args()


def _open(options: argparse.Namespace, size: int):
    dataset = open_dataset(options.dataset, root=options.data_root, task=options.task, size=size)
    dataset.title = options.title or dataset.title
    return dataset


def _split(options: argparse.Namespace, dataset) -> Split:
    if options.split.exists():
        return load_split(options.split, dataset)
    split = make_split(dataset, val=options.val, test=options.test, own=options.own_split)
    options.split.parent.mkdir(parents=True, exist_ok=True)
    save_split(split, options.split)
    return split


if __name__ == "__main__":
    try:
        main()
    except (ValueError, TrainingError) as error:  # data, records, weights, settings, checkpoints
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        sys.exit(130)
