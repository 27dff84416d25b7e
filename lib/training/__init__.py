"""Methods, one file each, and the loop that runs them."""

from lib.training.bcp import Bcp, BcpConfig
from lib.training.cps import Cps, CpsConfig
from lib.training.evaluate import evaluate
from lib.training.family import NAMES, WITH_SAM, Budget, batches, build_method
from lib.training.fixmatch import FixMatch, FixMatchConfig
from lib.training.knowledge_mining import KnowledgeMining, KnowledgeMiningConfig
from lib.training.knowsam import KnowSam, KnowSamConfig
from lib.training.loop import fit
from lib.training.mc_net import McNet, McNetConfig
from lib.training.mc_seg import McSeg, McSegConfig
from lib.training.mean_teacher import MeanTeacher, MeanTeacherConfig
from lib.training.method import Losses, Method, Progress, inference
from lib.training.mining import Filter, mine
from lib.training.sam_distillation import (
    SamDistillation,
    SamDistillationConfig,
    sam_distillation,
)
from lib.training.sam_teachers import AdaptedTeacher, FrozenTeacher
from lib.training.semi_sam import SemiSam, SemiSamConfig
from lib.training.supervised import Supervised, SupervisedConfig
from lib.training.supervised_baseline import SupervisedBaseline, SupervisedBaselineConfig
from lib.training.two_way_sam import TwoWaySam, TwoWaySamConfig
from lib.training.ua_mt import UaMt, UaMtConfig
from lib.training.unimatch import UniMatch, UniMatchConfig
from lib.training.urpc import Urpc, UrpcConfig

__all__ = [
    "NAMES",
    "WITH_SAM",
    "AdaptedTeacher",
    "Bcp",
    "BcpConfig",
    "Budget",
    "Cps",
    "CpsConfig",
    "Filter",
    "FixMatch",
    "FixMatchConfig",
    "FrozenTeacher",
    "KnowSam",
    "KnowSamConfig",
    "KnowledgeMining",
    "KnowledgeMiningConfig",
    "Losses",
    "McNet",
    "McNetConfig",
    "McSeg",
    "McSegConfig",
    "MeanTeacher",
    "MeanTeacherConfig",
    "Method",
    "Progress",
    "SamDistillation",
    "SamDistillationConfig",
    "SemiSam",
    "SemiSamConfig",
    "Supervised",
    "SupervisedBaseline",
    "SupervisedBaselineConfig",
    "SupervisedConfig",
    "TwoWaySam",
    "TwoWaySamConfig",
    "UaMt",
    "UaMtConfig",
    "UniMatch",
    "UniMatchConfig",
    "Urpc",
    "UrpcConfig",
    "batches",
    "build_method",
    "evaluate",
    "fit",
    "inference",
    "mine",
    "sam_distillation",
]
