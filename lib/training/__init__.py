"""Methods, one file each, and the loop that runs them."""

from lib.training.evaluate import evaluate
from lib.training.knowledge_mining import KnowledgeMining, KnowledgeMiningConfig
from lib.training.loop import fit
from lib.training.method import Losses, Method, Progress, inference
from lib.training.mining import Filter, mine
from lib.training.supervised import Supervised, SupervisedConfig

__all__ = [
    "Filter",
    "KnowledgeMining",
    "KnowledgeMiningConfig",
    "Losses",
    "Method",
    "Progress",
    "Supervised",
    "SupervisedConfig",
    "evaluate",
    "fit",
    "inference",
    "mine",
]
