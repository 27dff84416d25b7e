"""The one door to data for notebooks and scripts: a name, and a folder where it needs one."""

from pathlib import Path

from lib.data.dataset import SegmentationDataset
from lib.data.errors import DataError
from lib.data.folder import FolderDataset
from lib.data.layouts import LAYOUTS
from lib.data.synthetic import SyntheticDataset


def open_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = 256,
    task: str | None = None,
    classes: int | None = None,
    modality: str | None = None,
    domain: str = "seen",
    count: int = 200,
    seed: int = 0,
    cache: str | Path | None = None,
) -> SegmentationDataset:
    """Open a data set by name.

    name: "synthetic" (generated; uses modality, by default colonoscopy, and domain, count, seed,
        cache; 256 px if size is None), "folder" (the layout of `root` is found out) or the name of
        a layout (`root` must have it). "folder/any" stands for classes=2, any structure as one
        foreground, "folder/infection" for task="infection": so one word says it in a notebook.
    size: side in pixels of the square that images and masks are brought to; None: as stored.
    task, classes: see FolderDataset.
    Raises DataError for an unknown name, a missing root, or a folder that cannot be used.
    """
    name, _, which = name.partition("/")
    if which == "any":
        classes = 2
    elif which:
        task = which
    if name == "synthetic":
        if root or task:
            raise DataError(
                "The synthetic data set reads no folder and has one kind of masks: use "
                "dataset='folder'."
            )
        return SyntheticDataset(
            modality=modality or "colonoscopy",
            domain=domain,
            count=count,
            seed=seed,
            size=size or 256,
            cache=cache,
        )
    if name != "folder" and name not in LAYOUTS:
        raise DataError(
            f"Unknown data set {name!r}; known are synthetic, folder, {', '.join(LAYOUTS)}."
        )
    if not root:
        raise DataError(f"The data set {name!r} needs root, the folder where it lies (data_root).")
    layout = "auto" if name == "folder" else name
    return FolderDataset(root, layout=layout, size=size, classes=classes, task=task)
