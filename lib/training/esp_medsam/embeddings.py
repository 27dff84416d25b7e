"""What stays the same from epoch to epoch, computed once a view of an image and kept on disk.

The embeddings of a trained teacher, and what the student's layers before its first controller make
of an image while only a controller learns.
"""

import torch
from torch import Tensor

from lib.models.tiny_vit import TinyVitEncoder
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import image_fingerprint
from lib.sam.medical_encoder import MedicalEncoder
from lib.training.esp_medsam.stages import weights_fingerprint


class TeacherEmbeddings:
    """A trained medical encoder as a fixed function of image and modality.

    A plain object, not a module: a method that holds one neither saves nor trains the teacher. The
    encoder must not change afterwards: embeddings are filed under its weights as they are now.
    It is moved to the images' device when it has to compute, and stays there.

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
        if self.cache is None:
            self.encoded += len(images)
            return self._embed(images, modality).float()
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
        return self.cache.put(key, self._embed(image[None], torch.tensor([modality]))[0])

    def _embed(self, images: Tensor, modality: Tensor) -> Tensor:
        # Not moved back: to and fro at every step would cost more than the embedding.
        encoder = self.encoder.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return encoder(images, modality)


class StemFeatures:
    """The student's frozen stem (`TinyVitEncoder.stem`) as a function of the image.

    A plain object, as `TeacherEmbeddings`. Features are filed under the stem's weights as they are
    at each call, so that they may be loaded, or trained in another stage, in between.

    Attributes:
        computed, cached: features computed, and features read, so far.
    """

    def __init__(self, encoder: TinyVitEncoder, *, cache: EmbeddingCache | None = None):
        """Read from `encoder`, in evaluation mode; `cache` keeps the features.

        Raises:
            ValueError: a cache that rounds, with which training would depend on the cache.
        """
        if cache is not None and cache.dtype != torch.float32:
            raise ValueError(
                f"the cache of stem features has dtype={cache.dtype}, which rounds them: open it "
                "with torch.float32"
            )
        self.encoder, self.cache = encoder, cache
        self.computed = self.cached = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features B x C x H/8 x W/8 float32 of B x 3 x H x W images in [0, 1].

        With a cache one image at a time, and always in full precision, as the teacher's embeddings.
        """
        with torch.autocast(images.device.type, enabled=False):
            if self.cache is None:
                self.computed += len(images)
                return self.encoder.run_stem(images)
            weights = " ".join(weights_fingerprint(layer) for layer in self.encoder.stem)
            found = torch.stack([self._one(image, weights) for image in images])
        return found.to(images.device, memory_format=torch.channels_last)  # as `run_stem` has them

    def _one(self, image: Tensor, weights: str) -> Tensor:
        key = f"image {image_fingerprint(image)}; stem {weights}"
        found = self.cache.get(key)
        if found is not None:
            self.cached += 1
            return found
        self.computed += 1
        return self.cache.put(key, self.encoder.run_stem(image[None])[0])
