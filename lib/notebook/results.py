"""What is taken out of a run for a reader who opens no notebook: figures and the results table."""

import base64
from itertools import groupby
from pathlib import Path

from lib.notebook.file import read_notebook

SCORES = {"dice": "Dice", "iou": "IoU"}


def extract_figures(notebook: Path, folder: Path) -> list[Path]:
    """Write each PNG among the outputs of ``notebook`` to ``folder/NAME-K.png``, K from 1.

    Figures of an earlier run of the same notebook are removed first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{notebook.stem}-*.png"):
        old.unlink()
    pictures = [
        output.data["image/png"]
        for cell in read_notebook(notebook).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    paths = []
    for number, picture in enumerate(pictures, start=1):
        paths.append(folder / f"{notebook.stem}-{number}.png")
        paths[-1].write_bytes(base64.b64decode(picture))
    return paths


def write_results_table(output: Path) -> Path | None:
    """Write ``results.md`` and ``results.csv`` in ``output`` from the records in its ``results/``.

    The first shows mean and standard deviation over seeds, a table for each data set, image size
    and score; the second has one line for each record and checkpoint.

    Returns:
        The Markdown file; ``None`` when there are no records.

    Raises:
        RecordError: a file in ``results/`` is no record.
    """
    if not any((output / "results").glob("*.json")):
        return None
    # PyTorch and the rest of the library are loaded for records only: the runner starts at once.
    import pandas as pd

    from lib.evaluation.records import RecordError, read_records
    from lib.evaluation.tables import results_table, to_markdown

    records = read_records(output / "results")
    lines = [
        {
            "dataset": record.dataset,
            "method": record.method,
            "variant": record.variant,
            "labelled_percent": record.labelled_percent,
            "labelled_count": record.labelled_count,
            "seed": record.seed,
            "checkpoint": checkpoint,
            **scores,
            "seconds": record.seconds,
            "peak_memory_mb": record.peak_memory_mb,
        }
        for record in records
        for checkpoint, scores in record.scores.items()
    ]
    pd.DataFrame(lines).to_csv(output / "results.csv", index=False)

    def protocol(record):  # runs that share it may stand in one table
        size = record.parameters.get("size") or record.parameters.get("method", {}).get("size", 0)
        return record.dataset, record.dataset_fingerprint, record.split_sha256, size

    text = ["# Results", "Mean ± standard deviation over seeds (number of runs), in percent."]
    for (dataset, _, split, size), group in groupby(sorted(records, key=protocol), key=protocol):
        # Records without a trained network, such as the quality of pseudo labels, are in the CSV.
        runs = [record for record in group if "last" in record.scores]
        pixels = f"{size} px, " if size else ""
        for score, title in SCORES.items() if runs else ():
            text.append(f"## {dataset}: {title} by share of labels ({pixels}split {split[:8]})")
            try:
                text.append(to_markdown(results_table(runs, value=score)))
            except RecordError as error:  # runs of other settings; they stand in the CSV
                text.append(f"No table: {error}")
    markdown = output / "results.md"
    markdown.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return markdown
