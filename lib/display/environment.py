"""The environment report at a notebook's top: what computed the numbers below it."""

import torch
from IPython.display import Markdown

from lib.evaluation.provenance import cpu_model, packages, usable_cores


def environment_report() -> Markdown:
    """A small table: versions (major.minor), device, cores and threads.

    Patch versions are left out: they differ between machines more often than results do.
    Records hold them in full.
    """
    versions = ", ".join(f"{name} {_minor(text)}" for name, text in packages().items())
    rows = {
        "Packages": versions,
        "Device": device_name(),
        "CPU": f"{cpu_model()}, {usable_cores()} cores, {torch.get_num_threads()} torch threads",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return Markdown("\n".join(["| Environment | |", "|---|---|", *lines]))


def device_name() -> str:
    """The accelerator torch would use, or "CPU"."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU (MPS)" if torch.backends.mps.is_available() else "CPU"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
