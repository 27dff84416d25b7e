"""The Segment Anything Model: checkpoints, sizes, embeddings, batched prompt decoding."""
