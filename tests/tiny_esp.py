"""An ESP-MedSAM small enough to build in every test, all its weights away from their start."""

import torch
from tiny_sam import fill

from lib.models.esp_medsam import EspMedSam
from lib.models.modality_classifier import ModalityClassifier
from lib.models.modality_decoder import ModalityDecoder
from lib.models.tiny_vit import TinyVitEncoder, TinyVitShape
from lib.prompts.self_patch import SelfPatchPrompts

SHAPE = TinyVitShape(dims=(8, 12, 16, 24), depths=(1, 1, 2, 1), heads=(1, 2, 2, 3))
NAMES = ("fundus", "xray", "nuclei")
WIDTH = 32


def tiny_encoder(modalities=NAMES, *, seed=0, **changes):
    encoder = TinyVitEncoder(modalities=modalities, width=WIDTH, shape=SHAPE, **changes)
    fill(encoder, seed)
    return encoder.eval()


def tiny_esp(modalities=NAMES, *, seed=0, prompts=True, oracle=False, **decoder):
    model = EspMedSam(
        encoder=tiny_encoder(modalities),
        prompts=SelfPatchPrompts(width=WIDTH, oracle=oracle) if prompts else None,
        decoder=ModalityDecoder(modalities=len(modalities), width=WIDTH, **decoder),
        classifier=ModalityClassifier(modalities=len(modalities), width=WIDTH),
    )
    fill(model, seed)
    return model.eval()


def images(count=4, size=64, *, seed=1):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
