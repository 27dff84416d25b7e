"""The Segment Anything Model: checkpoints, sizes, embeddings, batched prompt decoding."""

from lib.sam.adapted import AdaptedSam
from lib.sam.adapters import add_adapters
from lib.sam.checkpoints import load_sam
from lib.sam.decode import Decoded, decode_prompts
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam

__all__ = [
    "AdaptedSam",
    "Decoded",
    "EmbeddingCache",
    "FrozenSam",
    "add_adapters",
    "decode_prompts",
    "load_sam",
]
