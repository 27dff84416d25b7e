"""Fingerprints name what is cached and what ran: one that changes makes both unknown."""

import torch
from safetensors import safe_open
from tiny_sam import tiny_sam
from torch import nn

from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import encoder_fingerprint, image_fingerprint, sam_fingerprint
from lib.sam.medical_encoder import MedicalEncoder
from lib.training.esp_medsam.stages import weights_fingerprint


def exact(module):
    """The module with values that every machine represents and computes alike."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_((torch.arange(tensor.numel()) % 7 / 8).view_as(tensor))
    return module


def test_fingerprints_are_those_of_earlier_versions(tmp_path):
    sam, image = exact(tiny_sam(64)), torch.arange(12.0).view(3, 2, 2) / 16
    cache = EmbeddingCache(tmp_path, dtype=torch.bfloat16)
    cache.put("a key", image)
    with safe_open(cache.entries()[0][0], framework="pt") as file:
        stored = file.metadata()["sha256"]
    found = {
        "image": image_fingerprint(image),
        "encoder": encoder_fingerprint(sam),
        "SAM": sam_fingerprint(sam),
        "medical encoder": exact(MedicalEncoder(sam, modalities=["a", "b"])).fingerprint(),
        "weights": weights_fingerprint(exact(nn.BatchNorm1d(3))),
        "cache entry": stored,
    }
    assert {name: value[:16] for name, value in found.items()} == {
        "image": "11d3865cb530f7b5",
        "encoder": "c259798a42cbc64b",
        "SAM": "88877a85645b15ea",
        "medical encoder": "63d238450ceb24d4",
        "weights": "fae3ce453dd3bdb4",
        "cache entry": "d7bd92266f3a4dfa",
    }
