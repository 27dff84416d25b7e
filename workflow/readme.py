"""Write the README's tables from the notebooks and the records: `python workflow/readme.py`.

Nothing in these tables is typed by hand; a test fails when the README no longer says what the
records say.
"""

import json
import re
from pathlib import Path

from lib.evaluation.records import read_records
from lib.evaluation.tables import results_table, to_markdown
from lib.notebook.file import opening_table, read_notebook, title
from lib.training.esp_medsam.study import FLOOR, LONGER, MAIN, UPPER
from lib.training.esp_medsam.study_tables import seen_and_unseen
from lib.training.family_tables import (
    ALL,
    FEW,
    budget_text,
    family_records,
    family_table,
    plug_in_table,
)
from lib.training.mining_study import RUNS, SUPERVISED
from lib.training.teacher_weights import teacher_note

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RECORDS = RESULTS / "knowledge_mining"
SETS = {"Kvasir-SEG": "polyps", "Montgomery and Shenzhen": "lungs on chest X-rays"}
BUDGETS = [5.0, 25.0, 50.0, 75.0, 100.0]
ESP_ROWS = (
    FLOOR, "masks alone (given)", f"{LONGER} (given)", "common only (given)",
    "medical only (given)", f"{MAIN} (given)", f"{MAIN} (predicted)", f"{MAIN} (wrong)", UPPER,
)  # fmt: skip
ON_HEARTS = ("supervised U-Net", "supervised V-Net", "Mean Teacher", "BCP", "MC-seg", "KnowSAM")
PLUGGED = ("supervised U-Net", "Mean Teacher")  # with few labels
# Benchmark, what, and where in its report stand times faster and memory saved.
SPEED = (
    ("sam", "Second round of mining with cached embeddings (ViT-B, 1024 px)",
     "results mining_cache ratio", None),
    ("sam", "Prompts decoded in batches instead of one by one (small SAM)",
     "results batched_decoding ratio", None),
    ("sam", "Fused attention in SAM's encoder (ViT-B, 1024 px, forward)",
     "results encoder_1024_forward time_ratio", "results encoder_1024_forward extra_memory_ratio"),
    ("sam", "The same at 512 px",
     "results encoder_512_forward time_ratio", "results encoder_512_forward extra_memory_ratio"),
    ("sam", "The same at 256 px, forward and backward",
     "results encoder_256_forward_backward time_ratio",
     "results encoder_256_forward_backward extra_memory_ratio"),
    ("knowsam", "KnowSAM's training step against the released one (ViT-B, 256 px)",
     "targets step_as_released_with_exchange found", "targets memory_saved found"),
    ("knowsam", "The same, the released one without its anomaly detection",
     "targets step_anomaly_detection_off_with_exchange found", None),
    ("knowsam", "The same in bfloat16 against the released one",
     "targets step_bfloat16_with_exchange found", None),
    ("knowsam", "KnowSAM's prediction of a folder against the released one",
     "targets prediction_float32 found", None),
    ("knowsam", "The same in bfloat16", "targets prediction_bfloat16 found", None),
    ("esp_medsam", "ESP-MedSAM: a mixed batch decoded at once (512 px)",
     "results mixed_batch_decoding ratio", None),
    ("esp_medsam", "ESP-MedSAM's stage C from cached embeddings (ViT-B, 512 px, later epochs)",
     "results cached_controller_stage ratio", None),
    ("esp_medsam", "The same with the student in bfloat16",
     "results cached_controller_stage_bfloat16 ratio", None),
    ("esp_medsam", "ESP-MedSAM's encoder in the place of ViT-B (512 px)",
     "results encoders time_ratio", "results encoders memory_ratio"),
)  # fmt: skip


def main() -> None:
    """Replace the text between each pair of markers."""
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text("utf-8")), "utf-8")


def filled(text: str) -> str:
    """Return `text` with its tables renewed."""
    for name, table in {
        "notebooks": notebooks_table(),
        "knowledge mining": mining_tables(),
        "semi-supervised": family_tables(),
        "esp-medsam": esp_table(),
        "speed": speed_table(),
    }.items():
        marker = f"<!-- {name}: written by workflow/readme.py -->"
        pattern = re.escape(marker) + r"\n.*?<!-- end -->"
        text, count = re.subn(
            pattern, lambda _, m=marker, t=table: f"{m}\n{t}\n<!-- end -->", text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"README.md: expected the marker {marker!r} once, found {count}")
    return text


def notebooks_table() -> str:
    """Number and title of each notebook with what it costs, from its opening table."""
    rows = ["| Notebook | Cost |", "|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = read_notebook(path)
        link = f"[{path.stem[:2]} {title(notebook)}](notebooks/{path.name})"
        rows.append(f"| {link} | {opening_table(notebook)['Cost']} |")
    return "\n".join(rows)


def mining_tables() -> str:
    """One table a data set, "not run" where there is no record."""
    methods, parts, everything = [SUPERVISED, *RUNS], [], []
    for name, what in SETS.items():
        runs = read_records(RECORDS, dataset=name, method=methods, variant="")
        everything += runs
        table = results_table(runs, row_order=methods, column_order=BUDGETS)
        parts.append(
            f"**{name}** ({what}), by share of labelled images in %\n\n{to_markdown(table)}"
        )
    return "\n\n".join(filter(None, [*parts, teacher_note(everything)]))


def family_tables() -> str:
    """The semi-supervised family on polyps and hearts and the plug-in, each with its budget."""
    polyps = family_records(RESULTS / "semi_supervised", "Kvasir-SEG")
    hearts = family_records(RESULTS / "semi_supervised", "ACDC")
    parts = [
        f"**Kvasir-SEG**, by share of labelled images in %. {budget_text(polyps)}",
        to_markdown(family_table(polyps)),
        "SAM-induced distillation (SKD) plugged into the others, at 10 % of the labels:",
        to_markdown(plug_in_table(polyps)),
        f"The same at {FEW:g} %:",
        to_markdown(plug_in_table(polyps, percent=FEW, methods=PLUGGED)),
        f"**ACDC** (heart in MRI, four classes), by share of labelled images in %. "
        f"{budget_text(hearts)}",
        to_markdown(family_table(hearts, methods=ON_HEARTS, percents=(10.0, ALL))),
        teacher_note([*polyps, *hearts]),
    ]
    return "\n\n".join(filter(None, parts))


def esp_table() -> str:
    """ESP-MedSAM and its ablations: means over seen and over unseen test sets."""
    folder = RESULTS / "esp_medsam"
    records = read_records(folder) if folder.is_dir() else []
    table = to_markdown(seen_and_unseen(records, rows=ESP_ROWS))
    return "\n\n".join(filter(None, [table, teacher_note(records)]))


def speed_table() -> str:
    """Ratios of the last benchmark runs, "not run" where there is none."""
    rows = ["| What | Times faster | Memory saved |", "|---|---|---|"]
    for benchmark, what, faster, saved in SPEED:
        path = RESULTS / "benchmarks" / f"{benchmark}.json"
        report = json.loads(path.read_text("utf-8")) if path.exists() else {}
        times, memory = _figure(report, faster), _figure(report, saved)
        rows.append(f"| {what} | {times or 'not run'} | {f'{memory} x' if memory else ''} |")
    return "\n".join(rows)


def _figure(report: dict, where: str | None) -> float | None:
    """The entry of a report under keys that are separated by blanks; None where there is none."""
    for key in (where or "").split():
        report = report.get(key, {})
    return report if where and report else None


if __name__ == "__main__":
    main()
