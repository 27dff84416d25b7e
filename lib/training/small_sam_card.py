"""Ship a small SAM: weights as safetensors, a card for machines and one for readers.

`small_sam.json` holds every fact; `README.md` is generated from it, so the two cannot disagree.
"""

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file

from lib.sam.small import parameter_count

NAME = "small_sam"
PROMPTS = {
    "tight_box": "tight box",
    "jittered_box": "jittered box",
    "clicks_1": "1 click",
    "clicks_1_oracle": "1 click, best of three",
    "clicks_3": "3 clicks",
    "clicks_5": "5 clicks",
    "box_click": "jittered box + click",
    "ellipse_tight": "*ellipse in the tight box*",
    "ellipse_jittered": "*ellipse in the jittered box*",
    "grab_cut_tight": "*GrabCut, tight box*",
    "grab_cut_jittered": "*GrabCut, jittered box*",
    "random_walk_1": "*random walker, 1 click*",
    "random_walk_3": "*random walker, 3 clicks*",
}


def save_small_sam(sam, directory, facts) -> Path:
    """Write weights, `small_sam.json` (with size, parameters and SHA-256 added) and `README.md`.

    `facts`: `training` (what was done), `before` (the same of the weights it went on from),
    `accuracy` (set -> means of `summarise_prompts`, with `images`), `curve` (rows of accuracy
    against time) with `curve_note`, `limits` (sentences); all but the first may be missing.
    Returns the path of the weights.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / f"{NAME}.safetensors"
    save_file({k: v.float().contiguous() for k, v in sam.state_dict().items()}, weights)
    content = weights.read_bytes()
    card = {
        "name": NAME,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "parameters": parameter_count(sam),
        "encoder_parameters": parameter_count(sam.image_encoder),
        "licence": "Apache-2.0",
        **facts,
    }
    text = json.dumps(card, indent=2) + "\n"
    weights.with_suffix(".json").write_text(text, encoding="utf-8")
    (directory / "README.md").write_text(render_card(card), encoding="utf-8")
    return weights


def update_card(weights, **facts) -> None:
    """Replace facts of the card beside `weights` (see `save_small_sam`) and write it again."""
    path = Path(weights).with_suffix(".json")
    card = json.loads(path.read_text(encoding="utf-8")) | facts
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    path.with_name("README.md").write_text(render_card(card), encoding="utf-8")


def render_card(card) -> str:
    """The card as Markdown."""
    lines = [
        "# The small SAM",
        "",
        "A promptable segmenter of segment-anything's own classes (`ImageEncoderViT`, "
        "`PromptEncoder`, `MaskDecoder`) for 256 x 256 px images, pretrained by this project so "
        "that every notebook has a SAM to prompt without a download. Four strided convolutions "
        'stand in place of the 16 x 16 patch embedding. `lib.sam.checkpoints.load_sam("small")` '
        "loads it and checks its SHA-256.",
        "",
        "It is a teaching aid, not a medical device, and far weaker than Meta's SAM.",
        "",
        "| | |",
        "|---|---|",
        f"| File | `{card['name']}.safetensors`, {card['bytes'] / 1e6:.1f} MB, float32 |",
        f"| SHA-256 | `{card['sha256']}` |",
        f"| Parameters | {card['parameters']:,} ({card['encoder_parameters']:,} in the encoder) |",
        f"| Licence | {card['licence']} |",
    ]
    lines += [f"| {key} | {value} |" for key, value in card.get("training", {}).items()]
    if before := card.get("before"):
        lines += ["", "It went on from an earlier small SAM, which was trained so:", ""]
        lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in before.items())]
    if accuracy := card.get("accuracy"):
        sets = list(accuracy)
        classics = max(means.get("images_of_classics", 0) for means in accuracy.values())
        learnt_nothing = (
            f" GrabCut and random walker learn nothing; of the first {classics:.0f} images of each "
            "set."
        )
        lines += ["", "## Mean IoU by prompt", ""]
        lines += [
            "Largest object of each image; jittered: each coordinate of the box off by a normal "
            "error of 12 % of the side; clicks: the middle of the object, then the middle of the "
            f"largest error. {_real_images(card)} The ellipse inscribed in the "
            f"box is the floor: it never sees the image.{learnt_nothing if classics else ''}",
            "",
            "| prompt | " + " | ".join(f"{s} (n={accuracy[s]['images']})" for s in sets) + " |",
            "|---|" + "---|" * len(sets),
        ]
        measured = {
            key: name for key, name in PROMPTS.items() if any(key in accuracy[s] for s in sets)
        }
        lines += [_row(name, key, accuracy) for key, name in measured.items()]
        keys = [k for k in accuracy[sets[0]] if k.startswith(("correlation", "overestimate"))]
        lines += ["", "## Can its own estimate of the IoU be trusted?", ""]
        lines += ["| | " + " | ".join(sets) + " |", "|---|" + "---|" * len(sets)]
        lines += [_row(key.replace("_", " "), key, accuracy) for key in keys]
    if curve := card.get("curve"):
        lines += ["", "## Accuracy against time", "", card.get("curve_note", ""), ""]
        lines += ["| " + " | ".join(curve[0]) + " |", "|" + "---|" * len(curve[0])]
        lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in curve]
    if limits := card.get("limits"):
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in limits)]
    return "\n".join(lines) + "\n"


def _real_images(card):
    if trained_on := card.get("trained_on"):
        return f"It was trained on real images of {', '.join(trained_on)}."
    return "The real images were never trained on."


def _row(name, key, accuracy):
    cells = (f"{means[key]:.2f}" if key in means else "not run" for means in accuracy.values())
    return f"| {name} | " + " | ".join(cells) + " |"


def _cell(value):
    return f"{value:.2f}" if isinstance(value, float) else str(value)
