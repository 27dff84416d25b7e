"""ESP-MedSAM's study: its variants on seen and unseen domains of all modalities, as records.

One record a variant, modality, domain and evaluation. Stages that ran before are loaded, and a
variant whose records are all there is not touched, so a study that was interrupted goes on where
it stopped. Scores are those of the last step; no checkpoint is chosen by the test images.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from segment_anything.modeling import Sam

from lib.evaluation.metrics import score_image, summarise
from lib.evaluation.provenance import peak_gpu_memory_mb, peak_memory_mb, provenance
from lib.evaluation.records import Record, find_record, write_record
from lib.prompts.from_masks import PromptConfig, prompts_from_mask
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam
from lib.training.esp_medsam.build import EspConfig
from lib.training.esp_medsam.evaluate import KNOWLEDGE, evaluate_modalities
from lib.training.esp_medsam.recipe import EspRecipe, EspTrained, train_esp_medsam
from lib.training.esp_medsam.study_data import StudyData, TestSet
from lib.training.prompted_sam import PromptedSam

MAIN, LONGER = "both", "masks alone, more steps"
TEACHER = "teacher"
EVALUATIONS = (*KNOWLEDGE, TEACHER)  # what is known of the modality, and who answers
UPPER, FLOOR = "SAM with the true boxes", "true boxes, filled"
TARGETS_ONLY = "images with a target"
BOXES = PromptConfig(mode="box", keep=sys.maxsize, min_area=0.0)  # of every object
AT_ONCE = 8  # images that SAM sees at a time


@dataclass
class EspStudy:
    """What all runs of one seed share.

    sam_name: of `sam`, for the records. directory: of the checkpoints of all stages.
    replace: overwrite records of other runs with the same names, as when trying things out.
    settings: of `fit`, such as device, precision, progress.
    origin: code, packages and hardware, asked for when the study begins.
    """

    data: StudyData
    recipe: EspRecipe
    sam: Sam
    seed: int
    results: Path
    directory: Path
    sam_name: str = "small"
    cache: EmbeddingCache | None = None
    replace: bool = False
    settings: dict = field(default_factory=dict)
    origin: dict = field(default_factory=provenance)

    @property
    def device(self) -> str:
        """Where to train and to score, by a name for `lib.devices.find_device`."""
        return self.settings.get("device", "auto")


@dataclass(frozen=True)
class Entry:
    """What a record is of; with the study, it fixes the record's file name.

    labelled: how many training images had masks; None: all of the study's.
    parameters: of the run, besides what all records of the study have in common.
    """

    method: str
    variant: str
    test: TestSet
    labelled: int | None = None
    parameters: dict = field(default_factory=dict)


def variants(recipe: EspRecipe) -> dict[str, EspRecipe]:
    """The recipe and its ablations by name: what SAM teaches, self-prompts, queries.

    "masks alone, more steps" trains on masks for as many steps as the student of "both" takes on
    all its weights in three stages (common, joint, fine-tuning), at the teacher's learning rate.

    Raises:
        ValueError: if the recipe has no fine-tuning, see `EspRecipe.ablations`.
    """
    rows = recipe.ablations()
    stages = (recipe.common, recipe.joint, recipe.fine_tune)
    steps = sum(stage.steps for stage in stages if stage)
    rate = (recipe.teacher or recipe.fine_tune).learning_rate
    longer = replace(recipe.fine_tune, steps=steps, learning_rate=rate)
    return {
        **rows,
        LONGER: replace(rows["masks alone"], fine_tune=longer),
        "no self-prompts": _with_model(recipe, prompts="off"),
        "oracle patches": _with_model(recipe, prompts="oracle"),
        "one query": _with_model(recipe, one_query=True),
    }


def run_variant(
    study: EspStudy, name: str, *, evaluations: Sequence[str] = EVALUATIONS
) -> list[Record]:
    """Train one of `variants` and score it on every test set, in each way of `evaluations`.

    An evaluation that the variant cannot have is left out: a teacher that was not trained, a
    modality to be predicted without a classifier, a wrong one where there is only one.
    """
    recipe = variants(study.recipe)[name]
    kinds = [kind for kind in evaluations if _possible(kind, recipe, study.data)]
    parameters = {"recipe": asdict(recipe)}
    entries = [
        Entry(name, kind, test, parameters=parameters)
        for kind in kinds
        for test in study.data.tests
    ]
    if found := find_records(study, entries):
        return found
    trained = train(study, recipe)
    records = []
    for entry in entries:
        teacher = entry.variant == TEACHER
        rows = evaluate_modalities(
            trained.teacher if teacher else trained.student,
            study.data.mixture,
            entry.test.indices,
            modality="given" if teacher else entry.variant,
            device=study.device,
        )
        stages = [s for s in trained.records if s["stage"] == TEACHER or not teacher]
        records.append(keep(study, entry, rows, stages=stages))
    return records


def run_bounds(study: EspStudy) -> list[Record]:
    """Score what plain SAM makes of boxes around the true objects, and the boxes themselves.

    Both read the test masks: the first is an upper bound for prompts, the second what such a box
    is worth without looking at the image. Nothing is trained.
    """
    entries = [Entry(m, "", test, labelled=0) for test in study.data.tests for m in (UPPER, FLOOR)]
    if found := find_records(study, entries):
        return found
    frozen = FrozenSam(study.sam, cache=study.cache, device=study.device, encode_at_once=AT_ONCE)
    sam = PromptedSam(frozen, BOXES)
    data, records = study.data.mixture, []
    for entry in entries:
        rows = []
        for start in range(0, len(entry.test.indices), AT_ONCE):
            chosen = entry.test.indices[start : start + AT_ONCE]
            masks = torch.stack([data.mask(index) for index in chosen])
            found = torch.stack([filled_boxes(mask) for mask in masks])
            if entry.method == UPPER:
                images = torch.stack([data.image(index) for index in chosen])
                truth = torch.stack([masks == 0, masks > 0], dim=1).float()
                found = sam.logits(images, truth)[0].argmax(1)
            rows += [
                {"name": data.names[index], **score_image(answer, mask)}
                for index, answer, mask in zip(chosen, found, masks, strict=True)
            ]
        records.append(keep(study, entry, rows))
    return records


def filled_boxes(mask: torch.Tensor) -> torch.Tensor:
    """The boxes of all objects of a mask, H x W, filled with 1; int64."""
    filled = torch.zeros_like(mask)
    for prompt in prompts_from_mask(mask, BOXES):
        x0, y0, x1, y1 = prompt.box.int().tolist()
        filled[y0 : y1 + 1, x0 : x1 + 1] = 1
    return filled


def train(study: EspStudy, recipe: EspRecipe, data: StudyData | None = None) -> EspTrained:
    """All stages of `recipe` on the training images of the study, or of `data`."""
    data = data or study.data
    return train_esp_medsam(
        recipe,
        sam=study.sam,
        dataset=data.mixture,
        labelled=data.train,
        directory=study.directory,
        seed=study.seed,
        cache=study.cache,
        **study.settings,
    )


def keep(
    study: EspStudy,
    entry: Entry,
    rows: list[dict],
    *,
    stages: Sequence[dict] = (),
    notes: dict | None = None,
) -> Record:
    """Write the record of one evaluation on one test set.

    Args:
        rows: of `evaluate_modalities` or `evaluate`.
        stages: records of the stages that made the model.
        notes: what else happened, for the record's history.
    """
    record = _stub(study, entry)
    record.scores, record.per_image = {"last": summarise(rows)}, {"last": rows}
    present = [row for row in rows if row["true"] > 0]
    if 0 < len(present) < len(rows):  # such as ultrasound images without a lesion
        record.scores[TARGETS_ONLY] = summarise(present)
    record.seconds = sum(stage["seconds"] for stage in stages)
    record.peak_memory_mb, record.peak_gpu_memory_mb = peak_memory_mb(), peak_gpu_memory_mb()
    record.history = {"stages": [_stage(stage) for stage in stages], **(notes or {})}
    vars(record).update(study.origin)
    write_record(record, study.results, replace=study.replace)
    return record


def find_records(study: EspStudy, entries: Sequence[Entry]) -> list[Record]:
    """The records of all `entries`, or none if one is missing or all are to be replaced.

    Raises:
        RecordError: one is of other data or settings.
    """
    if study.replace:
        return []
    found = [find_record(_stub(study, entry), study.results) for entry in entries]
    return found if all(found) else []


def _stub(study: EspStudy, entry: Entry) -> Record:
    """A record before anything was measured; its file name is final."""
    test, everything = entry.test, entry.labelled is None
    return Record(
        method=entry.method,
        variant=entry.variant,
        dataset=test.title,
        dataset_fingerprint=study.data.mixture.fingerprint(),
        split_sha256=test.sha256,
        labelled_fraction=1.0 if everything else None,
        labelled_count=len(study.data.train) if everything else entry.labelled,
        seed=study.seed,
        scores={},
        per_image={},
        parameters={
            "modality": test.modality,
            "domain": test.domain,
            "seen": test.seen,
            "size": study.data.mixture.size,
            "sam": study.sam_name,
            "precision": study.settings.get("precision", "32-true"),
            **entry.parameters,
        },
    )


def _stage(record: dict) -> dict:
    """What of a stage's record belongs into a study's."""
    return {
        "stage": record["stage"],
        "steps": record["steps"],
        "seconds": record["seconds"],
        "commit": record["commit"],
        "first_loss": record["first"]["total"],
        "last_loss": record["last"]["total"],
    }


def _possible(kind: str, recipe: EspRecipe, data: StudyData) -> bool:
    if kind not in EVALUATIONS:
        raise ValueError(f"evaluation must be one of {', '.join(EVALUATIONS)}, not {kind!r}")
    return {
        "predicted": recipe.classifier is not None,
        "wrong": len(data.mixture.modalities) > 1,
        TEACHER: recipe.teacher is not None,
    }.get(kind, True)


def _with_model(recipe: EspRecipe, **changes) -> EspRecipe:
    model: EspConfig = replace(recipe.model, **changes)
    return replace(recipe, model=model)
