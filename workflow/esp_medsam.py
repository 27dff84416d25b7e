"""Run the ESP-MedSAM study on several modalities: a record a variant, domain and evaluation.

    python workflow/esp_medsam.py --synthetic --size 128 --seeds 0
    python workflow/esp_medsam.py --modality polyps=data/kvasir \
        --modality xray=data/lungs:unseen=Montgomery --left-out polyps --leak polyps

Give each modality by its folder. Behind ":unseen=" stand the domains (column domain or group of
its index.csv) that training never meets; ":unseen" alone keeps the whole folder for testing.
Stages that ran are loaded and variants whose records exist are skipped, so that the same command
goes on after an interruption. Give each job of a cluster its own --variants and --seeds.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lib.data.splits import Split, check_leaks
from lib.evaluation.records import Record
from lib.sam.checkpoints import load_sam, sam_label
from lib.sam.embeddings import EmbeddingCache, room_for
from lib.training.errors import TrainingError
from lib.training.esp_medsam.controllers import JointConfig
from lib.training.esp_medsam.recipe import EspRecipe
from lib.training.esp_medsam.segmentation import SegmentationConfig
from lib.training.esp_medsam.study import EVALUATIONS, EspStudy, run_bounds, run_variant, variants
from lib.training.esp_medsam.study_data import (
    Limits,
    StudyData,
    parse_source,
    prepare,
    synthetic_sources,
)
from lib.training.esp_medsam.transfer import TransferConfig, run_leak, run_left_out

STAGES = ("common", "teacher", "joint", "controllers", "fine_tune", "classifier")
PAPER = {"joint": JointConfig(), "fine_tune": SegmentationConfig.fine_tune()}


def main() -> None:
    """Read the command line and run everything asked for, seed by seed."""
    options = _arguments()
    recipe = EspRecipe.quick() if options.profile == "quick" else EspRecipe(**PAPER)
    recipe = with_stages(recipe, options.steps, options.rates, options.batch)
    known = variants(recipe)
    names = known if options.variants == ["all"] else options.variants
    _require("--variants", names, known)
    data = _data(options)
    for option in ("left_out", "leak"):
        name = f"--{option.replace('_', '-')}"
        _require(name, getattr(options, option), data.mixture.modalities)
    print(f"{len(data.train)} training images; test: {', '.join(t.title for t in data.tests)}")
    print(_leaks(data))
    masks = recipe.fine_tune  # which every variant ends in
    rate = dict(options.rates).get("transfer", 2e-3)
    steps = int(dict(options.steps).get("transfer", 200))
    masks = replace(masks, learning_rate=rate, steps=steps)
    transfer = TransferConfig(masks=masks, images=options.images)
    room = room_for(4 * len(data.train), options.size)  # two views, SAM's and the teacher's
    for seed in options.seeds:
        study = EspStudy(
            data=data,
            recipe=recipe,
            sam=load_sam(options.sam, options.checkpoint, image_size=options.size),
            seed=seed,
            results=options.output,
            directory=options.checkpoints,
            sam_name=sam_label(options.sam, options.checkpoint),
            cache=EmbeddingCache(options.cache, max_bytes=room),
            replace=options.replace,
            settings={"device": options.device, "precision": options.precision},
        )
        if options.bounds:
            _tell(run_bounds(study))
        for name in names:
            _tell(run_variant(study, name, evaluations=options.evaluations))
        for modality in options.left_out:
            _tell(run_left_out(study, modality, transfer))
        for modality in options.leak:
            _tell(run_leak(study, modality, transfer))


def with_stages(
    recipe: EspRecipe,
    steps: list[tuple[str, float]],
    rates: list[tuple[str, float]],
    batch: int | None,
) -> EspRecipe:
    """The recipe with other lengths, learning rates and batches; 0 steps leave a stage out."""
    changed = {name: getattr(recipe, name) for name in STAGES}
    for name, number in steps:
        length = "epochs" if name == "controllers" else "steps"
        if name in changed and not number:
            changed[name] = None
        elif changed.get(name):
            changed[name] = replace(changed[name], **{length: int(number)})
    for name, rate in rates:
        if changed.get(name):
            changed[name] = replace(changed[name], learning_rate=rate)
    if batch:
        changed = {name: stage and replace(stage, batch=batch) for name, stage in changed.items()}
    return replace(recipe, **changed)


def _data(options: argparse.Namespace):
    limits = Limits(train=options.limit, test=options.test_limit)
    sources = [parse_source(text, size=options.size) for text in options.modality]
    if options.synthetic:
        sources += synthetic_sources(size=options.size, count=2 * options.limit)
    if not sources:
        raise SystemExit("give --modality NAME=DIR (several times) or --synthetic")
    return prepare(sources, limits=limits, splits=options.splits, part=options.part)


def _leaks(data: StudyData):
    """What training and test images have in common, which should be nothing."""
    tested = [i for test in data.tests for i in test.indices]
    parts = ([data.mixture.names[i] for i in part] for part in (data.train, data.val, tested))
    return check_leaks(data.mixture, Split(*parts))


def _require(option: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a name that nothing has before anything is trained."""
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{option} {unknown[0]!r}: known are {', '.join(known)}")


def _tell(records: list[Record]) -> None:
    for record in records:
        scores = record.scores["last"]
        print(
            f"{record.label:45s} {record.dataset:40s} Dice {scores['dice']:.3f} "
            f"IoU {scores['iou']:.3f} HD95 {scores['hd95']:.1f} px, {scores['images']} images",
            flush=True,
        )


def _number(text: str) -> tuple[str, float]:
    """NAME=NUMBER of a stage (or "transfer")."""
    name, _, number = text.partition("=")
    if name not in (*STAGES, "transfer"):
        raise argparse.ArgumentTypeError(f"{text!r}: give one of {', '.join(STAGES)}, transfer")
    return name, float(number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--modality", action="append", default=[], help="NAME=DIR[:unseen[=GROUP,GROUP]]"
    )
    parser.add_argument("--synthetic", action="store_true", help="six generated modalities")
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 32")
    parser.add_argument("--limit", type=int, default=100, help="training images a modality")
    parser.add_argument("--test-limit", type=int, default=50, help="images of a test set")
    parser.add_argument("--splits", type=Path, help="folder of split files, made where missing")
    parser.add_argument("--part", choices=("test", "val"), default="test", help="what is scored")
    parser.add_argument("--profile", choices=("quick", "paper"), default="quick")
    parser.add_argument("--sam", default="small", help="small, vit_b, vit_l or vit_h")
    parser.add_argument("--checkpoint", type=Path, help="SAM's checkpoint, where it has one")
    parser.add_argument(
        "--steps", type=_number, nargs="+", default=[], metavar="STAGE=N",
        help="lengths; controllers in epochs; 0 leaves a stage out, but not fine_tune",
    )  # fmt: skip
    parser.add_argument("--rates", type=_number, nargs="+", default=[], metavar="STAGE=RATE")
    parser.add_argument("--batch", type=int, help="images a step; a multiple of the modalities")
    parser.add_argument("--variants", nargs="*", default=["both"], help="names, or all")
    parser.add_argument("--evaluations", nargs="+", default=list(EVALUATIONS), choices=EVALUATIONS)
    parser.add_argument("--bounds", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--left-out", nargs="*", default=[], metavar="MODALITY")
    parser.add_argument("--images", type=int, default=10, help="of the left-out modality")
    parser.add_argument("--leak", nargs="*", default=[], metavar="MODALITY")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed or 16-mixed")
    parser.add_argument("--output", type=Path, default=Path("results/esp_medsam"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints/esp_medsam"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/embeddings"))
    parser.add_argument("--replace", action="store_true", help="overwrite records")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, TrainingError) as error:  # data, records, weights, settings, checkpoints
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        sys.exit(130)
