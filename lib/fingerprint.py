"""SHA-256 of tensors, by which caches, records and resumed runs know weights and images again.

Every change here makes what is cached and recorded unknown.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensors_fingerprint(tensors: Mapping[str, Tensor], *, start: str = "") -> str:
    """Return the SHA-256 over names, types, shapes and values, in the mapping's order.

    `start`: a text that is hashed before them, such as the fingerprint of what they add to.
    """
    digest = hashlib.sha256(start.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor of any type, on the CPU without a copy."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())
