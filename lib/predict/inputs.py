"""Which pictures are predicted, and where the results of each go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.errors import listing
from lib.data.pairing import files_below
from lib.data.reading import SUFFIXES

MASKS, OVERLAYS = "masks", "overlays"
MARK = ".written_by_lib_predict"  # in a folder of results


class InputError(ValueError):
    """Files or folders that cannot be predicted as asked; nothing has been written."""


@dataclass(frozen=True)
class Job:
    """A picture and the two files that are made of it."""

    picture: Path
    mask: Path
    overlay: Path


def find_jobs(inputs: Sequence[Path | str], output: Path | str) -> list[Job]:
    """The pictures in `inputs`, files and folders, in natural order.

    A folder is searched to its depths, without hidden files, files that are no pictures by their
    ending, and earlier results of this program. The place of a picture below its folder is kept in
    `output/masks` and `output/overlays`; with several inputs the folder's own name comes first.

    Raises:
        InputError: an input does not exist, there is no picture at all, two pictures would have
            the same mask, or a result would overwrite a picture or come among files of others.
    """
    inputs, output = [Path(path) for path in inputs], Path(output)
    if missing := [path for path in inputs if not path.exists()]:
        raise InputError(f"There is nothing at:\n{listing(missing)}")
    results = [output / MASKS, output / OVERLAYS]
    if foreign := [folder for folder in results if _is_foreign(folder)]:
        raise InputError(
            "These folders hold files that are no results of this program, true masks perhaps; "
            f"choose another --output:\n{listing(foreign)}"
        )
    names: dict[Path, Path] = {}  # by picture
    for given in inputs:
        if given.is_file():
            names.setdefault(given, Path(given.name))
            continue
        inside = Path(given.resolve().name) if len(inputs) > 1 else Path()
        for path in files_below(given):
            inner = (folder for folder in path.parents if given in folder.parents)
            ours = any((folder / MARK).exists() for folder in inner)
            if path.suffix.lower() in SUFFIXES and not ours:
                names.setdefault(path, inside / path.relative_to(given))
    if not names:
        known = ", ".join(sorted(SUFFIXES))
        raise InputError(f"There is no picture ({known}) in:\n{listing(inputs)}")
    jobs = [
        Job(
            picture,
            mask=(output / MASKS / name).with_suffix(".png"),
            overlay=(output / OVERLAYS / name).with_suffix(".png"),
        )
        for picture, name in names.items()
    ]
    _refuse_clashes(jobs)
    return jobs


def claim(output: Path | str, *, overlays: bool = True) -> None:
    """Make the folders of results, and mark them so that they are known the next time."""
    for name in (MASKS, OVERLAYS) if overlays else (MASKS,):
        folder = Path(output) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()


def _is_foreign(folder: Path) -> bool:
    return folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir())


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    by_mask: dict[Path, list[Path]] = {}
    for job in jobs:
        by_mask.setdefault(job.mask, []).append(job.picture)
    if clashes := [pictures for pictures in by_mask.values() if len(pictures) > 1]:
        raise InputError(
            "These pictures would have the same mask; rename one, or predict them into different "
            "folders (--output):\n" + listing(" and ".join(map(str, same)) for same in clashes)
        )
    pictures = {job.picture.resolve() for job in jobs}
    results = [path for job in jobs for path in (job.mask, job.overlay)]
    if lost := [path for path in results if path.resolve() in pictures]:
        raise InputError(
            f"These pictures would be overwritten; choose another --output:\n{listing(lost)}"
        )
