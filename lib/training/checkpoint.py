"""Checkpoints of a run that survive a crash at any moment.

A checkpoint is written whole under a temporary name, flushed to the disk, then renamed; the two
newest are kept. So whatever happens while one is being written, the one before it is there.
"""

import contextlib
import io
import json
import os
import pickle
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from lib.training.errors import CheckpointError

KEPT = 2
OLD = 3600  # seconds after which a half-written file is what a killed process left


class Checkpoints:
    """The checkpoints of one run in one folder, ``checkpoint-00000040.pt`` after 40 steps."""

    def __init__(self, directory: Path | str, configuration: dict[str, Any]):
        """Use ``directory`` (created if need be) for the run that ``configuration`` describes.

        Raises:
            CheckpointError: if the folder cannot be created.
        """
        self.directory = Path(directory)
        self.configuration = _plain(configuration)
        self.failure: OSError | None = None  # of the last attempt to save
        self._read_back = False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot create the folder {directory}: {error}") from error
        for leftover in self.directory.glob("checkpoint-*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                if time.time() - leftover.stat().st_mtime > OLD:  # else another may write it
                    leftover.unlink()

    def paths(self) -> list[Path]:
        """The checkpoints that are there, the newest first."""
        return sorted(self.directory.glob("checkpoint-*.pt"), reverse=True)

    def clear(self) -> None:
        """Delete them all."""
        for path in self.paths():
            path.unlink()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint after ``step`` steps; then drop all but the two newest.

        A full disk (any ``OSError``) does not end the run: the previous checkpoints are kept,
        ``failure`` holds the error until a later attempt succeeds, and the first failure warns.

        Raises:
            CheckpointError: if ``state`` holds what ``torch.load(weights_only=True)`` refuses.
        """
        path = self.directory / f"checkpoint-{step:08d}.pt"
        temporary = self.directory / f"checkpoint-{step:08d}-{os.getpid()}.tmp"
        buffer = io.BytesIO()
        torch.save({"configuration": self.configuration, "step": step, **state}, buffer)
        if not self._read_back:
            _require_readable(buffer)
            self._read_back = True
        try:
            with open(temporary, "wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_folder(self.directory)
            for old in self.paths()[KEPT:]:
                old.unlink(missing_ok=True)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if self.failure is None:
                warnings.warn(
                    f"the checkpoint of step {step} could not be written to {self.directory} "
                    f"({error}); training goes on and tries again, earlier checkpoints are kept. "
                    "Free some space.",
                    stacklevel=2,
                )
            self.failure = error
        else:
            self.failure = None

    def latest(self) -> dict[str, Any] | None:
        """The newest readable checkpoint of this run, or None if the folder has none.

        A damaged one is passed over with a warning.

        Raises:
            CheckpointError: if the newest readable one belongs to another run (the message names
                what differs), or if none of those present can be read.
        """
        paths = self.paths()
        for path in paths:
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                warnings.warn(f"{error}; falling back to the one before", stacklevel=2)
                continue
            self._require_same_run(path, state["configuration"])
            return state
        if paths:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read "
                f"({', '.join(path.name for path in paths)}); delete them, or start over with "
                "fit(..., resume=False)"
            )
        return None

    def _require_same_run(self, path: Path, found: dict[str, Any]) -> None:
        ours, theirs = _flat(self.configuration), _flat(found)
        differences = [
            f"  {key}: {theirs.get(key, 'absent')!r} in the checkpoint, "
            f"{ours.get(key, 'absent')!r} now"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key, "absent") != theirs.get(key, "absent")
        ]
        if differences:
            raise CheckpointError(
                f"{path} belongs to another run:\n" + "\n".join(differences) + "\nUse another "
                "directory, or fit(..., resume=False), which deletes the checkpoints in this one"
            )


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint file: "step", "method" (a state dict), "history", ...

    Checksums are verified, and no code is executed (``weights_only``).

    Raises:
        CheckpointError: if the file is damaged or no checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself checks no checksums
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(f"{path} is damaged (wrong checksum in {damaged})")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict) or not {"configuration", "step"} <= content.keys():
        raise CheckpointError(f"{path} is no checkpoint of this project: move it elsewhere")
    return content


def _require_readable(buffer: io.BytesIO) -> None:
    """Find out at the first checkpoint, not after the crash, that a state cannot be loaded."""
    buffer.seek(0)
    try:
        torch.load(buffer, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "the method's state could not be resumed: get_extra_state and optimisers may hold "
            f"tensors, numbers, strings, lists and dicts only ({error})"
        ) from error


def _flush_folder(directory: Path) -> None:
    """Make the renaming itself survive a power cut; Windows offers no way to."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain(configuration: dict[str, Any]) -> dict[str, Any]:
    """As JSON would return it: tuples become lists, anything else unknown its text."""
    return json.loads(json.dumps(configuration, default=str))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"parameters": {"bce": 1}} as {"parameters.bce": 1}, so that differences have names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
