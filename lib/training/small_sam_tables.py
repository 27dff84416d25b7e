"""Tables of the small SAM's studies, from their reports and records alone.

Tables are DataFrames of text for `lib.evaluation.to_markdown`. Scores are mean IoU in percent.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lib.evaluation.records import Record, read_records
from lib.evaluation.statistics import paired_difference
from lib.evaluation.tables import to_markdown
from lib.training.small_sam_card import PROMPTS
from lib.training.small_sam_tuning import variant_of

TRAINED_ON = (  # further trainings that are not shipped, as their records call them
    "trained on at 256 px, mean of three",
    "trained on restyled images, mean",
    "trained on restyled images, no mean",
)
HOURS = ("tight_box", "jittered_box", "clicks_1", "clicks_3")


def architecture_table(report: Mapping, prompts=("jittered_box", "clicks_1")) -> pd.DataFrame:
    """Encoders by size, latency and what they reached in the same CPU time.

    `report`: of `lib.training.small_sam_architectures`. The scores of a data set stand in one
    cell, in the order of `prompts`.
    """
    names = " / ".join(PROMPTS[prompt] for prompt in prompts)
    return pd.DataFrame(
        {
            name: {
                "MB": f"{found['megabytes']:.1f}",
                "encoder, ms": f"{found['encoder_ms']:.0f}",
                "decoder, ms": f"{found['decoder_ms']:.1f}",
            }
            | {
                f"{data}: {names}": " / ".join(f"{100 * scores[p]:.0f}" for p in prompts)
                for data, scores in found["accuracy"].items()
            }
            for name, found in report["architectures"].items()
        }
    ).T.rename_axis("image encoder")


def ingredient_table(report: Mapping, prompt: str = "jittered_box") -> pd.DataFrame:
    """What each ingredient adds by data set: mean and standard error over the images.

    The first row is the score with all of them. `report`: of `lib.training.small_sam_ingredients`;
    `prompt`: a key of `PROMPTS` in it.
    """
    rows = {
        "all": {data: f"{100 * means[prompt]:.1f}" for data, means in report["complete"].items()}
    }
    for name, sets in report["adds"].items():
        rows[f"{name}: {report['ingredients'][name]}"] = {
            data: f"{100 * found[prompt]['mean']:+.1f} ± "
            f"{100 * found[prompt]['standard_error']:.1f}"
            for data, found in sets.items()
        }
    return pd.DataFrame(rows).T.rename_axis("ingredient")


def tuning_table(
    before: Sequence[Record],
    after: Sequence[Record],
    prompts: Sequence[str] = ("jittered_box", "clicks_1", "clicks_3"),
) -> pd.DataFrame:
    """What other medical images are worth: one row a data set that was left out.

    A cell: the score of the weights before, the gain, and the gain's 95 % interval over images.

    Raises:
        ValueError: a data set is twice in `after`, is missing in `before`, or was scored there on
            other images.
    """
    shipped = {record.dataset: record for record in before}
    rows = {}
    for record in after:
        if record.dataset not in shipped:
            raise ValueError(f"before: no record of {record.dataset}, which was tuned for")
        if record.dataset in rows:
            raise ValueError(f"after: two records of {record.dataset}; show one seed at a time")
        pair = shipped[record.dataset], record
        rows[record.dataset] = {PROMPTS[prompt]: _gain(*pair, prompt) for prompt in prompts}
    columns = [PROMPTS[prompt] for prompt in prompts]
    return pd.DataFrame(rows, index=columns).T.rename_axis("left out")


def _gain(before: Record, after: Record, prompt: str) -> str:
    old, new = ({row["name"]: row[prompt] for row in r.per_image["last"]} for r in (before, after))
    gain = paired_difference(new, old)
    return (
        f"{100 * before.scores['last'][prompt]:.0f} {100 * gain.mean:+.0f} "
        f"[{100 * gain.low:+.0f}, {100 * gain.high:+.0f}]"
    )


def study_tables(results: Path) -> str:
    """All of them as markdown, from a folder like this project's `results`; "not run" if missing.

    Encoders, ingredients under a box and for one click, likewise random networks, real images of
    other kinds, under the same box what keeps those from making the SAM forget, and more hours on
    generated images, as they are and restyled.
    """
    encoders, engine = _report(results, "architectures"), _report(results, "ingredients")
    tables = [architecture_table(encoders) if encoders else pd.DataFrame()]
    for report in (engine, _report(results, "restyled")):
        for prompt in ("jittered_box", "clicks_1"):
            table = ingredient_table(report, prompt) if report else pd.DataFrame()
            tables.append(table.rename_axis(PROMPTS[prompt]))
    folder = results / "small_sam"
    records = read_records(folder) if folder.is_dir() else []
    shipped = [record for record in records if record.variant == "zero-shot"]
    tuned = {
        variant: tuning_table(shipped, [r for r in records if r.variant == variant])
        for variant in (variant_of(), variant_of(keep=0), variant_of(generated=0, keep=0))
    }
    box = PROMPTS["jittered_box"]
    kept = {variant: table[box] for variant, table in tuned.items()}
    tables += [tuned[variant_of()], pd.DataFrame(kept).fillna("not run").rename_axis(box)]
    for variant in TRAINED_ON:
        longer = tuning_table(shipped, [r for r in records if r.variant == variant], HOURS)
        tables.append(longer.rename_axis(variant))
    return "\n\n".join("not run" if table.empty else to_markdown(table) for table in tables)


def _report(results: Path, study: str) -> dict | None:
    path = results / "benchmarks" / f"small_sam_{study}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
