"""ESP-MedSAM, stage C: medical knowledge. The teacher's embedding of a modality is imitated.

Xu et al. 2024, arXiv 2407.14153. As released (`train.py`): one modality after the other, only its
controller learns, BatchNorm uses the statistics that it has; the loss is the squared error between
the student's and the medical teacher's embeddings. Controllers alone cannot make up for a shared
encoder that is far from MobileSAM's quality, so `JointDistillation`, this project's addition, lets
the shared encoder, its neck and all controllers learn together from mixed batches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.batches import Batch
from lib.models.esp_medsam import EspMedSam
from lib.sam.embeddings import EmbeddingCache
from lib.training.esp_medsam.common import embedding_error
from lib.training.esp_medsam.embeddings import StemFeatures, TeacherEmbeddings
from lib.training.esp_medsam.parts import flipped_views, train_only
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import cosine


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """Defaults are those of the released `train.py`.

    learning_rate: of Adam. decay: its factor from epoch to epoch (ExponentialLR).
    epochs: of the run; they set the pace of the decay.
    flip: probability of mirroring an image, the only augmentation.
    batch: images in a step; whoever builds the stream reads it from here.
    """

    learning_rate: float = 5e-4
    decay: float = 0.98
    epochs: int = 200
    flip: float = 0.1
    batch: int = 4

    @classmethod
    def quick(cls, **changes) -> "ControllerConfig":
        """A short run for the CPU, with a decay to the same end."""
        return cls(**{"epochs": 20, "decay": 0.82, **changes})


class ControllerDistillation(Method):
    """One modality's controller learns; everything else stays as it is, bit for bit."""

    def __init__(
        self,
        config: ControllerConfig,
        *,
        model: EspMedSam,
        name: str,
        modality: Tensor,
        teacher: TeacherEmbeddings,
        stem_cache: EmbeddingCache | None = None,
    ):
        """Train the controller of modality `name` in `model`, in place.

        Args:
            modality: the model's index of every image of the data set, see `build.modality_of`.
            teacher: with a cache each view of an image is embedded only once.
            stem_cache: keeps what the student's layers before its first controller make of each
                view, so that they too run only once; float32. A view takes twice the space of an
                embedding (2 MiB at 512 px); a cache of its own does not push the embeddings out.

        Raises:
            ValueError: if the model does not know `name`, the teacher other modalities, or the
                `stem_cache` is not float32.
        """
        super().__init__(config)
        _require_same_modalities(model, teacher)
        self.model, self.modality_of, self._teacher = model, modality, teacher
        self.name, self._index = name, int(model.index([name]))
        self._stem = StemFeatures(model.encoder, cache=stem_cache)
        controller = list(model.encoder.controllers[self._index].parameters())
        train_only(model, controller)
        # All tensors in one call: one by one, 80 small ones cost a twentieth of a step on the CPU.
        self._optimizer = torch.optim.Adam(controller, lr=config.learning_rate, fused=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over the one controller."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """`decay` to the power of the number of finished epochs."""
        return self.config.decay ** (progress.step * self.config.epochs // progress.total)

    def train(self, mode: bool = True) -> "ControllerDistillation":
        """The model stays in evaluation mode: its BatchNorm statistics belong to all modalities."""
        super().train(mode)
        self.model.eval()
        return self

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Mean squared error over all images of the batch; masks are not looked at.

        Raises:
            ValueError: for an image of another modality.
        """
        images, index = flipped_views(batch, self.config.flip)
        modality = self.modality_of[index.cpu()]
        if (modality != self._index).any():
            raise ValueError(
                f"the stream has images that are not {self.name}: build it from "
                f"dataset.members({self.name!r})"
            )
        student = self.model.encoder.embed_one_from_stem(self._stem(images), self._index)
        return Losses(total=embedding_error(student, self._teacher(images, modality)))

    def predict(self, image: Tensor) -> Tensor:
        """Logits B x 2 x H x W of images of this modality."""
        modality = torch.full((len(image),), self._index, device=image.device)
        return self.model(image, modality).logits

    def hyperparameters(self) -> dict:
        """The configuration and the modality, so that no run resumes another modality's."""
        return {**super().hyperparameters(), "modality": self.name}


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """All of them our choices.

    learning_rate: of Adam, at the top of the cosine. warmup: fraction of the run that it rises.
    flip, batch: as in `ControllerConfig`, for mixed batches. steps: whoever calls `fit` reads it.
    """

    learning_rate: float = 5e-4
    warmup: float = 0.05
    flip: float = 0.5
    batch: int = 12
    steps: int = 10_000

    @classmethod
    def quick(cls, **changes) -> "JointConfig":
        """A short run for the CPU."""
        return cls(**{"batch": 6, "steps": 100, **changes})


class JointDistillation(Method):
    """Shared encoder, neck and all controllers learn from mixed batches of embeddings."""

    def __init__(
        self,
        config: JointConfig,
        *,
        model: EspMedSam,
        modality: Tensor,
        teacher: TeacherEmbeddings,
    ):
        """Train the whole encoder of `model` in place; see `ControllerDistillation`."""
        super().__init__(config)
        _require_same_modalities(model, teacher)
        self.model, self.modality_of, self._teacher = model, modality, teacher
        trained: list[nn.Parameter] = list(model.encoder.parameters())
        train_only(model, trained)
        self._optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam over the encoder."""
        return [self._optimizer]

    def learning_rate(self, progress: Progress) -> float:
        """A cosine to zero, after the warm-up."""
        return cosine(progress.fraction, warmup=self.config.warmup)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Mean squared error over all images of the batch; masks are not looked at."""
        images, index = flipped_views(batch, self.config.flip)
        modality = self.modality_of[index.cpu()]
        student = self.model.encoder(images, modality)
        return Losses(total=embedding_error(student, self._teacher(images, modality)))

    def predict(self, image: Tensor) -> Tensor:
        """Logits B x 2 x H x W with the modality that the classifier finds."""
        return self.model(image, self.model.resolve(image)).logits


def _require_same_modalities(model: EspMedSam, teacher: TeacherEmbeddings) -> None:
    """An index must mean the same to both."""
    if model.modalities != teacher.encoder.modalities:
        raise ValueError(
            f"the student knows {', '.join(model.modalities)}, the teacher "
            f"{', '.join(teacher.encoder.modalities)}: build both with the same modalities"
        )
