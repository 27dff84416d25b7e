"""Scores on a mixture of modalities: with the modality given, predicted, or wrong on purpose.

The released code reads the modality from the file's name at test time. That is knowledge which an
image in a clinic may not bring along, so all three are reported.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lib.data.mixture import MixtureDataset
from lib.devices import find_device, moved
from lib.evaluation.metrics import score_image
from lib.models.esp_medsam import EspMedSam
from lib.prompts.self_patch import patch_targets
from lib.training.esp_medsam.build import modality_of
from lib.training.esp_medsam.common import embedding_error
from lib.training.esp_medsam.embeddings import TeacherEmbeddings
from lib.training.method import inference

KNOWLEDGE = ("given", "predicted", "wrong")


def evaluate_modalities(
    model: EspMedSam,
    dataset: MixtureDataset,
    indices: Sequence[int],
    *,
    modality: str = "given",
    batch_size: int = 16,
    device: str | None = None,
) -> list[dict]:
    """Segment images of a mixture, in mixed batches, and compare them with their masks.

    Args:
        model: a student or a teacher. One with oracle prompts is given the patches of the true
            masks.
        indices: which images, as data set indices.
        modality: "given", the true one; "predicted", the classifier's; "wrong", the next one of
            the model's list, to see what the knowledge is worth.
        batch_size: images at a time; changes memory and speed only.
        device: "auto" or another of `lib.devices.find_device`, to which the model is moved for the
            while; by default it runs where its parameters are.

    Returns:
        For each index the dict of `score_image`, with the image's "name", its true "modality" and
        the one that was "used" in front.

    Raises:
        ValueError: an unknown choice, or a wrong modality asked of a model that has only one.
    """
    if modality not in KNOWLEDGE:
        raise ValueError(f"modality must be one of {', '.join(KNOWLEDGE)}, not {modality!r}")
    names = model.modalities
    if modality == "wrong" and len(names) < 2:
        raise ValueError(f"a model that knows only {names[0]} has no wrong modality")
    oracle = model.prompts is not None and model.prompts.oracle
    table, rows = modality_of(model, dataset), []
    place = next(model.parameters()).device if device is None else find_device(device)
    with moved(model, place), inference(model):
        for chosen, images in _batches(model, dataset, indices, batch_size):
            masks = torch.stack([dataset.mask(i) for i in chosen])
            used = table[chosen]
            if modality == "predicted":
                used = model.resolve(images).cpu()
            elif modality == "wrong":
                used = (used + 1) % len(names)
            patches = patch_targets(masks).to(images.device) if oracle else None
            predicted = model(images, used, patches).logits.argmax(1).cpu()
            for row, index in enumerate(chosen):
                known = {"modality": names[table[index]], "used": names[used[row]]}
                scores = score_image(predicted[row], masks[row], classes=2)
                rows.append({"name": dataset.names[index], **known, **scores})
    return rows


def embedding_scores(
    model: EspMedSam,
    teacher: TeacherEmbeddings,
    dataset: MixtureDataset,
    indices: Sequence[int],
    *,
    batch_size: int = 16,
) -> dict[str, float]:
    """How far the student's embeddings are from the teacher's, for `fit(validate=...)`.

    Returns:
        "error", the mean squared error over all images, by which the released code selects its
        controllers, and "closeness", its negative: `fit(score="closeness")` keeps the highest.
    """
    table, total = modality_of(model, dataset), 0.0
    with inference(model):
        for chosen, images in _batches(model, dataset, indices, batch_size):
            modality = table[chosen]
            student = model.encoder(images, modality)
            error = embedding_error(student, teacher(images, modality))
            total += error.item() * len(chosen)
    return {"error": total / len(indices), "closeness": -total / len(indices)}


def _batches(
    model: EspMedSam, dataset: MixtureDataset, indices: Sequence[int], size: int
) -> Iterator[tuple[list[int], Tensor]]:
    if not len(indices):
        raise ValueError("indices is empty: there is no image to evaluate")
    device = next(model.parameters()).device
    for start in range(0, len(indices), size):
        chosen = [int(i) for i in indices[start : start + size]]
        yield chosen, torch.stack([dataset.image(i) for i in chosen]).to(device)
