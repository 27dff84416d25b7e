"""What ESP-MedSAM weighs and what it saves: parameters, multiply-adds, speed, memory.

    python benchmarks/esp_medsam.py --output results/benchmarks/esp_medsam.json

Ratios are of two ways measured in the same run, with random weights, which cost the same time as
trained ones; each measurement of memory runs in a process of its own.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from sam import alone, seconds  # the benchmark beside this one
from segment_anything.modeling import TwoWayTransformer
from torch.nn import functional

from lib.data.batches import BatchStream
from lib.data.mixture import MixtureDataset
from lib.data.synthetic import MODALITIES, SyntheticDataset
from lib.evaluation.cost import peak_memory
from lib.evaluation.provenance import provenance
from lib.models.multiply_adds import multiply_adds
from lib.models.parameter_table import claims_table, parameter_table
from lib.sam.checkpoints import load_sam
from lib.sam.embeddings import EmbeddingCache
from lib.sam.medical_encoder import MedicalEncoder
from lib.training.esp_medsam import (
    ControllerConfig,
    ControllerDistillation,
    EspConfig,
    TeacherEmbeddings,
    build_student,
    modality_of,
)
from lib.training.method import Progress

TABLES = ("parameters", "claims")  # counted, not measured
TARGETS = {"mixed_batch_decoding": 2.0, "cached_controller_stage": 5.0}
RELEASED_MULTIPLY_ADDS = {"whole": 56.7e9, "encoder": 54.8e9}  # of the released code at 1024 px


def main() -> None:
    """Measure everything, print a line each, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--count-size", type=int, default=1024, help="the same, for multiply-adds")
    parser.add_argument("--batch", type=int, default=8, help="images decoded at once")
    parser.add_argument("--images", type=int, default=4, help="images of an epoch of stage C")
    parser.add_argument("--teacher", default="vit_b", help="SAM of the teacher and of the encoder")
    options = parser.parse_args()
    origin, started = provenance(), time.perf_counter()
    model = student()
    results = {
        "parameters": parameter_table(model),
        "claims": claims_table(model),
        "multiply_adds": operations(model, options.count_size),
        "mixed_batch_decoding": alone(decoding, size=options.size, batch=options.batch),
        "encoders": {
            name: alone(encoder, name=name, size=options.size)
            for name in ("student", options.teacher)
        },
    }
    stage = {"teacher": options.teacher, "size": options.size, "images": options.images}
    results["cached_controller_stage"] = alone(controller_stage, **stage)
    results["cached_controller_stage_bfloat16"] = alone(controller_stage, **stage, bfloat16=True)
    light, heavy = (results["encoders"][name] for name in ("student", options.teacher))
    results["encoders"] |= {
        "time_ratio": round(heavy["seconds"] / light["seconds"], 2),
        "memory_ratio": memory_ratio(heavy, light),
    }
    for name, target in TARGETS.items():
        results[name] |= {"target": target, "reached": results[name]["ratio"] >= target}
    report = {
        "benchmark": "esp_medsam",
        "command": "python benchmarks/esp_medsam.py",
        "options": {k: v for k, v in vars(options).items() if k != "output"},
        **origin,
        "seconds": round(time.perf_counter() - started, 1),
        "results": results,
    }
    measured = {key: value for key, value in results.items() if key not in TABLES}
    print(json.dumps(measured, indent=1))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def student(width: int = 256):
    """The light model for the six modalities, with random weights."""
    torch.manual_seed(0)
    return build_student(EspConfig(), modalities=MODALITIES, width=width).eval()


def operations(model, size: int) -> dict:
    """Multiply-accumulates of one image, beside those of the released code at 1024 px."""
    image, modality = torch.rand(1, 3, size, size), torch.tensor([0])
    return {
        "size": size,
        "whole": multiply_adds(lambda: model(image, modality)),
        "encoder": multiply_adds(lambda: model.encoder(image, modality)),
        "encoder_without_controller": multiply_adds(lambda: model.encoder(image)),
        "released_at_1024": RELEASED_MULTIPLY_ADDS,
    }


@torch.no_grad()
def decoding(*, size: int, batch: int, repeats: int = 3) -> dict:
    """A mixed batch at once, against the released way: image by image, a channel a modality."""
    model = student()
    decoder, prompts = model.decoder, model.prompts
    embedding = model.encoder(torch.rand(batch, 3, size, size))
    modality = torch.arange(batch) % len(MODALITIES)

    def at_once():
        return model.decode(embedding, modality, (size, size)).logits[:, 1:]

    # segment-anything's transformer as it is, with the same weights
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048).eval()
    transformer.load_state_dict(decoder.transformer.state_dict())

    def image_by_image():
        patches = prompts.threshold(prompts.patch_head(embedding)).float()
        dense = prompts.dense(functional.interpolate(patches, scale_factor=2))
        masks = []
        for image, prompt, index in zip(embedding, dense, modality.tolist(), strict=True):
            position = decoder.position(image.shape[1:])[None]
            queries = decoder.queries[0][None]
            tokens, grid = transformer((image + prompt)[None], position, queries)
            grid = decoder.upscale(grid.transpose(1, 2).reshape(1, *image.shape))
            weights = torch.stack([decoder.hyper[0](token) for token in tokens[0]])
            low = torch.einsum("kc,bchw->bkhw", weights, grid)[:, index : index + 1]
            masks.append(functional.interpolate(low, (size, size), mode="bilinear"))
        return torch.cat(masks)

    difference = (at_once() - image_by_image()).abs().max().item()  # and a warm-up
    pairs = [(seconds(image_by_image), seconds(at_once)) for _ in range(repeats)]
    slow, fast = (min(times) for times in zip(*pairs, strict=True))
    return {
        "batch": batch,
        "size": size,
        "image_by_image_per_second": round(batch / slow, 2),
        "at_once_per_second": round(batch / fast, 2),
        "largest_difference": difference,
        "ratio": round(slow / fast, 2),
    }


@torch.no_grad()
def encoder(*, name: str, size: int) -> dict:
    """One image through the student's or a SAM's encoder; peak memory beyond the weights."""
    image = torch.rand(1, 3, size, size)
    if name == "student":
        network = student().encoder

        def run():
            network(image, torch.tensor([0]))
    else:
        sam = load_sam(name, untrained=True, image_size=size)
        network = sam.image_encoder

        def run():
            network(sam.preprocess(255 * image))

    with peak_memory() as peak:
        best = min(seconds(run) for _ in range(3))
    return {
        "seconds": round(best, 4),
        "weights_mb": round(4e-6 * sum(p.numel() for p in network.parameters())),
        "extra_mb": round(peak.mb) if peak.mb else None,
    }


def memory_ratio(heavy: dict, light: dict) -> float | None:
    """Weights and what the pass needs beyond them, of one encoder against the other."""
    if heavy["extra_mb"] is None:
        return None
    return round(
        (heavy["weights_mb"] + heavy["extra_mb"]) / (light["weights_mb"] + light["extra_mb"]), 2
    )


def controller_stage(*, teacher: str, size: int, images: int, bfloat16: bool = False) -> dict:
    """Stage C an epoch: teacher and the student's stem computed anew, against read from caches.

    With `bfloat16` the student trains in mixed precision; the teacher's embeddings are computed in
    full precision in any case.
    """
    name = MODALITIES[0]
    part = SyntheticDataset(modality=name, count=images, size=size)
    data = MixtureDataset([(name, part)])
    sam = load_sam(teacher, untrained=True, image_size=size)
    model = build_student(EspConfig(), modalities=(name,), width=sam.mask_decoder.transformer_dim)
    medical = MedicalEncoder(sam, modalities=(name,))
    config = ControllerConfig(batch=2, flip=0.0)
    stream = BatchStream(data, labelled=range(images), labelled_batch=2, seed=0)
    table = modality_of(model, data)

    def epoch(method, number: int) -> tuple[float, float]:
        (optimizer,) = method.optimizers()
        method.train()
        start, cpu = time.perf_counter(), time.process_time()
        steps = images // 2
        for step in range(number * steps, (number + 1) * steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                losses = method.step(stream.batch(step), Progress(step, 1000))
            losses.total.backward()
            optimizer.step()
        return time.perf_counter() - start, time.process_time() - cpu

    def method(cache, stem_cache):
        known = TeacherEmbeddings(medical, cache=cache)
        return ControllerDistillation(
            config, model=model, name=name, modality=table, teacher=known, stem_cache=stem_cache
        )

    def fastest(method) -> tuple[float, float]:
        epochs = [epoch(method, number) for number in range(1, 6)]
        return tuple(min(times) for times in zip(*epochs, strict=True))

    with tempfile.TemporaryDirectory() as folder:
        caches = EmbeddingCache(folder), EmbeddingCache(Path(folder) / "stem")
        anew, kept = method(None, None), method(*caches)
        first = epoch(kept, 0)
        again, computed = fastest(kept), fastest(anew)
    report = {"images": images, "size": size}
    for clock, before, at_first, later in zip(
        ("seconds", "cpu_seconds"), computed, first, again, strict=True
    ):
        report[f"recomputed_{clock}"] = round(before, 3)
        report[f"first_cached_{clock}"] = round(at_first, 3)
        report[f"later_cached_{clock}"] = round(later, 3)
    ratios = [before / later for before, later in zip(computed, again, strict=True)]
    return {**report, "ratio": round(ratios[0], 2), "cpu_ratio": round(ratios[1], 2)}


if __name__ == "__main__":
    main()
