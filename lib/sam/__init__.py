"""The Segment Anything Model: checkpoints, sizes, embeddings, batched prompt decoding."""

from lib.sam.checkpoints import load_sam
from lib.sam.decode import Decoded, decode_prompts
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam

__all__ = ["Decoded", "EmbeddingCache", "FrozenSam", "decode_prompts", "load_sam"]
