"""Knowledge Mining beside its controls: every run of one label budget and seed, as records.

All runs of a cell start from the same network f0, trained on the same labelled images, and are
fine-tuned for the same number of steps; they differ only in who draws the pseudo labels. That is
what makes a difference between two rows readable. Finished runs are found again by their
checkpoints and records, so a study that was interrupted goes on where it stopped.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from lib.data.batches import BatchStream
from lib.data.dataset import SegmentationDataset
from lib.devices import find_device, moved
from lib.evaluation.metrics import score_image
from lib.evaluation.provenance import provenance
from lib.evaluation.records import Record, find_record, write_record
from lib.models.unet_pp import build_unet_pp
from lib.prompts.from_masks import PromptConfig
from lib.sam.frozen import FrozenSam
from lib.training.knowledge_mining import KnowledgeMining, KnowledgeMiningConfig
from lib.training.pseudo_labels import PseudoLabels
from lib.training.study import (
    StudyCell,
    add_cost,
    cell_record,
    folder_name,
    score_test_images,
    summary,
    train,
)
from lib.training.supervised import Supervised, SupervisedConfig

SUPERVISED, LONGER, SELF = "supervised", "supervised, more steps", "self-training"
ONE_TIME, CONTINUOUS, UPPER = "one-time mining", "continuous mining", "SAM on true prompts"
RUNS = {
    LONGER: {"source": "none"},
    SELF: {"source": "network"},
    ONE_TIME: {"source": "sam"},
    CONTINUOUS: {"source": "sam", "rounds": 5},
    UPPER: {"source": "truth"},
}
WITHOUT_SAM = (SUPERVISED, LONGER, SELF)
OF_SAM = ("sam", "sam_size", "prompt_mode", "keep")  # settings that change nothing without one
MASKS = "masks of the unlabelled images"  # the record of control (d), and who draws them:
PAINTERS = {"network": "network", "SAM": "sam", UPPER: "truth"}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Sizes of one study. `paper()` is the full-size form; the paper states neither.

    size: side of the network's images in pixels; sam_size: side of the images SAM is shown.
    first_steps, fine_steps: optimiser steps before and after mining. batch: images a step; a
    fine-tuning step takes half of them from each stream.
    validations: how often a run is scored on the validation images, evenly over its steps.
    fine_learning_rate: of all runs after mining, by default a tenth of the first training's; the
        published records have 5e-4.
    keep: objects prompted an image (3 polyps, 2 lungs).
    prompt_mode: what SAM is prompted with, see `lib.prompts.PromptConfig`; other forms than the
        default's stand in the records as a variant, such as "box prompts".
    """

    size: int = 128
    sam_size: int = 256
    encoder: str = "tu-mobilenetv3_small_100"
    encoder_weights: str | None = None
    first_steps: int = 400
    fine_steps: int = 200
    batch: int = 16
    learning_rate: float = 1e-3
    fine_learning_rate: float = 1e-4
    validations: int = 10
    keep: int = 3
    prompt_mode: str = "points+box"
    sam: str = "small"
    device: str = "auto"
    precision: str = "32-true"
    runs: tuple[str, ...] = field(default=tuple(RUNS))


def paper(**changes) -> StudyConfig:
    """Return the full-size study, for a GPU and SAM's own weights."""
    sizes = {
        "size": 352, "sam_size": 1024, "encoder": "resnet34", "encoder_weights": "imagenet",
        "first_steps": 5000, "fine_steps": 2500, "sam": "vit_b", "precision": "bf16-mixed",
    }  # fmt: skip
    return StudyConfig(**{**sizes, **changes})


@dataclass(kw_only=True)
class Cell(StudyCell):
    """A `StudyCell` with the images that SAM is shown.

    replace: records of other runs with the same names are replaced, as when trying things out.
    """

    config: StudyConfig
    sam: FrozenSam
    sam_dataset: SegmentationDataset
    replace: bool = False


def run_cell(cell: Cell) -> list[Record]:
    """Train f0 and every run of the study from it; write and return one record a run."""
    f0, first = train_first(cell)
    records = [first]
    for name in run_names(cell)[1:]:
        record = recorded(cell, name)
        if record is None and name == MASKS:
            record = mask_quality(cell, f0.network)
        records.append(record or fine_tune(cell, name, f0.network)[1])
    return records


def run_names(cell: Cell) -> list[str]:
    """Every run that leaves a record, f0's first; with all labels nothing can be mined."""
    return [SUPERVISED, MASKS, *cell.config.runs] if cell.unlabelled else [SUPERVISED, LONGER]


def recorded(cell: Cell, name: str) -> Record | None:
    """The record of a run that was made before, or None.

    Raises:
        RecordError: there is one of that name, but of other data or settings.
    """
    if cell.replace:
        return None
    run = _record(cell, name, {}, {})
    run.parameters = _compared(cell, name)
    return find_record(run, cell.results)


def train_first(cell: Cell) -> tuple[Supervised, Record]:
    """Train f0 on the labelled images alone: where all other runs start."""
    torch.manual_seed(cell.seed)
    f0 = Supervised(
        SupervisedConfig(
            learning_rate=cell.config.learning_rate,
            batch=cell.config.batch,
            steps=cell.config.first_steps,
            size=cell.config.size,
        ),
        network=build_unet_pp(
            encoder=cell.config.encoder,
            encoder_weights=cell.config.encoder_weights,
            classes=cell.dataset.classes,
        ),
    )
    steps, batch = cell.config.first_steps, cell.config.batch
    return f0, _train(cell, SUPERVISED, f0, steps, labelled=batch)


def fine_tune(cell: Cell, name: str, f0: nn.Module) -> tuple[KnowledgeMining, Record]:
    """One of `RUNS`, from a copy of f0."""
    method = mining(cell, KnowledgeMiningConfig(**_shared(cell), **RUNS[name]), copy.deepcopy(f0))
    half = cell.config.batch // 2
    labelled, unlabelled = (cell.config.batch, 0) if name == LONGER else (half, half)
    steps = cell.config.fine_steps
    return method, _train(cell, name, method, steps, labelled=labelled, unlabelled=unlabelled)


def mining(cell: Cell, config: KnowledgeMiningConfig, network: nn.Module) -> KnowledgeMining:
    """Join the cell's parts to a method; only the source "truth" is given the true masks."""
    return KnowledgeMining(
        config,
        network=network,
        pseudo=PseudoLabels(cell.unlabelled, (cell.config.size, cell.config.size)),
        sam=cell.sam,
        sam_image=cell.sam_dataset.image,
        truth=cell.dataset.mask if config.source == "truth" else None,
    )


def mask_quality(cell: Cell, network: nn.Module) -> Record:
    """Score on U what three painters draw: the network, SAM on its prompts, SAM on true prompts.

    Control (d). It reads the masks of unlabelled images to report on them; training never does.
    """
    origin, began = provenance(), time.monotonic()
    rows = {who: mask_scores(cell, network, source=source) for who, source in PAINTERS.items()}
    record = _record(cell, MASKS, rows, origin)
    record.seconds = time.monotonic() - began
    write_record(record, cell.results, replace=cell.replace)
    return record


def mask_scores(cell: Cell, network: nn.Module, **settings) -> list[dict]:
    """Mine all of U once and score each mask; an image without pseudo label counts as empty.

    settings: of `KnowledgeMiningConfig`, such as source or prompts. Returns one row an image:
    name, "labelled" (1.0 with a pseudo label, else 0.0) and what `score_image` says.
    """
    method = mining(cell, KnowledgeMiningConfig(**{**_shared(cell), **settings}), network)
    with moved(method, find_device(cell.config.device)):
        method.mine_all(cell.dataset, cell.unlabelled)
    masks, valid = method.pseudo.get(cell.unlabelled)
    return [
        {"name": cell.dataset.names[i], "labelled": float(ok)}
        | score_image(mask, cell.dataset.mask(i), classes=cell.dataset.classes)
        for i, mask, ok in zip(cell.unlabelled, masks, valid, strict=True)
    ]


def _train(
    cell: Cell, name: str, method, steps: int, *, labelled: int, unlabelled: int = 0
) -> Record:
    """Train, choose by validation, read the test set once, write the record.

    A finished training is read from its checkpoint; a record that exists stays as it is.
    """
    origin = provenance()
    stream = BatchStream(
        cell.dataset,
        labelled=cell.labelled,
        unlabelled=cell.unlabelled if unlabelled else (),
        labelled_batch=labelled,
        unlabelled_batch=unlabelled,
        seed=cell.seed,
    )
    history = train(cell, method, stream, steps=steps, folder=_folder(cell, name))
    if known := recorded(cell, name):  # only the network was wanted
        return known
    record = _record(cell, name, score_test_images(cell, method, history), origin)
    record.parameters |= {"steps": steps, "method": method.hyperparameters()}
    add_cost(record, history)
    record.history = {**summary(history), "rounds": getattr(method, "log", [])}
    write_record(record, cell.results, replace=cell.replace)
    return record


def _record(cell: Cell, name: str, rows: dict[str, Sequence[dict]], origin: dict) -> Record:
    mode = cell.config.prompt_mode
    usual = name in WITHOUT_SAM or mode == StudyConfig.prompt_mode
    variant = "" if usual else f"{mode} prompts"
    return cell_record(cell, name, variant, rows, parameters=parameters_of(cell), origin=origin)


def _shared(cell: Cell) -> dict:
    """What all runs have in common."""
    prompts = PromptConfig(mode=cell.config.prompt_mode, keep=cell.config.keep)
    return {"learning_rate": cell.config.fine_learning_rate, "prompts": prompts}


def _folder(cell: Cell, name: str) -> str:
    """Return a folder name that changes with whatever changes the run, f0's training included.

    A checkpoint does not know which weights its run started from, so the name must.
    """
    settings = _compared(cell, name)
    if name in (LONGER, SELF):  # nobody is prompted, but checkpoints hold the prompts all the same
        settings |= {"keep": cell.config.keep, "prompt_mode": cell.config.prompt_mode}
    return folder_name(cell, name, settings)


def _compared(cell: Cell, name: str) -> dict:
    """The parameters that make two runs of a name the same: without a SAM, none that are of SAM."""
    left_out = OF_SAM if name in WITHOUT_SAM else ()
    return {key: value for key, value in parameters_of(cell).items() if key not in left_out}


def parameters_of(cell: Cell) -> dict:
    """Return what all records of a cell say of its configuration."""
    parameters = asdict(cell.config)
    for key in ("runs", "device"):
        parameters.pop(key)
    return parameters
