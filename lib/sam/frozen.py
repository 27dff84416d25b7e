"""A frozen SAM as a teacher: encodes each image once, decodes prompts, never gets a gradient."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from lib.devices import find_device
from lib.fingerprint import tensor_bytes, tensors_fingerprint
from lib.sam.decode import Decoded, PromptLike, decode_prompts
from lib.sam.embeddings import EmbeddingCache
from lib.sam.preprocess import PREPROCESSING, preprocess


@dataclass
class Calls:
    """What a frozen SAM did so far: images encoded, images read from the cache, prompts decoded."""

    encoded: int = 0
    cached: int = 0
    decoded: int = 0


class FrozenSam:
    """SAM as a fixed function of image and prompt, whose answers come back to the asker's device.

    A plain object, not a module: a method that holds one does not save SAM's weights with its
    own, nor train them. `sam` itself is put into eval mode, frozen and moved to `device`, and
    must not change afterwards: cached embeddings are filed under its weights as they are now.

    Args:
        sam: any `segment_anything` model.
        cache: where embeddings are kept between rounds and runs; None keeps none.
        device: where SAM runs: "auto" (a GPU if there is one), or as in `lib.devices.find_device`.
        encode_at_once: images per pass of the encoder. With 1 an embedding does not depend on
            which images it was computed with, bit for bit, so a resumed run equals an
            uninterrupted one; larger is faster on a GPU.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        cache: EmbeddingCache | None = None,
        device: str | torch.device = "auto",
        encode_at_once: int = 1,
    ) -> None:
        """Freeze `sam` and take the fingerprint of its encoder."""
        if encode_at_once < 1:
            raise ValueError(f"encode_at_once={encode_at_once} must be at least 1")
        self.device = find_device(str(device))
        self.sam = sam.to(self.device).eval().requires_grad_(False)
        self.cache = cache
        self.encode_at_once = encode_at_once
        self.calls = Calls()
        self.fingerprint = encoder_fingerprint(sam) if cache is not None else None

    @torch.no_grad()
    def encode(self, images: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Return the B x C x h x w float32 embeddings of B x 3 x H x W images in [0, 1].

        Images of any size are resized and normalised as SAM wants them. Those in the cache are
        read; of the others each distinct one is encoded once.

        Args:
            keys: what identifies each image's content, if the caller has it (B strings that
                change whenever the content does); None hashes the images.

        Raises:
            ValueError: the images are no such tensor, or the number of keys differs.
        """
        if keys is not None and len(keys) != len(images):
            raise ValueError(f"{len(images)} images but {len(keys)} keys")
        if self.cache is None:
            return self._encode(images)
        keys = [self._key(key) for key in keys or map(image_fingerprint, images)]
        found = {key: self.cache.get(key) for key in dict.fromkeys(keys)}
        missing = [key for key, embedding in found.items() if embedding is None]
        self.calls.cached += sum(found[key] is not None for key in keys)
        if missing:
            computed = self._encode(images[[keys.index(key) for key in missing]])
            for key, embedding in zip(missing, computed, strict=True):
                found[key] = self.cache.put(key, embedding)
        return torch.stack([found[key] for key in keys]).to(images.device, torch.float32)

    @torch.no_grad()
    def decode(
        self,
        embeddings: Tensor,
        prompts: Sequence[PromptLike],
        image_index: Sequence[int],
        size: tuple[int, int],
        multimask: bool | str = "auto",
    ) -> Decoded:
        """Decode prompts on the embeddings of `encode`; see `lib.sam.decode.decode_prompts`."""
        decoded = decode_prompts(
            self.sam,
            embeddings.to(self.device),
            prompts,
            image_index,
            size=size,
            multimask=multimask,
        )
        self.calls.decoded += len(prompts)
        return decoded.to(embeddings.device)

    def _encode(self, images: Tensor) -> Tensor:
        parts = []
        for part in images.split(self.encode_at_once):
            parts.append(self.sam.image_encoder(preprocess(self.sam, part.to(self.device))))
            self.calls.encoded += len(part)
        return torch.cat(parts).to(images.device, torch.float32)

    def _key(self, image: str) -> str:
        return (
            f"image {image}; encoder {self.fingerprint}; size {self.sam.image_encoder.img_size}; "
            f"{PREPROCESSING}; {self.cache.dtype}"
        )


def image_fingerprint(image: Tensor) -> str:
    """Return the SHA-256 over type, shape and values of one image."""
    digest = hashlib.sha256(f"{image.dtype} {tuple(image.shape)} ".encode())
    digest.update(tensor_bytes(image))
    return digest.hexdigest()


def encoder_fingerprint(sam: Sam) -> str:
    """Return the SHA-256 over all tensors an embedding depends on: encoder, pixel mean and std."""
    return _fingerprint(sam, sam.image_encoder.state_dict())


def sam_fingerprint(sam: Sam, *, without_trained: bool = False) -> str:
    """Return the SHA-256 over all tensors a mask depends on, those of the decoder too.

    `without_trained` leaves out parameters that require a gradient, such as those of adapters: it
    then says which weights were adapted, whatever the adapters' random start.
    """
    named = sam.named_parameters(remove_duplicate=False)  # adapters in the decoder have two names
    left_out = {n for n, p in named if without_trained and p.requires_grad}
    return _fingerprint(sam, {n: t for n, t in sam.state_dict().items() if n not in left_out})


def _fingerprint(sam: Sam, tensors: dict[str, Tensor]) -> str:
    return tensors_fingerprint({**tensors, "mean": sam.pixel_mean, "std": sam.pixel_std})
