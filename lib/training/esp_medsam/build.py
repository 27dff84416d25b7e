"""ESP-MedSAM's two models: the student, and the teacher with the same prompts and decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from segment_anything.modeling import Sam
from torch import Tensor

from lib.data.mixture import MixtureDataset
from lib.models.esp_medsam import EspMedSam
from lib.models.modality_classifier import ModalityClassifier
from lib.models.modality_decoder import ModalityDecoder
from lib.models.tiny_vit import TinyVitEncoder, TinyVitShape
from lib.prompts.self_patch import SelfPatchPrompts
from lib.sam.medical_encoder import MedicalEncoder

PROMPTS = ("self", "off", "oracle")


@dataclass(frozen=True, kw_only=True)
class EspConfig:
    """What the models are made of; defaults are the released code's (arXiv 2407.14153).

    prompts: "self", the self-patch prompts; "off" for none and "oracle" for the true patches are
        the two ablations.
    one_query, own_hyper, isolated: see `ModalityDecoder`.
    separate_tokens: see `BlockController`.
    shape: sizes of the student's TinyViT.
    """

    prompts: str = "self"
    one_query: bool = False
    own_hyper: bool = False
    isolated: bool = False
    separate_tokens: bool = False
    shape: TinyVitShape = field(default_factory=TinyVitShape)

    def __post_init__(self) -> None:
        """Refuse an unknown kind of prompt."""
        if self.prompts not in PROMPTS:
            raise ValueError(f"prompts must be one of {', '.join(PROMPTS)}, not {self.prompts!r}")

    @classmethod
    def quick(cls, **changes) -> "EspConfig":
        """A student of 0.3 million shared parameters for the CPU."""
        return cls(**{"shape": TinyVitShape.quick(), **changes})


def build_student(config: EspConfig, *, modalities: Sequence[str], width: int = 256) -> EspMedSam:
    """The light model with random weights; `width`: channels of the teacher's embedding."""
    encoder = TinyVitEncoder(
        modalities=modalities,
        width=width,
        separate_tokens=config.separate_tokens,
        shape=config.shape,
    )
    classifier = ModalityClassifier(modalities=len(encoder.modalities), width=width)
    return _join(config, encoder, classifier)


def build_teacher(config: EspConfig, *, sam: Sam, modalities: Sequence[str]) -> EspMedSam:
    """The adapted SAM behind the same kind of prompts and decoder; it freezes `sam`."""
    return _join(config, MedicalEncoder(sam, modalities=modalities), None)


def copy_heads(student: EspMedSam, teacher: EspMedSam) -> None:
    """Give `student` the prompts and the decoder that were trained with `teacher`.

    As the released `train.py` does: the student's embedding imitates the teacher's, so what reads
    the one can read the other.

    Raises:
        ValueError: if the two differ in modalities, width or kind of prompts.
    """
    if student.modalities != teacher.modalities:
        raise ValueError(
            f"the student knows {', '.join(student.modalities)}, the teacher "
            f"{', '.join(teacher.modalities)}: build both with the same modalities"
        )
    if (student.prompts is None) != (teacher.prompts is None):
        raise ValueError("student and teacher must be built with the same prompts")
    try:
        if student.prompts is not None:
            student.prompts.load_state_dict(teacher.prompts.state_dict())
        student.decoder.load_state_dict(teacher.decoder.state_dict())
    except RuntimeError as error:
        raise ValueError(f"student and teacher must be built alike: {error}") from error


def modality_of(model: EspMedSam, dataset: MixtureDataset) -> Tensor:
    """The index in `model` of every image of `dataset`, by name; int64, one an image.

    Raises:
        ValueError: if the data have a modality that the model does not know.
    """
    return model.index(dataset.modalities)[dataset.modality]


def _join(config: EspConfig, encoder, classifier) -> EspMedSam:
    prompts = None
    if config.prompts != "off":
        prompts = SelfPatchPrompts(width=encoder.width, oracle=config.prompts == "oracle")
    decoder = ModalityDecoder(
        modalities=len(encoder.modalities),
        width=encoder.width,
        one_query=config.one_query,
        own_hyper=config.own_hyper,
        isolated=config.isolated,
    )
    return EspMedSam(encoder=encoder, prompts=prompts, decoder=decoder, classifier=classifier)
