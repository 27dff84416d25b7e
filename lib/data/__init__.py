"""Data sets, splits, augmentation and batches; images and masks as tensors."""
