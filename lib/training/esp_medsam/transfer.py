"""A modality that was left out, and frames that were not: two questions beside the study's table.

Left out: the model meets a modality that it was not trained on, first as it is, then with a new
controller and query that learn from a few images, while all other modalities stay as they were.
Leak: two networks of one make and one start, each trained on as many frames of nearly as many
sequences, one of them on neighbours of the test frames.
"""

from dataclasses import asdict, dataclass, field, replace

import torch

from lib.data.batches import BatchStream
from lib.data.frames import SimulatedSequences, split_frames
from lib.data.mixture import MixtureDataset
from lib.data.splits import Split
from lib.devices import find_device, moved
from lib.evaluation.records import Record
from lib.models.esp_medsam import EspMedSam
from lib.training.esp_medsam.build import build_student, modality_of
from lib.training.esp_medsam.evaluate import evaluate_modalities
from lib.training.esp_medsam.segmentation import EspSegmentation, SegmentationConfig
from lib.training.esp_medsam.stages import run_stage
from lib.training.esp_medsam.study import (
    MAIN,
    Entry,
    EspStudy,
    find_records,
    keep,
    train,
    variants,
)
from lib.training.esp_medsam.study_data import StudyData, TestSet
from lib.training.evaluate import evaluate

ZERO_SHOT, NEW, ALONE = "left out, zero-shot", "left out, new controller", "few images alone"
CLEAN, LEAKY = "split by sequence", "split by frame"


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """All of them our choices.

    images: of the new modality that have masks. masks: how they are trained on, `train` aside;
        the same for the new controller and for the network that knows nothing else.
    sequences, frames, test_sequences: simulated from training images, for the leak.
    """

    images: int = 10
    masks: SegmentationConfig = field(
        default_factory=lambda: SegmentationConfig(batch=6, steps=200, learning_rate=2e-3)
    )
    sequences: int = 30
    frames: int = 6
    test_sequences: int = 10


def run_left_out(study: EspStudy, modality: str, config: TransferConfig) -> list[Record]:
    """Train without `modality`, then meet it: zero-shot, with a new controller, and from scratch.

    Zero-shot, the classifier chooses among the modalities that the model knows. "few images alone"
    is a network of the same make with random weights, trained whole on the same images.
    """
    own = study.data.only([modality])
    if len(own.train) < config.images:
        raise ValueError(f"{modality} has {len(own.train)} training images, not {config.images}")
    recipe = variants(study.recipe)[MAIN]
    if recipe.classifier is None:
        raise ValueError(
            "zero-shot asks the classifier for a modality: the recipe needs that stage"
        )
    parameters = {"recipe": asdict(recipe), "transfer": asdict(config)}
    entries = {
        method: [Entry(method, "", test, labelled, parameters) for test in own.tests]
        for method, labelled in ((ZERO_SHOT, 0), (NEW, config.images), (ALONE, config.images))
    }
    if found := find_records(study, [entry for some in entries.values() for entry in some]):
        return found
    rest = study.data.only([name for name in study.data.mixture.modalities if name != modality])
    trained = train(study, recipe, rest)
    model, notes = trained.student, {"trained on": list(rest.mixture.modalities)}
    device = find_device(study.device)
    rows = {ZERO_SHOT: [_zero_shot(model, own.mixture, test, device) for test in own.tests]}
    stages = {ZERO_SHOT: trained.records}

    before = _some_masks(model, rest, device)
    torch.manual_seed(study.seed)
    model.add_modality(modality)
    stages[NEW] = [*trained.records, _on_masks(study, NEW, "new modality", model, own, config)]
    change = _some_masks(model, rest, device) - before
    notes["change of others' logits"] = change.abs().max().item()
    torch.manual_seed(study.seed)
    alone = build_student(study.recipe.model, modalities=[modality], width=model.encoder.width)
    stages[ALONE] = [_on_masks(study, ALONE, "all", alone, own, config)]
    for method, student in ((NEW, model), (ALONE, alone)):
        rows[method] = [
            evaluate_modalities(student, own.mixture, test.indices, device=study.device)
            for test in own.tests
        ]
    return [
        keep(study, entry, scores, stages=stages[method], notes=notes)
        for method, some in entries.items()
        for entry, scores in zip(some, rows[method], strict=True)
    ]


def run_leak(study: EspStudy, modality: str, config: TransferConfig) -> list[Record]:
    """Two networks of one start: one split by sequence, one by frame, which leaks.

    Both train on as many frames, see `lib.data.frames.split_frames`. Sequences are made from
    training images of `modality`; the test frames are the same twice.
    """
    own = study.data.only([modality])
    frames = SimulatedSequences(own.mixture, own.train[: config.sequences], frames=config.frames)
    split = split_frames(frames, test=config.test_sequences)
    joined = MixtureDataset([(modality, frames)])
    runs = []
    for method, places in ((CLEAN, split.by_sequence), (LEAKY, split.by_frame)):
        names = [[joined.names[i] for i in part] for part in (places, split.test)]
        sha256 = Split(names[0], [], names[1]).sha256
        test = TestSet(modality, "simulated sequences", True, split.test, sha256)
        settings = replace(config, images=len(places))
        parameters = {"model": asdict(study.recipe.model), "transfer": asdict(settings)}
        runs.append((Entry(method, "", test, len(places), parameters), places, settings))
    if found := find_records(study, [entry for entry, _, _ in runs]):
        return found
    records = []
    for entry, places, settings in runs:
        torch.manual_seed(study.seed)
        width = study.sam.mask_decoder.transformer_dim
        student = build_student(study.recipe.model, modalities=[modality], width=width)
        data = StudyData((), joined, places, (), (entry.test,))
        stage = _on_masks(study, entry.method, "all", student, data, settings)
        rows = evaluate_modalities(student, joined, entry.test.indices, device=study.device)
        records.append(keep(study, entry, rows, stages=[stage]))
    return records


def _on_masks(
    study: EspStudy,
    name: str,
    part: str,
    model: EspMedSam,
    data: StudyData,
    config: TransferConfig,
) -> dict:
    """Train `part` of `model` on the first images of `data`; returns the stage's record."""
    method = EspSegmentation(
        replace(config.masks, train=part), model=model, modality=modality_of(model, data.mixture)
    )
    stream = BatchStream(
        data.mixture,
        labelled=data.train[: config.images],
        labelled_batch=config.masks.batch,
        seed=study.seed,
    )
    words = name.replace(",", "").replace(" ", "-")
    settings = {"steps": config.masks.steps, "directory": study.directory, **study.settings}
    return run_stage(words, method, stream, **settings)


def _zero_shot(
    model: EspMedSam, data: MixtureDataset, test: TestSet, device: torch.device
) -> list[dict]:
    """Scores with the modality that the classifier takes the images for."""

    def predict(images):
        return model(images, model.resolve(images)).logits

    with moved(model, device):
        return evaluate(predict, data, test.indices, device=device)


@torch.no_grad()
def _some_masks(
    model: EspMedSam, data: StudyData, device: torch.device, count: int = 8
) -> torch.Tensor:
    """Logits of a few training images, to see whether they stay the same."""
    model.eval()
    chosen = list(data.train[:: max(1, len(data.train) // count)][:count])
    images = torch.stack([data.mixture.image(i) for i in chosen]).to(device)
    with moved(model, device):
        return model(images, modality_of(model, data.mixture)[chosen]).logits.cpu()
