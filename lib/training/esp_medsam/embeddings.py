"""Embeddings of a trained teacher, computed once an image and kept on disk."""

import torch
from torch import Tensor

from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import image_fingerprint
from lib.sam.medical_encoder import MedicalEncoder


class TeacherEmbeddings:
    """A trained medical encoder as a fixed function of image and modality.

    A plain object, not a module: a method that holds one neither saves nor trains the teacher. The
    encoder must not change afterwards: embeddings are filed under its weights as they are now.

    Attributes:
        fingerprint: of the encoder's weights, SAM's included.
        encoded, cached: embeddings computed, and embeddings read, so far.
    """

    def __init__(self, encoder: MedicalEncoder, *, cache: EmbeddingCache | None = None):
        """Freeze `encoder`; `cache` keeps its embeddings between epochs and runs."""
        self.encoder = encoder.eval().requires_grad_(False)
        self.cache = cache
        self.encoded = self.cached = 0
        self.fingerprint = encoder.fingerprint()

    @torch.no_grad()
    def __call__(self, images: Tensor, modality: Tensor) -> Tensor:
        """Embed B x 3 x H x W images in [0, 1] of `modality` (B int64); B x C x h x w float32.

        With a cache, images that are not in it are embedded one at a time: an embedding then does
        not depend on which others were missing, and a resumed run equals an uninterrupted one.
        They are computed in full precision, whatever the caller's autocast.
        """
        self.encoder.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            if self.cache is None:
                self.encoded += len(images)
                return self.encoder(images, modality).float()
            found = [self._one(*pair) for pair in zip(images, modality.tolist(), strict=True)]
        return torch.stack(found).to(images.device, torch.float32)

    def _one(self, image: Tensor, modality: int) -> Tensor:
        key = (
            f"image {image_fingerprint(image)}; modality {modality}; teacher {self.fingerprint}; "
            f"{self.cache.dtype}"
        )
        found = self.cache.get(key)
        if found is not None:
            self.cached += 1
            return found
        self.encoded += 1
        return self.cache.put(key, self.encoder(image[None], torch.tensor([modality]))[0])
