"""What KnowSAM costs as released and here: time of a step, memory, images predicted per second.

    python benchmarks/knowsam.py --output results/benchmarks/knowsam.json

Ratios are of ways measured in turn in one run, with random weights, which cost the same time as
trained ones; memory is that of a process of its own. The released step is the transcription in
`knowsam_plain.py`, with autograd's anomaly detection as released and without it. Both sides start
from the same weights and images, and what they compute is compared in the same run.
"""

import argparse
import json
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import knowsam_plain  # beside this file, as the next
import numpy as np
import torch
from knowsam_ways import PHASES, WAYS, batch, build, in_turn, ways
from PIL import Image
from sam import alone  # the benchmark beside this one
from torch import Tensor, nn

from lib.evaluation.provenance import peak_memory_mb, provenance
from lib.models.inference import optimise_for_inference
from lib.training.knowsam import KnowSamConfig

# ratio, what it is of, and the least that is asked for
TARGETS = {
    "step_as_released": ("project", "as_released", 2.5),
    "step_anomaly_detection_off": ("project", "anomaly_detection_off", 2.0),
    "step_bfloat16": ("project_bfloat16", "as_released", 4.0),
}
PARTS = (
    "students.first",
    "students.second",
    "students.fusion",
    "teacher.adapters",
    "teacher.prompts",
)
MEMORY_TARGET, PREDICTION_TARGET, DIFFERENCE_TARGET = 0.8, 1.8, 1e-4


def main() -> None:
    """Measure everything, print it, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--sam", default="vit_b", help="which SAM teaches")
    parser.add_argument("--image-size", type=int, default=256, help="side in pixels")
    parser.add_argument("--batch", type=int, default=24 if cuda else 4, help="half is labelled")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each way; the median")
    parser.add_argument("--images", type=int, default=24, help="images of the predicted folder")
    parser.add_argument("--widths", type=int, nargs=5, default=KnowSamConfig().widths)
    parser.add_argument("--compile", action="store_true", help="compile this project's networks")
    options = parser.parse_args()
    origin, started = provenance(), time.perf_counter()
    settings = {key: value for key, value in vars(options).items() if key != "output"}
    results = {
        "equality": alone(equality, **settings),
        "step": alone(step_times, **settings),
        "memory": {way: alone(memory, way=way, **settings) for way in WAYS},
        "prediction": alone(prediction, **settings),
    }
    report = {
        "benchmark": "knowsam",
        "command": "python benchmarks/knowsam.py",
        "options": settings,
        **origin,
        "seconds": round(time.perf_counter() - started, 1),
        "results": results,
        "targets": targets(results),
    }
    print(json.dumps(report["targets"], indent=1))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def equality(**settings) -> dict:
    """Relative differences of losses and gradients between the transcription and this project.

    In double precision, where they show whether both compute the same, and in single precision
    beside what rounding alone does to the transcription. Without dropout, for two images.

    The released code adds 1e-6 inside the logarithm of an entropy, this project does not. That
    moves the fusion's activations by about 1e-6, and now and then one in millions of them past the
    kink of its LeakyReLU, where the gradient jumps: one such pixel changes the students' gradients
    by some 1e-4. So "double" has the guard as released, and "double_without_guard", which the
    target is for, shows that all else is the same mathematics.
    """
    options = Namespace(**{**settings, "compile": False, "batch": 2})
    theirs, ours = "anomaly_detection_off", "project"
    exact = {name: quantities(options, name, torch.float64) for name in (theirs, ours)}
    with patch.object(knowsam_plain, "GUARD", 0.0):
        unguarded = quantities(options, theirs, torch.float64)
    rough = {name: quantities(options, name, torch.float32) for name in (theirs, ours)}
    pairs = {
        "double": (exact[ours], exact[theirs]),
        "double_without_guard": (exact[ours], unguarded),
        "single": (rough[ours], rough[theirs]),
        "rounding": (rough[theirs], exact[theirs]),
    }
    return {
        name: {phase: differences(found[phase], expected[phase]) for phase in PHASES}
        for name, (found, expected) in pairs.items()
    }


def quantities(options: Namespace, name: str, dtype: torch.dtype) -> dict:
    """Losses and the gradient of each part as one vector, before and with exchange.

    One vector, because some of its numbers, such as those of a bias before BatchNorm, are nothing
    but rounding.
    """
    (way,) = ways(options, (name,))
    method = way.method.to(dtype)
    method.teacher.sam.prompt_encoder.pe_layer.float()  # segment-anything's coordinates are float
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, masks = batch(options)
    found = {}
    # Losses and maps are computed in single precision whatever comes in: not here.
    with patch.object(torch.Tensor, "float", lambda tensor: tensor.to(dtype)):
        for phase, progress in PHASES.items():
            losses = way.losses_and_gradients(images.to(dtype), masks, progress)
            found[phase] = {f"{key} loss": losses[key] for key in ("sam", "students")}
            for part in PARTS:
                gradients = [p.grad for p in method.get_submodule(part).parameters()]
                found[phase][part] = torch.cat([g.flatten() for g in gradients if g is not None])
    return found


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """The relative difference of each quantity."""
    return {name: relative(found[name], value) for name, value in expected.items()}


def relative(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, Euclidean."""
    expected = expected.double()
    return ((found.double() - expected).norm() / expected.norm()).item()


def step_times(**settings) -> dict:
    """Seconds of a step, every way in turn, so that other work on the machine meets all alike."""
    options = Namespace(**settings)
    images, masks = batch(options)
    chosen = ways(options, WAYS)
    report = {}
    for phase, progress in PHASES.items():
        runs = {way.name: partial(way.step, images, masks, progress) for way in chosen}
        report[phase] = {
            name: {"seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}
            for name, (wall, cpu) in in_turn(runs, options, warm_up=not report).items()
        }
    return report


def memory(*, way: str, **settings) -> dict:
    """Peak of a process that makes one step with exchange, and of it before the step."""
    options = Namespace(**settings)
    images, masks = batch(options)
    (one,) = ways(options, (way,))
    cuda = options.device.startswith("cuda")
    peak = (lambda: torch.cuda.max_memory_allocated() / 2**20) if cuda else peak_memory_mb
    before = peak()
    one.step(images, masks, PHASES["with_exchange"])
    return {"peak_mb": round(peak()), "before_mb": round(before)}


def prediction(**settings) -> dict:
    """Images per second from files to files: one by one with gradients as released, and here.

    Beside it the share of pixels that bfloat16 gives the class that float32 gives them. Random
    weights are its worst case: the classes are nearly tied everywhere, not at outlines alone.
    """
    options = Namespace(**settings)
    students = build(options).students.eval()
    plain = build(options, plain=True).students.eval()
    ready = optimise_for_inference(students)
    at_once = 8 if options.device.startswith("cuda") else 1  # a CPU's cache holds one at a time
    place = torch.device(options.device)

    def released(paths: list[Path]) -> None:
        for path in paths:
            write(path, plain(read([path]).to(place)).fused.detach())

    def project(paths: list[Path], *, half: bool) -> None:
        half_precision = torch.autocast(place.type, torch.bfloat16, enabled=half)
        for start in range(0, len(paths), at_once):
            chosen = paths[start : start + at_once]
            with torch.inference_mode(), half_precision:
                logits = ready(read(chosen).to(place)).fused
            for path, one in zip(chosen, logits, strict=True):
                write(path, one[None])

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.png" for index in range(options.images)]
        side = options.image_size
        for number, path in enumerate(paths):
            pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        runs = {
            "as_released": partial(released, paths),
            "project": partial(project, paths, half=False),
            "project_bfloat16": partial(project, paths, half=True),
        }
        times = in_turn(runs, options, warm_up=True)
        images = read(paths[:at_once]).to(place)
    with torch.inference_mode():
        logits = ready(images).fused
        difference = relative(logits, plain(images).fused)
        with torch.autocast(place.type, torch.bfloat16):
            half = ready(images).fused
        same = (half.argmax(dim=1) == logits.argmax(dim=1)).double().mean().item()
    rates = {
        name: {
            "images_per_second": round(options.images / wall, 2),
            "cpu_seconds_an_image": round(cpu / options.images, 4),
        }
        for name, (wall, cpu) in times.items()
    }
    return {**rates, "difference": difference, "bfloat16_same_class_share": round(same, 5)}


def read(paths: list[Path]) -> Tensor:
    """Images B x 3 x H x W in [0, 1]."""
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def write(path: Path, logits: Tensor) -> None:
    """The class of each pixel beside the image."""
    Image.fromarray(logits[0].argmax(dim=0).byte().cpu().numpy()).save(
        path.with_suffix(".mask.png")
    )


def targets(results: dict) -> dict:
    """What was asked for and what was found, before patches are exchanged and with it."""
    steps, peaks = results["step"], results["memory"]
    report = {}
    for name, (ours, theirs, least) in TARGETS.items():
        for phase, times in steps.items():
            ratio = times[theirs]["seconds"] / times[ours]["seconds"]
            report[f"{name}_{phase}"] = judged(ratio, least)
    share = peaks["project"]["peak_mb"] / peaks["as_released"]["peak_mb"]
    report["memory_share"] = judged(share, MEMORY_TARGET, at_most=True)
    report["memory_saved"] = {"found": float(f"{1 / share:.3g}")}
    rates = results["prediction"]
    for name, ours in {"float32": "project", "bfloat16": "project_bfloat16"}.items():
        ratio = rates[ours]["images_per_second"] / rates["as_released"]["images_per_second"]
        report[f"prediction_{name}"] = judged(ratio, PREDICTION_TARGET)
    worst = {
        name: max(max(phase.values()) for phase in results["equality"][name].values())
        for name in ("double_without_guard", "double")
    }
    report["difference"] = judged(worst["double_without_guard"], DIFFERENCE_TARGET, at_most=True)
    report["difference_with_released_guard"] = {"found": float(f"{worst['double']:.3g}")}
    return report


def judged(found: float, target: float, *, at_most: bool = False) -> dict:
    """A figure beside what was asked for."""
    reached = found <= target if at_most else found >= target
    return {"found": float(f"{found:.3g}"), "target": target, "reached": reached}


if __name__ == "__main__":
    main()
