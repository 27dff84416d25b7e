"""Knowledge Mining: fine-tune a network on its own predictions, redrawn by a frozen SAM.

Mao et al. 2025, "Semi-Supervised Medical Image Segmentation via Knowledge Mining from Large
Models", arXiv 2503.06816. The paper fixes the chain (network -> prompts -> SAM -> pseudo labels
-> fine-tuning) and its two schedules. It does not fix the number of points, the box rule, filters,
loss weights or the optimiser: the defaults below are this project's choices, each a switch.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lib.data.augment import weak_batch
from lib.data.batches import Batch, BatchStream
from lib.data.dataset import SegmentationDataset
from lib.losses.segmentation import bce_dice
from lib.prompts.from_masks import PromptConfig
from lib.sam.frozen import FrozenSam, sam_fingerprint
from lib.training.method import Losses, Method, Progress, inference
from lib.training.mining import Filter, Mined, mine
from lib.training.pseudo_labels import PseudoLabels

SOURCES = ("sam", "network", "truth", "none")


@dataclass(frozen=True, kw_only=True)
class KnowledgeMiningConfig:
    """One-time mining by default; `continuous()` gives the other schedule of the paper.

    source: who draws the pseudo labels. "sam": the method. The others are its controls: "none":
        the same steps on labelled images alone; "network": the network's own masks (self-training,
        no SAM); "truth": SAM prompted from the true masks, an upper bound that reads them.
    rounds: how often the unlabelled images are mined, evenly over the run. 1 = one-time.
    learning_rate: of Adam, at the start of a cosine; a tenth of the first training's (our choice).
    pseudo_weight: weight of the loss on pseudo labels (our choice).
    bce, dice: weights of the two parts of both losses (our choice).
    prompts: how predictions become prompts. trust: which masks of SAM are kept.
    batch: images mined at a time; changes memory, not results.
    """

    source: str = "sam"
    rounds: int = 1
    learning_rate: float = 1e-4
    pseudo_weight: float = 1.0
    bce: float = 0.5
    dice: float = 1.0
    prompts: PromptConfig = field(default_factory=PromptConfig)
    trust: Filter = field(default_factory=Filter)
    batch: int = 16

    def __post_init__(self) -> None:
        """Refuse values that would silently train something else."""
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {self.source!r}")
        for name, least in {
            "rounds": 1,
            "batch": 1,
            "pseudo_weight": 0,
            "bce": 0,
            "dice": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")


class KnowledgeMining(Method):
    """Fine-tuning on labelled images and on pseudo labels mined with a frozen SAM."""

    def __init__(
        self,
        config: KnowledgeMiningConfig,
        *,
        network: nn.Module,
        pseudo: PseudoLabels,
        sam: FrozenSam | None = None,
        sam_image: Callable[[int], Tensor] | None = None,
        truth: Callable[[int], Tensor] | None = None,
    ):
        """Join the parts; nothing is mined before the first step.

        Args:
            config: which source, which schedule, which rules.
            network: f0, already trained on the labelled images; it is changed in place.
            pseudo: an empty table for the unlabelled images, H x W as the network sees them.
            sam: needed by the sources "sam" and "truth".
            sam_image: data set index -> 3 x H' x W' image in [0, 1] for SAM, where SAM should see
                a finer picture than the network. Default: the network's own image.
            truth: data set index -> H x W true mask; only for the source "truth". No other source
                accepts it, so that no other run can read the masks of unlabelled images.
        """
        super().__init__(config)
        needs_sam = config.source in ("sam", "truth")
        if needs_sam and sam is None:
            raise ValueError(f"source={config.source!r} needs a SAM: pass sam=FrozenSam(...)")
        if (config.source == "truth") != (truth is not None):
            raise ValueError(
                'true masks go with source="truth" and with nothing else: they are the upper '
                f"bound's alone (source={config.source!r})"
            )
        self.network = network
        self.pseudo = pseudo
        self.log: list[dict] = []
        self._sam = sam if needs_sam else None
        self._sam_image, self._truth = sam_image, truth
        self._optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Adam over the network; SAM has no optimiser."""
        return [self._optimizer]

    def hyperparameters(self) -> dict[str, Any]:
        """The configuration, and which SAM: its frozen weights are in no checkpoint."""
        sam = {"sam": sam_fingerprint(self._sam.sam)} if self._sam else {}
        return super().hyperparameters() | sam

    def before_step(self, progress: Progress, stream: BatchStream) -> None:
        """Mine all unlabelled images at the start of each of the `rounds` parts of the run."""
        current = progress.step * self.config.rounds // progress.total
        previous = (progress.step - 1) * self.config.rounds // progress.total
        if self.config.source == "none" or current == previous:
            return
        outcomes = self.mine_all(stream.dataset, stream.unlabelled)
        self.log.append({"step": progress.step, **summary(outcomes)})

    def mine_all(self, dataset: SegmentationDataset, indices: list[int]) -> list[Mined]:
        """Draw a pseudo label for every image in `indices` with the network as it stands.

        Fills the table of pseudo labels; returns what each image yielded, in order.
        """
        starts = range(0, len(indices), self.config.batch)
        chunks = [indices[start : start + self.config.batch] for start in starts]
        return [mined for chunk in chunks for mined in self._mine(dataset, chunk)]

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """Supervised loss on labelled images plus weighted loss on trusted pseudo labels."""
        config, labelled, unlabelled = self.config, batch.labelled, batch.unlabelled
        images, masks = weak_batch(
            labelled.image,
            labelled.mask,
            seed=batch.seed,
            epoch=labelled.epoch,
            indices=labelled.index,
        )
        if config.source == "none" or unlabelled is None:
            loss = bce_dice(self.network(images), masks, bce=config.bce, dice=config.dice)
            return Losses(total=loss, supervised=loss)

        pseudo, valid = (t.to(images.device) for t in self.pseudo.get(unlabelled.index))
        more_images, pseudo = weak_batch(
            unlabelled.image,
            pseudo,
            seed=batch.seed,
            epoch=unlabelled.epoch,
            indices=unlabelled.index,
        )
        # One forward pass over both halves, so that BatchNorm sees one distribution.
        logits = self.network(torch.cat([images, more_images]))
        logits, pseudo_logits = logits.split([len(images), len(more_images)])
        supervised = bce_dice(logits, masks, bce=config.bce, dice=config.dice)
        mined = bce_dice(pseudo_logits, pseudo, bce=config.bce, dice=config.dice, valid=valid)
        total = supervised + config.pseudo_weight * mined
        return Losses(total=total, supervised=supervised, pseudo=mined)

    def predict(self, image: Tensor) -> Tensor:
        """Return the network's logits, B x C x H x W; SAM is not needed after training."""
        return self.network(image)

    def get_extra_state(self) -> dict:
        """Return pseudo labels and mining log, for checkpoints."""
        return {"pseudo": self.pseudo.state(), "log": self.log}

    def set_extra_state(self, state: dict) -> None:
        """Take back what `get_extra_state` returned."""
        self.pseudo.restore(state["pseudo"])
        self.log = list(state["log"])

    def _mine(self, dataset: SegmentationDataset, indices: list[int]) -> list[Mined]:
        images = torch.stack([dataset.image(i) for i in indices])
        with inference(self):
            device = next(self.network.parameters()).device
            probabilities = self.predict(images.to(device)).softmax(dim=1)
        outcomes = self._draw(images, probabilities, indices)
        for index, mined in zip(indices, outcomes, strict=True):
            self.pseudo.put(index, mined.mask)
        return outcomes

    def _draw(self, images: Tensor, probabilities: Tensor, indices: list[int]) -> list[Mined]:
        if self.config.source == "network":
            masks = probabilities.argmax(dim=1).to(torch.uint8)
            return [Mined(m, "kept") if m.any() else Mined(None, "no prompt") for m in masks]
        if self.config.source == "truth":
            truth = torch.stack([self._truth(i) for i in indices])
            classes = probabilities.shape[1]
            probabilities = nn.functional.one_hot(truth, classes).movedim(-1, 1).float()

        def embeddings(positions: list[int]) -> Tensor:
            if self._sam_image is None:
                return self._sam.encode(images[positions])
            return self._sam.encode(torch.stack([self._sam_image(indices[p]) for p in positions]))

        return mine(
            probabilities,
            embeddings,
            self._sam,
            prompts=self.config.prompts,
            trust=self.config.trust,
        )


def continuous(**changes) -> KnowledgeMiningConfig:
    """Return the continuous schedule: five rounds, all else as in the one-time schedule."""
    return KnowledgeMiningConfig(**{"rounds": 5, **changes})


def summary(outcomes: list[Mined]) -> dict:
    """Count the outcomes of one round; mean predicted IoU and agreement of prompted images."""
    counts = Counter(mined.outcome for mined in outcomes)
    prompted = [m for m in outcomes if m.prompts]

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return {
        "images": len(outcomes),
        "outcomes": dict(sorted(counts.items())),
        "prompts": sum(len(m.prompts) for m in outcomes),
        "predicted_iou": mean([m.predicted_iou for m in prompted]),
        "agreement": mean([m.agreement for m in prompted]),
    }
