"""ESP-MedSAM from SAM to the light model: all stages in their order, each of which may be left out.

A common      plain SAM -> student without controllers, on embeddings
B teacher     adapted SAM with prompts and decoder, on masks of all modalities
  joint       teacher -> student with all its controllers, on embeddings (our addition)
C controllers teacher -> one controller after the other, on embeddings
  (the student takes over the teacher's prompts and decoder)
D fine-tune   the student, on masks
  classifier  which modality an image is of (our addition)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from segment_anything.modeling import Sam

from lib.data.batches import BatchStream
from lib.data.mixture import BalancedStream, MixtureDataset
from lib.devices import find_device
from lib.models.esp_medsam import EspMedSam
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam, encoder_fingerprint
from lib.training.esp_medsam.build import (
    EspConfig,
    build_student,
    build_teacher,
    copy_heads,
    modality_of,
)
from lib.training.esp_medsam.classifier import ClassifierConfig, ClassifierTraining
from lib.training.esp_medsam.common import CommonConfig, CommonDistillation
from lib.training.esp_medsam.controllers import (
    ControllerConfig,
    ControllerDistillation,
    JointConfig,
    JointDistillation,
)
from lib.training.esp_medsam.embeddings import TeacherEmbeddings
from lib.training.esp_medsam.segmentation import EspSegmentation, SegmentationConfig
from lib.training.esp_medsam.stages import run_stage


@dataclass(frozen=True, kw_only=True)
class EspRecipe:
    """The stages, in their order; None leaves one out.

    Without a teacher there is neither joint nor controller stage. Defaults are the paper's stages;
    joint and fine-tune are options.
    """

    model: EspConfig = field(default_factory=EspConfig)
    common: CommonConfig | None = field(default_factory=CommonConfig)
    teacher: SegmentationConfig | None = field(default_factory=SegmentationConfig)
    joint: JointConfig | None = None
    controllers: ControllerConfig | None = field(default_factory=ControllerConfig)
    fine_tune: SegmentationConfig | None = None
    classifier: ClassifierConfig | None = field(default_factory=ClassifierConfig)

    def __post_init__(self) -> None:
        """Refuse a student of a teacher that is not trained."""
        if self.teacher is None and (self.joint or self.controllers):
            raise ValueError(
                "joint and controllers learn from the teacher: give one, or set both to None"
            )

    @classmethod
    def quick(cls, **changes) -> "EspRecipe":
        """All stages, short, for the CPU; the joint one too, as the student starts at random."""
        stages = {
            "model": EspConfig.quick(),
            "common": CommonConfig.quick(),
            "teacher": SegmentationConfig.quick(),
            "joint": JointConfig.quick(),
            "controllers": ControllerConfig.quick(),
            "fine_tune": SegmentationConfig.fine_tune(batch=6, steps=50),
            "classifier": ClassifierConfig(batch=6, steps=50),
        }
        return cls(**{**stages, **changes})

    def ablations(self) -> dict[str, "EspRecipe"]:
        """This recipe beside others that learn less from SAM, by name.

        All of them end in the same fine-tuning, which must be part of this recipe: without a
        teacher nothing else trains prompts and decoder.

        Raises:
            ValueError: if this recipe has no fine-tuning.
        """
        if self.fine_tune is None:
            raise ValueError("an ablation needs fine_tune: masks are all that some rows learn from")
        no_teacher = {"teacher": None, "joint": None, "controllers": None}
        return {
            "masks alone": replace(self, common=None, **no_teacher),
            "common only": replace(self, **no_teacher),
            "medical only": replace(self, common=None),
            "both": self,
        }


@dataclass
class EspTrained:
    """The trained models and a record of each stage, in order; teacher is None if left out."""

    student: EspMedSam
    teacher: EspMedSam | None
    records: list[dict]


def train_esp_medsam(
    recipe: EspRecipe,
    *,
    sam: Sam,
    dataset: MixtureDataset,
    labelled: Sequence[int],
    unlabelled: Sequence[int] = (),
    directory: Path | str,
    seed: int,
    cache: EmbeddingCache | None = None,
    workers: int = 0,
    student: EspMedSam | None = None,
    **settings,
) -> EspTrained:
    """Run the stages of `recipe`; those that ran before in `directory` are only loaded.

    Args:
        sam: the plain SAM; it is frozen. dataset: opened at SAM's image size.
        labelled: training images whose masks are read. unlabelled: more images for the stages
            that learn from embeddings; their masks are never read. Modalities are balanced in all
            stages but C, which sees one at a time.
        cache: keeps the embeddings of SAM and teacher; on the CPU, what the student's stem makes of
            the images in stage C is kept in a folder below it, of at most the same size.
        workers: of the streams.
        student: to start from, such as one with MobileSAM's weights; by default a new one, drawn
            from `seed`.
        settings: of `fit`, such as device, precision, progress.

    Raises:
        ValueError: if the data are not of SAM's size, student and data differ in modalities, or a
            stage needs masks of a modality that no labelled image is of.
    """
    size = sam.image_encoder.img_size
    if dataset.size != size:
        raise ValueError(
            f"the data are {dataset.size} px, this SAM's images {size} px: open the parts of the "
            f"mixture with size={size}, or load the SAM with image_size={dataset.size}"
        )
    _require_labelled(recipe, dataset, labelled)
    torch.manual_seed(seed)
    names, records = dataset.modalities, []
    device = settings.get("device", "auto")
    if student is None:
        width = sam.mask_decoder.transformer_dim
        student = build_student(recipe.model, modalities=names, width=width)
    table = modality_of(student, dataset)

    def run(name, method, stream, steps, teacher=""):
        record = run_stage(
            name, method, stream, steps=steps, directory=directory, teacher=teacher, **settings
        )
        records.append(record)

    def masks(batch):
        return BalancedStream(
            dataset, labelled=labelled, labelled_batch=batch, seed=seed, workers=workers
        )

    def embeddings(batch, kind=BalancedStream, wanted=None):
        return _all_images(
            kind, dataset, labelled, unlabelled, batch, wanted, seed=seed, workers=workers
        )

    if stage := recipe.common:
        frozen = FrozenSam(sam, cache=cache, device=device)
        method = CommonDistillation(stage, encoder=student.encoder, sam=frozen)
        run("common", method, embeddings(stage.batch), stage.steps, encoder_fingerprint(sam))
    teacher = None
    if stage := recipe.teacher:
        torch.manual_seed(seed)  # the same teacher whether or not there was a stage before
        teacher = build_teacher(recipe.model, sam=sam, modalities=names)
        method = EspSegmentation(stage, model=teacher, modality=modality_of(teacher, dataset))
        run("teacher", method, masks(stage.batch), stage.steps, encoder_fingerprint(sam))
        known = TeacherEmbeddings(teacher.encoder, cache=cache)
        shared = {"model": student, "modality": table, "teacher": known}
    if stage := recipe.joint:
        method = JointDistillation(stage, **shared)
        run("joint", method, embeddings(stage.batch), stage.steps, known.fingerprint)
    if stage := recipe.controllers:
        stems = _stem_cache(cache, device)
        for name in names:
            stream = embeddings(stage.batch, BatchStream, set(dataset.members(name)))
            images = len(stream.labelled) + len(stream.unlabelled)
            method = ControllerDistillation(stage, name=name, stem_cache=stems, **shared)
            steps = stage.epochs * math.ceil(images / stage.batch)
            run(f"controller-{name}", method, stream, steps, known.fingerprint)
    if teacher is not None:
        teacher.cpu()  # its encoder is still where it embedded, on a GPU perhaps
        copy_heads(student, teacher)
    if stage := recipe.fine_tune:
        method = EspSegmentation(stage, model=student, modality=table)
        run("fine-tune", method, masks(stage.batch), stage.steps)
    if stage := recipe.classifier:
        method = ClassifierTraining(stage, model=student, modality=table)
        run("classifier", method, masks(stage.batch), stage.steps)
    return EspTrained(student.eval(), teacher and teacher.eval(), records)


def _require_labelled(recipe: EspRecipe, dataset: MixtureDataset, labelled: Sequence[int]) -> None:
    """Refuse a modality without masks before the stages that need none have run for hours."""
    if not (recipe.teacher or recipe.fine_tune or recipe.classifier):
        return
    known = {dataset.modality[index] for index in labelled}
    missing = [name for at, name in enumerate(dataset.modalities) if at not in known]
    if missing:
        raise ValueError(
            f"labelled has no image of {', '.join(missing)}: add some, or leave the modality out "
            "of the data set"
        )


def _stem_cache(cache: EmbeddingCache | None, device: str) -> EmbeddingCache | None:
    """Of its own, as large as `cache` at most: it must not push the embeddings out.

    Not on a GPU, where the stem is little work and images would be copied back to be hashed.
    """
    if cache is None or find_device(device).type != "cpu":
        return None
    return EmbeddingCache(cache.directory / "stem", max_bytes=cache.max_bytes)


def _all_images(kind, dataset, labelled, unlabelled, batch, wanted, **settings):
    """A stream of labelled and unlabelled images, half of each in a batch, for embeddings."""
    parts = [[i for i in part if wanted is None or i in wanted] for part in (labelled, unlabelled)]
    rest = batch // 2 if parts[1] else 0
    return kind(
        dataset,
        labelled=parts[0],
        unlabelled=parts[1],
        labelled_batch=batch - rest,
        unlabelled_batch=rest,
        **settings,
    )
