"""Which modality an image is of, from its embedding: for images that come without that knowledge.

The released code reads the modality from the file's name, which no clinic's file can be trusted
with. A linear classifier on the mean embedding replaces it (this project's addition).
"""

from torch import Tensor, nn


class ModalityClassifier(nn.Module):
    """Embedding to a logit a modality."""

    def __init__(self, *, modalities: int, width: int = 256):
        """Random weights for `modalities` modalities and embeddings of `width` channels."""
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(width)
        self.outputs = nn.Linear(width, modalities)

    def forward(self, embedding: Tensor) -> Tensor:
        """B x width x h x w to logits B x K."""
        return self.outputs(self.norm(embedding.mean(dim=(2, 3))))

    def add_modality(self) -> None:
        """Append an output; it has to be trained, since it now competes with the others."""
        old = self.outputs
        self.outputs = nn.Linear(self.width, old.out_features + 1).to(old.weight)
        for name, parameter in old.named_parameters():
            getattr(self.outputs, name).data[:-1] = parameter.data
