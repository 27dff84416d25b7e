"""Metrics, their uncertainty, one JSON record a run, and tables made from records alone."""

from lib.evaluation.comparison import beside_published, comparison_table, published
from lib.evaluation.metrics import area_ratio, pooled_dice, score_image, summarise
from lib.evaluation.provenance import peak_gpu_memory_mb, peak_memory_mb, provenance
from lib.evaluation.records import Record, RecordError, read_record, read_records, write_record
from lib.evaluation.statistics import Difference, bootstrap_interval, paired_difference
from lib.evaluation.tables import (
    provenance_table,
    results_table,
    table_by_checkpoint,
    to_markdown,
)

__all__ = [
    "Difference",
    "Record",
    "RecordError",
    "area_ratio",
    "beside_published",
    "bootstrap_interval",
    "comparison_table",
    "paired_difference",
    "peak_gpu_memory_mb",
    "peak_memory_mb",
    "pooled_dice",
    "provenance",
    "provenance_table",
    "published",
    "read_record",
    "read_records",
    "results_table",
    "score_image",
    "summarise",
    "table_by_checkpoint",
    "to_markdown",
    "write_record",
]
