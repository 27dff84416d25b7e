"""Methods, one file each, and the loop that runs them."""

from lib.training.evaluate import evaluate
from lib.training.knowledge_mining import KnowledgeMining, KnowledgeMiningConfig
from lib.training.knowsam import KnowSam, KnowSamConfig
from lib.training.loop import fit
from lib.training.mc_seg import McSeg, McSegConfig
from lib.training.method import Losses, Method, Progress, inference
from lib.training.mining import Filter, mine
from lib.training.supervised import Supervised, SupervisedConfig

__all__ = [
    "Filter",
    "KnowSam",
    "KnowSamConfig",
    "KnowledgeMining",
    "KnowledgeMiningConfig",
    "Losses",
    "McSeg",
    "McSegConfig",
    "Method",
    "Progress",
    "Supervised",
    "SupervisedConfig",
    "evaluate",
    "fit",
    "inference",
    "mine",
]
