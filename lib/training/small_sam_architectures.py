"""Which image encoder a small SAM should have: accuracy at an equal budget, latency, size.

    python -m lib.training.small_sam_architectures --output DIR --minutes 10 [--data-root NAME=DIR]

Every architecture is trained from random weights by the pretraining command's own function, with
equal images, seed and **CPU time**; a slower encoder therefore makes fewer steps. Then all are
scored on the same held-out images, and timed.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import Sam

from lib.data.engine import VERSION
from lib.evaluation.cost import call_seconds
from lib.evaluation.provenance import provenance
from lib.prompts.corrections import boxes_of
from lib.sam.hybrid import build_hybrid_sam
from lib.sam.small import IMAGE_SIZE, build_small_sam, parameter_count
from lib.training.small_sam import decode_prompted
from lib.training.small_sam_evaluation import evaluate_prompts, summarise_prompts
from lib.training.small_sam_objects import generated_objects, named_folder, named_once, real_objects
from lib.training.small_sam_run import pretrain

ARCHITECTURES = {
    "convolutional stem, SAM's ViT blocks": build_small_sam,
    "RepViT-M0.9 (EdgeSAM's kind)": partial(build_hybrid_sam, "repvit_m0_9"),
    "TinyViT-5M (MobileSAM's kind)": partial(build_hybrid_sam, "tiny_vit_5m_224"),
}
SCORES = ("tight_box", "jittered_box", "clicks_1", "clicks_3")


def measure(
    output, objects, *, minutes, architectures=None, small_share=0.75, pool=3000, seed=0,
    progress=True, **settings,
):  # fmt: skip
    """Train and score every architecture; an interrupted measurement goes on where it stopped.

    Args:
        output: folder of pools and checkpoints, one for each architecture.
        objects: data set -> images (`N x 3 x 256 x 256`) and masks (bool), one object each.
        minutes: of CPU time for each. architectures: name -> what builds the untrained SAM.
        small_share, pool, seed, settings: of `pretrain`.

    Returns:
        name -> `parameters`, `megabytes`, `steps`, `curve`, `accuracy` (data set -> prompt -> mean
        IoU), `encoder_ms` (one image) and `decoder_ms` (one prompt).
    """
    report = {}
    for number, (name, build) in enumerate((architectures or ARCHITECTURES).items()):
        sam, facts = pretrain(
            Path(output) / str(number), minutes=minutes, cpu_time=True, small_share=small_share,
            pool=pool, seed=seed, build=build, progress=progress, **settings,
        )  # fmt: skip
        means = {n: summarise_prompts(evaluate_prompts(sam, *pair)) for n, pair in objects.items()}
        report[name] = {
            "parameters": parameter_count(sam),
            "megabytes": round(sum(v.nbytes for v in sam.state_dict().values()) / 1e6, 1),
            "steps": facts["training"]["Steps"],
            "curve": facts["curve"],
            "accuracy": {
                data: {key: round(found[key], 3) for key in SCORES} for data, found in means.items()
            },
            "encoder_ms": _milliseconds(partial(_encode, sam)),
            "decoder_ms": _milliseconds(partial(_decode, sam)),
        }
    return report


def _milliseconds(call) -> float:
    return round(1000 * statistics.median(call_seconds(call)), 1)


def _encode(sam: Sam) -> None:
    sam.image_encoder(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))


def _decode(sam: Sam) -> None:
    """One box on one embedding."""
    channels, side = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size[0]
    box = boxes_of(torch.ones(1, IMAGE_SIZE // 2, IMAGE_SIZE // 2, dtype=torch.bool))
    points, labels = torch.zeros(1, 1, 2), torch.ones(1, 1)
    decode_prompted(sam, torch.zeros(1, channels, side, side), points, labels, box, None)


def main(arguments=None):
    """Measure and write `results/benchmarks/small_sam_architectures.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="folder of pools and checkpoints")
    parser.add_argument("--minutes", type=float, default=10, help="CPU minutes for each")
    parser.add_argument(
        "--data-root", action="append", default=[], type=named_folder, metavar="[NAME=]DIR",
        help="folder of a data set to score on, beside generated images",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=100, help="at most so many of each set")
    parser.add_argument("--results", default="results/benchmarks/small_sam_architectures.json")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    origin = provenance()
    objects = {"generated": generated_objects(chosen.images)[:2]}
    for name, root in named_once(parser, chosen.data_root).items():
        objects[name] = real_objects(root, chosen.images)[1:3]
    found = measure(chosen.output, objects, minutes=chosen.minutes, seed=chosen.seed)
    report = {
        "engine_version": VERSION, "cpu_minutes": chosen.minutes, "seed": chosen.seed,
        "threads": torch.get_num_threads(), "images": {k: len(v[0]) for k, v in objects.items()},
        "architectures": found, **origin,
    }  # fmt: skip
    Path(chosen.results).parent.mkdir(parents=True, exist_ok=True)
    Path(chosen.results).write_text(json.dumps(report, indent=1) + "\n")
    print(chosen.results)


if __name__ == "__main__":
    main()
