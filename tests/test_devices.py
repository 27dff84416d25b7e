"""Devices: found by name, borrowed and given back. Another device is played by a subclass."""

import pytest
import torch
from tiny_sam import tiny_sam
from torch import nn

from lib.devices import best_device, find_device, moved
from lib.sam.decode import Decoded
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam


class Traveller(nn.Linear):
    """Remembers where it was sent; stays on the CPU."""

    def __init__(self):
        super().__init__(1, 1)
        self.places = []

    def to(self, device):
        self.places.append(str(device))
        return self


def test_the_best_device_is_a_gpu_if_there_is_one(monkeypatch):
    for cuda, mps, name in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert best_device() == name


def test_a_number_that_no_gpu_has_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device 'cuda:2' is not available here"):
        find_device("cuda:2")


def test_a_module_comes_back_even_after_an_error():
    module = Traveller()
    with pytest.raises(RuntimeError, match="broken"), moved(module, "cuda"):
        raise RuntimeError("broken")
    assert module.places == ["cuda", "cpu"]


def test_a_frozen_sam_answers_where_it_was_asked(tmp_path):
    """The meta device plays the asker's: what is in the cache need not be computed there."""
    sam = FrozenSam(tiny_sam(64), cache=EmbeddingCache(tmp_path), device="cpu")
    sam.encode(torch.rand(1, 3, 64, 64), keys=["known"])
    asked = torch.empty(1, 3, 64, 64, device="meta")
    assert sam.encode(asked, keys=["known"]).device.type == "meta"
    moved_there = Decoded(torch.ones(1), torch.ones(1), torch.ones(1)).to("meta")
    assert {part.device.type for part in vars(moved_there).values()} == {"meta"}
