"""What the SAM core saves: cached embeddings, batched decoding, fused attention.

    python benchmarks/sam.py --output results/benchmarks/sam.json

Every figure is a ratio of two ways measured in the same run, with random weights, which cost the
same time as trained ones. Each measurement runs in a process of its own, so that its peak memory
is its own. Seconds depend on the machine and on what else runs there; ratios much less.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import torch
from segment_anything import SamPredictor

from lib.evaluation.provenance import peak_memory_mb, provenance
from lib.sam.checkpoints import load_sam
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam

TARGETS = {"mining_cache": 20.0, "batched_decoding": 3.0}


def main() -> None:
    """Measure everything, print a line each, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    origin, started = provenance(), time.perf_counter()
    results = {"mining_cache": alone(mining), "batched_decoding": alone(decoding)}
    for result, target in ((results[name], TARGETS[name]) for name in TARGETS):
        result["target"] = target
        result["reached"] = result["ratio"] >= target
    for name, settings in {
        "encoder_1024_forward": {"image_size": 1024},
        "encoder_512_forward": {"image_size": 512},
        "encoder_256_forward_backward": {"image_size": 256, "backward": True},
    }.items():
        original = alone(encoder, fused=False, **settings)
        fused = alone(encoder, fused=True, **settings)
        results[name] = {
            "original": original,
            "fused": fused,
            "time_ratio": round(original["seconds"] / fused["seconds"], 2),
            "extra_memory_ratio": round(original["extra_mb"] / fused["extra_mb"], 2),
        }
    report = {
        "benchmark": "sam",
        "command": "python benchmarks/sam.py",
        **origin,
        "seconds": round(time.perf_counter() - started, 1),
        "results": results,
    }
    print(summary(results))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def alone(measure: Callable[..., dict], **settings) -> dict:
    """Run `measure` in a fresh process and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        result = pool.submit(measure, **settings).result()
    print(f"{measure.__name__} {settings}: {result}", file=sys.stderr, flush=True)
    return result


@torch.no_grad()
def mining(images: int = 2) -> dict:
    """Two rounds over the same images, ViT-B at 1024 px: box and 3 points each, masks out."""
    torch.manual_seed(0)
    pictures = torch.rand(images, 3, 256, 256)
    prompts = [box_and_points(256) for _ in range(images)]
    with tempfile.TemporaryDirectory() as folder:
        sam = FrozenSam(load_sam("vit_b", untrained=True), cache=EmbeddingCache(folder))

        def one_round() -> None:
            embeddings = sam.encode(pictures)
            sam.decode(embeddings, prompts, range(images), (256, 256))

        first, second = seconds(one_round), min(seconds(one_round) for _ in range(2))
    return {
        "images": images,
        "round_one_seconds": round(first, 3),
        "round_two_seconds": round(second, 3),
        "ratio": round(first / second, 1),
    }


@torch.no_grad()
def decoding(batch: int = 16, repeats: int = 3) -> dict:
    """Small SAM at 256 px, one box with 3 points on each of `batch` images, logits out."""
    torch.manual_seed(0)
    sam = FrozenSam(load_sam("small", untrained=True))
    embeddings = sam.encode(torch.rand(batch, 3, 256, 256))
    prompts = [box_and_points(256) for _ in range(batch)]
    predictor = SamPredictor(sam.sam)

    def one_by_one() -> None:
        for image, prompt in enumerate(prompts):
            predictor.features, predictor.is_image_set = embeddings[image : image + 1], True
            predictor.original_size = predictor.input_size = (256, 256)
            predictor.predict(
                prompt.points.numpy(),
                prompt.labels.numpy(),
                prompt.box.numpy(),
                multimask_output=False,
                return_logits=True,
            )

    def batched() -> None:
        sam.decode(embeddings, prompts, range(batch), (256, 256))

    one_by_one(), batched()  # warm up
    # in turn, so that other work on the machine meets both alike
    pairs = [(seconds(one_by_one), seconds(batched)) for _ in range(repeats)]
    slow, fast = (min(times) for times in zip(*pairs, strict=True))
    return {
        "prompts": batch,
        "one_by_one_seconds": round(slow, 4),
        "batched_seconds": round(fast, 4),
        "ratio": round(slow / fast, 2),
    }


def encoder(*, image_size: int, fused: bool, backward: bool = False) -> dict:
    """One image through ViT-B's encoder; peak memory beyond weights, images and libraries."""
    torch.manual_seed(0)
    sam = load_sam("vit_b", untrained=True, image_size=image_size, fused_attention=fused)
    image = torch.rand(1, 3, image_size, image_size)

    def run() -> None:
        if backward:
            sam.image_encoder(image).sum().backward()
            sam.image_encoder.zero_grad()
        else:
            with torch.no_grad():
                sam.image_encoder(image)

    before = peak_memory_mb()
    best = min(seconds(run) for _ in range(2))
    return {"seconds": round(best, 3), "extra_mb": round(peak_memory_mb() - before)}


def box_and_points(side: int) -> SimpleNamespace:
    """A random prompt on a square picture."""
    low, high = torch.rand(2) * side / 2, side / 2 + torch.rand(2) * side / 2
    return SimpleNamespace(
        points=low + torch.rand(3, 2) * (high - low),
        labels=torch.ones(3, dtype=torch.int64),
        box=torch.cat([low, high]),
        mask_logits=None,
    )


def seconds(run: Callable[[], None]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def summary(results: dict) -> str:
    """Return one line a figure."""
    cache, batch = results["mining_cache"], results["batched_decoding"]
    lines = [
        f"mining round two with the cache: 1/{cache['ratio']:g} of round one "
        f"(target 1/{cache['target']:g})",
        f"batched decoding: {batch['ratio']:g} times one by one (target {batch['target']:g})",
    ]
    for name, result in results.items():
        if name.startswith("encoder"):
            lines.append(
                f"{name}: fused attention {result['time_ratio']:g} times as fast, "
                f"original takes {result['extra_memory_ratio']:g} times the extra memory"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
