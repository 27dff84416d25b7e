"""KnowSAM: two subnets learn from each other and from a SAM that they prompt and help to adapt.

Huang et al. 2025, "Learnable Prompting SAM-induced Knowledge Distillation for Semi-supervised
Medical Image Segmentation", IEEE TMI, arXiv 2412.13742. Equations 1 to 14.
"""

from dataclasses import dataclass
from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from lib.data.batches import Batch
from lib.losses.distillation import TEMPERATURE, distillation_loss
from lib.prompts.class_boxes import class_boxes
from lib.prompts.learnable import NORMS, LearnablePrompts
from lib.sam.adapted import AdaptedSam
from lib.sam.adapters import add_adapters
from lib.sam.frozen import sam_fingerprint
from lib.sam.knowsam_release import (
    add_residual_to_self_attention,
    normalise_after_padding,
    randomise_decoder_mlps,
)
from lib.training.co_training import (
    CoTrainingConfig,
    build_students,
    consistency_loss,
    entropy_losses,
    exchange_loss,
    segmentation_loss,
    student_optimizer,
    views,
)
from lib.training.early_gradient import with_gradient
from lib.training.method import Losses, Method, Progress
from lib.training.schedules import linear, sigmoid_ramp_up

PROMPTS = ("learned", "box", "none")


@dataclass(frozen=True, kw_only=True)
class KnowSamConfig(CoTrainingConfig):
    """Defaults are the paper's, and where it is silent its code's unless that is a fault.

    distillation_weight: of L_kd (1 in equation 14). temperature: T, equation 9.
    paired_distillation: L_kd over pairs of classes, as released; no matter with two classes.
    prompts: "learned" tokens (LPS), the "box" of the fused prediction (Table V), or "none". The
        fused logits are the mask prompt in all three.
    prompt_norm: norm layers of the LPS. With "group" no sample feels the others of its batch, so
        SAM needs no gradient for the unlabelled half: faster, with the same gradients.
    prompt_tokens: tokens a class.
    encoder_adapters, decoder_adapters: where SAM is adapted; nowhere leaves it frozen.
    zero_adapters: adapters that start by keeping the pretrained function; False is released.
    sam_normalisation: SAM's mean and deviation; False is released.
    random_decoder_mlps, normalise_after_padding, residual_self_attention: released; see
        `lib.sam.knowsam_release`.
    sam_learning_rate: of Adam on adapters and LPS; falls to 0 in a straight line.
    """

    distillation_weight: float = 1.0
    temperature: float = TEMPERATURE
    paired_distillation: bool = False
    prompts: str = "learned"
    prompt_norm: str = "batch"
    prompt_tokens: int = 2
    encoder_adapters: bool = True
    decoder_adapters: bool = True
    zero_adapters: bool = True
    sam_normalisation: bool = True
    random_decoder_mlps: bool = False
    normalise_after_padding: bool = False
    residual_self_attention: bool = False
    sam_learning_rate: float = 1e-4

    @classmethod
    def released(cls, **changes) -> "KnowSamConfig":
        """The authors' code as it computes, with SAM from `load_sam(relative_positions=False)`.

        Its data pipeline, its choice of checkpoints and its metrics are no matter of a method.
        """
        settings = {
            "skips_before_convolutions": True,
            "inverted_maps": True,
            "activated_fusion": True,
            "pooled_dice": True,
            "entropy_in_bits": True,
            "last_class_consistency": True,
            "subnet_share": 0.5,
            "paired_distillation": True,
            "exchange_highest": False,
            "exchange_start": 12_000 / 50_000,
            "exchange_all_losses": True,
            "zero_adapters": False,
            "sam_normalisation": False,
            "random_decoder_mlps": True,
            "normalise_after_padding": True,
            "residual_self_attention": True,
        }
        return cls(**{**settings, **changes})

    def __post_init__(self) -> None:
        """Refuse unknown names and numbers out of range."""
        super().__post_init__()
        for name, known in {"prompts": PROMPTS, "prompt_norm": NORMS}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        for name in ("distillation_weight", "sam_learning_rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.prompts == "learned" and self.prompt_tokens < 1:
            raise ValueError(
                f"prompt_tokens must be at least 1, not {self.prompt_tokens}; without tokens: "
                'prompts="none"'
            )


class KnowSam(Method):
    """U-Net and V-Net, fused, taught by an adapted SAM; SAM is not needed for a prediction."""

    def __init__(self, config: KnowSamConfig, *, sam: Sam):
        """Build students and teacher.

        Args:
            config: sizes, switches and weights.
            sam: from `lib.sam.load_sam`, at the image size that it shall see; it is frozen and
                given adapters in place, so it must be a fresh one.
        """
        super().__init__(config)
        self.students = build_students(config)
        self._sam_fingerprint = sam_fingerprint(sam)
        self.teacher = build_teacher(config, sam)
        self._optimizers = [student_optimizer(self.students, config)]
        if trained := list(self.teacher.parameters()):
            self._optimizers.append(torch.optim.Adam(trained, lr=config.sam_learning_rate))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD over subnets and fusion; Adam over adapters and learnable prompts, if any."""
        return self._optimizers

    def hyperparameters(self) -> dict[str, Any]:
        """The configuration, and which SAM: its frozen weights are in no checkpoint."""
        return {**super().hyperparameters(), "sam": self._sam_fingerprint}

    def learning_rate(self, progress: Progress) -> float:
        """A straight line to zero for both."""
        return linear(progress.fraction)

    def step(self, batch: Batch, progress: Progress) -> Losses:
        """The whole of the paper's training step.

        With exchanged patches, only `total` and `exchange` can still be differentiated: the other
        losses have passed on their gradients when the second pass begins.
        """
        config = self.config
        images, masks = views(batch, config)
        labelled = len(masks)

        # Equations 1 to 3: two predictions, their maps, their fusion.
        prediction = self.students(images)

        # Equations 6 and 7: SAM, prompted by what it sees itself and by the fusion.
        sam = self.ask_sam(images, prediction.fused, labelled)

        # Equation 8: SAM learns from labelled images. The mask prompt carries no gradient back.
        sam_loss = segmentation_loss(sam[:labelled], masks, config)

        # Equations 9 and 10: both subnets learn from SAM, which gets no gradient from it.
        distilled = sum(
            distillation_loss(
                logits, sam, temperature=config.temperature, pairs=config.paired_distillation
            )
            for logits in (prediction.first, prediction.second)
        )

        # Equations 4 and 12: subnets and fusion learn from labelled images.
        first, second, fused = (
            segmentation_loss(logits[:labelled], masks, config) for logits in prediction
        )

        # Equations 5, 13 and 14, on all images. A factor for the subnets, none for the fusion.
        entropy = entropy_losses(prediction, config)
        consistency = consistency_loss(prediction, config)
        weight = config.consistency_weight * sigmoid_ramp_up(progress.fraction)
        subnets = first + second + config.distillation_weight * distilled
        subnets = subnets + config.entropy_weight * entropy + weight * consistency
        total = config.subnet_share * subnets + fused + sam_loss
        losses = Losses(
            total=total,
            supervised=first + second + fused,
            sam=sam_loss,
            distillation=distilled,
            entropy=entropy,
            consistency=consistency,
            consistency_weight=weight,
        )

        # Equation 11: more samples from exchanged patches, labelled by mask and SAM.
        if (
            config.exchange
            and len(images) > labelled
            and progress.fraction >= config.exchange_start
        ):
            total = with_gradient(total, (*self.students.parameters(), *self.teacher.parameters()))
            losses["exchange"] = exchange_loss(
                self.students,
                images,
                masks,
                uncertain=prediction.fused,
                pseudo=sam[labelled:].argmax(dim=1),
                consistency_weight=weight,
                config=config,
            )
            losses["total"] = total + losses["exchange"]
        return losses

    def ask_sam(self, images: Tensor, fused: Tensor, labelled: int) -> Tensor:
        """SAM's logits B x C x H x W; the gradient of the first `labelled` images is complete.

        Args:
            images: B x 3 x H x W in [0, 1]. fused: logits of the fusion, B x C x H x W.
            labelled: images whose masks SAM learns from.
        """
        boxes = class_boxes(fused) if self.config.prompts == "box" else None
        return self.teacher(images, fused, boxes, learnt_from=labelled)

    def student_logits(self, image: Tensor) -> list[Tensor]:
        """Logits of both subnets: those that a teacher teaches, not their fusion."""
        prediction = self.students(image)
        return [prediction.first, prediction.second]

    def predict(self, image: Tensor) -> Tensor:
        """Logits of the fusion, Y_f: subnets and fusion alone."""
        return self.students(image).fused

    def predict_with_sam(self, image: Tensor) -> Tensor:
        """SAM's own logits Y_s, the rows "SAM output" of Table V."""
        return self.ask_sam(image, self.students(image).fused, len(image))


def build_teacher(config: KnowSamConfig, sam: Sam) -> AdaptedSam:
    """SAM with the adapters and prompts that the configuration asks for."""
    add_adapters(
        sam,
        encoder=config.encoder_adapters,
        decoder=config.decoder_adapters,
        zero_output=config.zero_adapters,
    )
    if config.random_decoder_mlps:
        randomise_decoder_mlps(sam)
    if config.normalise_after_padding:
        normalise_after_padding(sam)
    if config.residual_self_attention:
        add_residual_to_self_attention(sam)
    prompts = None
    if config.prompts == "learned":
        prompts = LearnablePrompts(
            classes=config.classes,
            channels=sam.prompt_encoder.embed_dim,
            tokens=config.prompt_tokens,
            norm=config.prompt_norm,
        )
    return AdaptedSam(sam, prompts=prompts, normalise=config.sam_normalisation)
