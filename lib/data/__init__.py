"""Data sets, splits, augmentation and batches; images and masks as tensors."""

from lib.data.augment import strong, strong_batch, weak, weak_batch
from lib.data.batches import Batch, BatchStream
from lib.data.dataset import Sample, SegmentationDataset
from lib.data.errors import DataError
from lib.data.folder import FolderDataset
from lib.data.open import open_dataset
from lib.data.splits import (
    Split,
    check_leaks,
    labelled_subset,
    load_split,
    make_split,
    save_split,
)
from lib.data.synthetic import MODALITIES, SyntheticDataset

__all__ = [
    "MODALITIES",
    "Batch",
    "BatchStream",
    "DataError",
    "FolderDataset",
    "Sample",
    "SegmentationDataset",
    "Split",
    "SyntheticDataset",
    "check_leaks",
    "labelled_subset",
    "load_split",
    "make_split",
    "open_dataset",
    "save_split",
    "strong",
    "strong_batch",
    "weak",
    "weak_batch",
]
