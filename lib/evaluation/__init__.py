"""Metrics, their uncertainty, one JSON record a run, and tables made from records alone."""

from lib.evaluation.metrics import pooled_dice, score_image, summarise
from lib.evaluation.provenance import peak_gpu_memory_mb, peak_memory_mb, provenance
from lib.evaluation.records import Record, RecordError, read_record, read_records, write_record
from lib.evaluation.statistics import Difference, bootstrap_interval, paired_difference

__all__ = [
    "Difference",
    "Record",
    "RecordError",
    "bootstrap_interval",
    "paired_difference",
    "peak_gpu_memory_mb",
    "peak_memory_mb",
    "pooled_dice",
    "provenance",
    "read_record",
    "read_records",
    "score_image",
    "summarise",
    "write_record",
]
