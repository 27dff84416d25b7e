"""The modality classifier, for images that come without their modality (our addition)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lib.data.augment import weak_batch
from lib.data.batches import Batch
from lib.models.esp_medsam import EspMedSam
from lib.training.esp_medsam.parts import train_only
from lib.training.method import Losses, Method, Progress


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """All of them our choices.

    learning_rate: of Adam, at the start of a cosine.
    batch, steps: whoever builds the stream and calls `fit` reads them from here.
    """

    learning_rate: float = 1e-2
    batch: int = 12
    steps: int = 200


class ClassifierTraining(Method):
    """A linear classifier over the fixed embedding that no controller touched."""

    def __init__(self, config: ClassifierConfig, *, model: EspMedSam, modality: Tensor):
        """Train the classifier of `model` in place; the rest stays as it is, bit for bit.

        Args:
            modality: the model's index of every image of the data set, see `build.modality_of`.

        Raises:
            ValueError: if the model has no classifier.
        """
        super().__init__(config)
        if model.classifier is None:
            raise ValueError("this model has no modality classifier to train")
        self.model, self.modality_of = model, modality
        trained = list(model.classifier.parameters())
        train_only(model, trained)
        self._optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over the classifier."""
        return [self._optimizer]

    def train(self, mode: bool = True) -> "ClassifierTraining":
        """The model stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Cross-entropy of the modality on weakly augmented images; masks are not looked at."""
        labelled = batch.labelled
        images, _ = weak_batch(
            labelled.image, seed=batch.seed, epoch=labelled.epoch, indices=labelled.index
        )
        target = self.modality_of[labelled.index.cpu()].to(images.device)
        logits = self.model.classify(images)
        accuracy = (logits.argmax(1) == target).float().mean()
        return Losses(total=functional.cross_entropy(logits, target), accuracy=accuracy)

    def predict(self, image: Tensor) -> Tensor:
        """Logits B x 2 x H x W with the modality that the classifier finds."""
        return self.model(image, self.model.resolve(image)).logits
