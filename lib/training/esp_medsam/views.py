"""What a notebook shows of a training in stages and of its model: losses, and answers to images."""

import torch
from torch import Tensor

from lib.data.mixture import MixtureDataset
from lib.evaluation.records import Record
from lib.models.esp_medsam import EspMedSam
from lib.prompts.self_patch import PATCH
from lib.training.esp_medsam.build import modality_of
from lib.training.history import History
from lib.training.method import inference


class StageLosses:
    """A reporter for `fit` that keeps the loss of every step.

    Attributes:
        stages: one list of losses a stage; a stage that was loaded and not run adds an empty one.
    """

    def __init__(self):
        """No stage so far."""
        self.stages: list[list[float]] = []
        self._running: History | None = None

    def update(self, history: History, total: int) -> None:
        """Remember the run that goes on; `fit` calls it after each step."""
        self._running = history

    def close(self) -> None:
        """Keep the losses of the stage that ended."""
        rows = self._running.steps if self._running else []
        self.stages.append([row["total"] for row in rows])
        self._running = None


def answer(
    model: EspMedSam, dataset: MixtureDataset, record: Record, place: float
) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
    """The model's answer to one image of a test set, its modality given.

    Args:
        record: of the test set, with the scores of its images.
        place: which image, ranked by Dice: 0 the worst, 0.5 the median, 1 the best.

    Returns:
        Modality and Dice as a title, image 3 x H x W, true mask H x W, predicted patches at the
        image's size H x W (0 or 1; all 0 without self-prompts) and predicted mask H x W.
    """
    ranked = sorted(record.per_image["last"], key=lambda row: row["dice"])
    row = ranked[int(place * (len(ranked) - 1))]
    (index,) = dataset.indices([row["name"]])
    image, truth = dataset.image(index), dataset.mask(index)
    device = next(model.parameters()).device
    with inference(model):
        output = model(image[None].to(device), modality_of(model, dataset)[[index]])
    patches = torch.zeros_like(truth)
    if output.patch_logits is not None:
        on = model.prompts.threshold(output.patch_logits)[0, 0].long().cpu()
        patches = on.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    modality = dataset.modalities[dataset.modality[index]]
    title = f"{modality}\nDice {row['dice']:.2f}"
    return title, image, truth, patches, output.logits[0].argmax(0).cpu()
