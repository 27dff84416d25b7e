"""Drawn pictures of six medical modalities: a file each, with `draw` and its two `LOOKS`."""
