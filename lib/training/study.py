"""What runs of a study have in common: data by budget and seed, training, one look at the tests."""

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.data.batches import BatchStream
from lib.data.dataset import SegmentationDataset
from lib.data.splits import Split, labelled_subset
from lib.evaluation.metrics import summarise
from lib.evaluation.records import Record
from lib.training.evaluate import evaluate
from lib.training.history import History
from lib.training.loop import fit
from lib.training.method import Method
from lib.training.reporting import Reporter


@dataclass(kw_only=True)
class StudyCell:
    """One data set, label budget and seed, with everything its runs share.

    config: settings of the study; here `validations` (scores on the validation images, evenly over
        a run), `device` and `precision` are read.
    sam: the SAM of the runs that have one.
    results, checkpoints: folders; without checkpoints an interrupted run starts over.
    """

    dataset: SegmentationDataset
    split: Split
    fraction: float
    seed: int
    config: Any
    sam: Any
    results: Path
    checkpoints: Path | None = None
    progress: bool | Reporter = True

    def __post_init__(self) -> None:
        """Turn the names of the split into indices.

        Raises:
            ValueError: there is no image to learn from, to validate on or to test on.
        """
        labelled = set(labelled_subset(self.split, self.fraction, seed=self.seed))
        self.labelled = self.dataset.indices(n for n in self.split.train if n in labelled)
        self.unlabelled = self.dataset.indices(n for n in self.split.train if n not in labelled)
        self.val = self.dataset.indices(self.split.val)
        self.test = self.dataset.indices(self.split.test)
        parts = {"labelled": self.labelled, "validation": self.val, "test": self.test}
        if empty := [name for name, indices in parts.items() if not indices]:
            raise ValueError(
                f"{self.dataset.title}: no {' and no '.join(empty)} image at {self.fraction:g} of "
                "the labels; a study needs all three, so make another split"
            )


def train(
    cell: StudyCell,
    method: Method,
    stream: BatchStream,
    *,
    steps: int,
    folder: str,
    max_grad_norm: float | None = None,
) -> History:
    """Train, scored on the validation images; a finished training is read from its checkpoint.

    folder: name of the run's own folder below the cell's checkpoints, see `folder_name`.
    """
    return fit(
        method,
        stream,
        steps=steps,
        directory=cell.checkpoints and cell.checkpoints / folder,
        validate=lambda m: summarise(evaluate(m, cell.dataset, cell.val)),
        validate_every=max(1, steps // cell.config.validations),
        device=cell.config.device,
        precision=cell.config.precision,
        max_grad_norm=max_grad_norm,
        progress=cell.progress,
    )


def score_test_images(cell: StudyCell, method: Method, history: History) -> dict[str, list[dict]]:
    """Read the test images: rows under the "last" weights and under the "best" by validation.

    Afterwards the method holds the last weights again.
    """
    last = evaluate(method, cell.dataset, cell.test, device=cell.config.device)
    final = copy.deepcopy(method.state_dict())
    method.load_state_dict(history.best_state)
    best = evaluate(method, cell.dataset, cell.test, device=cell.config.device)
    method.load_state_dict(final)
    return {"last": last, "best": best}


def cell_record(
    cell: StudyCell,
    method: str,
    variant: str,
    rows: dict[str, Sequence[dict]],
    *,
    parameters: dict,
    origin: dict,
) -> Record:
    """A record of scores; without `rows` one by which an older one is found.

    rows: part, such as "last" -> one row an image; parameters: the settings that it states; origin:
    of `lib.evaluation.provenance.provenance`.
    """
    return Record(
        method=method,
        variant=variant,
        dataset=cell.dataset.title,
        dataset_fingerprint=cell.dataset.fingerprint(),
        split_sha256=cell.split.sha256,
        labelled_fraction=cell.fraction,
        labelled_count=len(cell.labelled),
        labelled_seed=cell.seed,
        seed=cell.seed,
        scores={key: summarise(value) for key, value in rows.items()},
        per_image={key: list(value) for key, value in rows.items()},
        parameters=parameters,
        **origin,
    )


def add_cost(record: Record, history: History) -> None:
    """Note in a record what the training took."""
    record.seconds = history.seconds
    record.peak_memory_mb = history.peak_memory_mb
    record.peak_gpu_memory_mb = history.peak_gpu_memory_mb


def summary(history: History) -> dict:
    """Every tenth of the losses, all validation scores, and the best step."""
    stride = max(1, len(history.steps) // 10)
    return {
        "loss": [[row["step"], row["total"]] for row in history.steps[stride - 1 :: stride]],
        "validation": [[row["step"], row["dice"]] for row in history.validations],
        "best_step": history.best_step,
    }


def folder_name(cell: StudyCell, words: str, settings: dict) -> str:
    """A folder's name that changes with data, split and `settings`, and begins with `words`."""
    content = {**settings, "split": cell.split.sha256, "data": cell.dataset.fingerprint()}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{cell.dataset.title} {cell.fraction:g} seed{cell.seed} {words} {digest}"
    return "".join(c if c.isalnum() or c == "." else "_" for c in name.lower())
