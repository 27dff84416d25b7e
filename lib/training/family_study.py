"""The semi-supervised family side by side: one record a method, label budget and seed.

All runs of a cell see the same labelled and unlabelled images in the same order for the same number
of steps; they differ only in what they do with them. Finished runs are found again by their
records and interrupted ones by their checkpoints, so a study goes on where it stopped.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from segment_anything.modeling import Sam

from lib.data.batches import BatchStream
from lib.evaluation.metrics import summarise
from lib.evaluation.provenance import provenance
from lib.evaluation.records import Record, find_record, write_record
from lib.models.unet_2d import WIDTHS
from lib.sam.frozen import FrozenSam
from lib.training.evaluate import evaluate
from lib.training.family import BASELINES, WITH_SAM, Budget, batches, build_method
from lib.training.history import History
from lib.training.knowsam_switches import ABLATIONS, SWITCHES, build_switched
from lib.training.method import Method
from lib.training.study import (
    StudyCell,
    add_cost,
    cell_record,
    folder_name,
    score_test_images,
    summary,
    train,
)

VARIANTS = {None: "", "frozen": "SKD, frozen SAM", "adapted": "SKD, adapted SAM"}
OF_SAM = ("sam", "sam_size")  # settings that change nothing without one
# Keys of the records' scores beside "last" and "best", which are scores of test images.
BY_NETWORK, BY_SAM = "unlabelled images, network", "unlabelled images, SAM"


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """What all runs of a study have in common; `paper()` is KnowSAM's protocol.

    size: side of the networks' images in pixels; sam_size: side of the images SAM is shown.
    widths, steps, labelled_batch, unlabelled_batch: see `lib.training.family.Budget`.
    learning_rate: at the start, of every method's SGD on its networks; it falls to 0 in a straight
        line. The default is five times KnowSAM's 0.01, because of the few steps: with it U-Net,
        V-Net, MC-seg and KnowSAM all learn in 400 (chosen on validation images).
    max_grad_norm: longer gradients of an optimiser are scaled down to it; None (the paper's): none
        are. At the higher rate networks without norm layers (V-Net) diverge without it.
    validations: how often a run is scored on the validation images, evenly over its steps.
    diagnosed: of how many unlabelled images, evenly chosen, the masks are compared with the truth
        after training; 0 for none.
    sam: which one the methods with a SAM get.
    """

    size: int = 64
    sam_size: int = 128
    widths: tuple[int, ...] = WIDTHS
    steps: int = 400
    labelled_batch: int = 4
    unlabelled_batch: int = 4
    learning_rate: float = 0.05
    max_grad_norm: float | None = 1.0
    validations: int = 10
    diagnosed: int = 120
    sam: str = "small"
    device: str = "auto"
    precision: str = "32-true"


def paper(**changes) -> FamilyConfig:
    """Return KnowSAM's protocol: for a GPU and SAM's own weights."""
    sizes = {
        "size": 256, "sam_size": 256, "steps": 50_000, "labelled_batch": 12, "unlabelled_batch": 12,
        "learning_rate": 0.01, "max_grad_norm": None, "validations": 50,
        "sam": "vit_b", "precision": "bf16-mixed",
    }  # fmt: skip
    return FamilyConfig(**{**sizes, **changes})


@dataclass(kw_only=True)
class FamilyCell(StudyCell):
    """A `StudyCell` whose methods each get a SAM of their own, since adapters change it."""

    config: FamilyConfig
    sam: Callable[[], Sam]


def can_run(cell: FamilyCell, name: str, distillation: str | None = None) -> bool:
    """Whether the run makes sense: with all labels only the plain baselines do.

    Here and below, `name` is one of `lib.training.family.NAMES`, or a row of KnowSAM's ablations
    (`lib.training.knowsam_switches.ABLATIONS`), which has no distillation on top.
    """
    return bool(cell.unlabelled) or (name in BASELINES and distillation is None)


def recorded(cell: FamilyCell, name: str, distillation: str | None = None) -> Record | None:
    """The record of a run that was made before, or None.

    Raises:
        RecordError: there is a record of that name, but of other data or another configuration;
            found out here rather than when the training is over.
    """
    run = _record(cell, name, distillation, {}, {})
    run.parameters = _compared(cell, name, distillation)
    return find_record(run, cell.results)


def run_method(cell: FamilyCell, name: str, distillation: str | None = None) -> Record:
    """Train one method, choose by validation, read the test set once, write the record.

    Args:
        cell: data, budget, seed.
        name: a method or a row of KnowSAM's ablations, see `can_run`.
        distillation: None, or "frozen" or "adapted" for SAM-induced distillation on top.

    Raises:
        ValueError: a row of the ablations with a distillation, or what `build_method` refuses.
    """
    origin = provenance()
    method = build(cell, name, distillation)
    stream = BatchStream(
        cell.dataset,
        labelled=cell.labelled,
        unlabelled=cell.unlabelled,
        seed=cell.seed,
        **batches(method),
    )
    history = train(
        cell,
        method,
        stream,
        steps=cell.config.steps,
        folder=_folder(cell, name, distillation),
        max_grad_norm=cell.config.max_grad_norm,
    )
    record = _record(cell, name, distillation, score_test_images(cell, method, history), origin)
    record.scores |= mask_quality(cell, method)
    record.parameters["method"] = method.hyperparameters()
    add_cost(record, history)
    record.history = {**summary(history), "last_tenth": _last_tenth(history)}
    write_record(record, cell.results)
    return record


def build(cell: FamilyCell, name: str, distillation: str | None = None) -> Method:
    """The method at the study's budget, with the cell's seed."""
    config = cell.config
    budget = Budget(
        widths=config.widths,
        labelled_batch=config.labelled_batch,
        unlabelled_batch=config.unlabelled_batch,
        steps=config.steps,
        size=config.size,
    )
    make = build_method
    if name in ABLATIONS:
        if distillation is not None:
            raise ValueError(f"{name} is a row of KnowSAM's ablations: it takes no distillation")
        make = build_switched
    return make(
        name,
        classes=cell.dataset.classes,
        budget=budget,
        seed=cell.seed,
        sam=cell.sam,
        freeze=partial(FrozenSam, device=config.device, encode_at_once=_batch(config)),
        distillation=distillation,
        learning_rate=config.learning_rate,
    )


def mask_quality(cell: FamilyCell, method: Method) -> dict[str, dict[str, float]]:
    """Scores of masks of unlabelled training images: the network's and, where there is one, SAM's.

    It reads the masks of unlabelled images to report on them; training never does.
    """
    count = min(cell.config.diagnosed, len(cell.unlabelled))
    if not count:
        return {}
    # Evenly spaced, so that no stretch of the file names is preferred.
    chosen = [cell.unlabelled[i * len(cell.unlabelled) // count] for i in range(count)]
    painters = {BY_NETWORK: method}
    if hasattr(method, "predict_with_sam"):
        painters[BY_SAM] = method.predict_with_sam
    return {
        who: summarise(evaluate(painter, cell.dataset, chosen, device=cell.config.device))
        for who, painter in painters.items()
    }


def _batch(config: FamilyConfig) -> int:
    return config.labelled_batch + config.unlabelled_batch


def _record(
    cell: FamilyCell, name: str, distillation: str | None, rows: dict, origin: dict
) -> Record:
    method, variant = name, VARIANTS[distillation]
    if name in ABLATIONS:
        method, variant = SWITCHES[name].method, name
    return cell_record(cell, method, variant, rows, parameters=_parameters(cell), origin=origin)


def _last_tenth(history: History) -> dict[str, float]:
    """Each loss's mean over the last tenth of the steps."""
    last = history.steps[-max(1, len(history.steps) // 10) :]
    return {
        key: sum(row[key] for row in last) / len(last)
        for key in last[0]
        if key not in ("step", "seconds")
    }


def _folder(cell: FamilyCell, name: str, distillation: str | None) -> str:
    """Return a folder name that changes with whatever changes the run."""
    words = f"{name.replace('+', ' plus ')} {distillation or 'plain'}"
    return folder_name(cell, words, _compared(cell, name, distillation))


def _compared(cell: FamilyCell, name: str, distillation: str | None) -> dict:
    """The parameters that make two runs of a name the same: without a SAM, none that are of SAM."""
    method = SWITCHES[name].method if name in ABLATIONS else name
    left_out = () if distillation or method in WITH_SAM else OF_SAM
    return {key: value for key, value in _parameters(cell).items() if key not in left_out}


def _parameters(cell: FamilyCell) -> dict:
    """Return the configuration as JSON gives it back, without where it ran."""
    parameters = json.loads(json.dumps(asdict(cell.config)))
    parameters.pop("device")
    return parameters
