"""ESP-MedSAM's training, one file a stage; `recipe` runs them in their order."""

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
from lib.training.esp_medsam.embeddings import StemFeatures, TeacherEmbeddings
from lib.training.esp_medsam.evaluate import embedding_scores, evaluate_modalities
from lib.training.esp_medsam.recipe import EspRecipe, EspTrained, train_esp_medsam
from lib.training.esp_medsam.segmentation import EspSegmentation, SegmentationConfig
from lib.training.esp_medsam.stages import run_stage

__all__ = [
    "ClassifierConfig",
    "ClassifierTraining",
    "CommonConfig",
    "CommonDistillation",
    "ControllerConfig",
    "ControllerDistillation",
    "EspConfig",
    "EspRecipe",
    "EspSegmentation",
    "EspTrained",
    "JointConfig",
    "JointDistillation",
    "SegmentationConfig",
    "StemFeatures",
    "TeacherEmbeddings",
    "build_student",
    "build_teacher",
    "copy_heads",
    "embedding_scores",
    "evaluate_modalities",
    "modality_of",
    "run_stage",
    "train_esp_medsam",
]
