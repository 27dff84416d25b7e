"""An ESP-MedSAM small enough to build in every test, its weights away from their start."""

import numpy as np
import torch
from tiny_sam import WIDTH, fill, tiny_sam

from lib.data.dataset import SegmentationDataset
from lib.data.mixture import MixtureDataset
from lib.models.esp_medsam import EspMedSam
from lib.models.modality_classifier import ModalityClassifier
from lib.models.modality_decoder import ModalityDecoder
from lib.models.tiny_vit import TinyVitEncoder, TinyVitShape
from lib.prompts.self_patch import SelfPatchPrompts
from lib.sam.medical_encoder import MedicalEncoder

# Windows of 3 tokens: every grid of 64 px images is padded.
SHAPE = TinyVitShape(
    dims=(8, 12, 16, 24), depths=(1, 1, 2, 1), heads=(1, 2, 2, 3), windows=(3, 3, 3, 3)
)
NAMES = ("fundus", "xray", "nuclei")


def tiny_encoder(modalities=NAMES, *, seed=0, **changes):
    encoder = TinyVitEncoder(modalities=modalities, width=WIDTH, shape=SHAPE, **changes)
    fill(encoder, seed)
    return encoder.eval()


def tiny_esp(modalities=NAMES, *, seed=0, start=False, prompts=True, oracle=False, **decoder):
    """`start`: with the weights that training starts from."""
    torch.manual_seed(seed)
    model = EspMedSam(
        encoder=TinyVitEncoder(modalities=modalities, width=WIDTH, shape=SHAPE),
        prompts=SelfPatchPrompts(width=WIDTH, oracle=oracle) if prompts else None,
        decoder=ModalityDecoder(modalities=len(modalities), width=WIDTH, **decoder),
        classifier=ModalityClassifier(modalities=len(modalities), width=WIDTH),
    )
    if not start:
        fill(model, seed)
    return model.eval()


def images(count=4, size=64, *, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Tinted(SegmentationDataset):
    """Squares of 24 px on noise of one colour, 64 x 64 px; the mask is the square."""

    def __init__(self, count, channel):
        names = [f"image-{i}" for i in range(count)]
        super().__init__(names=names, size=64, title=f"Tinted {channel}")
        self.channel = channel

    def _corner(self, index):
        return np.random.default_rng([index, self.channel]).integers(0, 40, size=2)

    def _load_image(self, index):
        generator = np.random.default_rng([index, self.channel, 1])
        image = generator.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        image[..., self.channel] += 60
        row, column = self._corner(index)
        image[row : row + 24, column : column + 24] += 100
        return image

    def _load_mask(self, index):
        mask = np.zeros((64, 64), np.uint8)
        row, column = self._corner(index)
        mask[row : row + 24, column : column + 24] = 1
        return mask


def mixture(count=4):
    return MixtureDataset([(name, Tinted(count, i)) for i, name in enumerate(NAMES)])


def tiny_teacher(seed=0):
    """A teacher of 64 x 64 px images, all weights away from their start."""
    torch.manual_seed(seed)
    model = EspMedSam(
        encoder=MedicalEncoder(tiny_sam(64), modalities=NAMES),
        prompts=SelfPatchPrompts(width=WIDTH),
        decoder=ModalityDecoder(modalities=3, width=WIDTH),
    )
    fill(model, seed)
    return model.eval()
