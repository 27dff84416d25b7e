"""How many images the data engine draws in a second.

    python benchmarks/engine.py --output results/benchmarks/engine.json

First in this process: images per second of CPU time, which other work on the machine disturbs
less than the clock. Then with one worker process a core, by the clock.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from lib.data.engine import VERSION, generate
from lib.evaluation.provenance import provenance

TARGET = 150.0  # images a second on two cores at 256 px
SEED = 12


def main() -> None:
    """Measure, print and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    origin = provenance()
    draw(range(10))  # textures and tables are made once in a process
    one = [per_cpu_second(chosen.images) for _ in range(chosen.repeats)]
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as executor:
        list(executor.map(draw, [range(10)] * 4 * cores))
        all_cores = [per_second(chosen.images, cores, executor) for _ in range(chosen.repeats)]
    report = {
        "benchmark": "engine",
        "command": "python benchmarks/engine.py",
        **origin,
        "load_average": round(os.getloadavg()[0], 1),
        "engine_version": VERSION,
        "size": 256,
        "images_per_cpu_second": summary(one),
        "images_per_second": {"processes": cores, **summary(all_cores)},
        "target_images_per_second_on_two_cores": TARGET,
    }
    print(json.dumps(report, indent=1))
    if chosen.output:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(report, indent=1) + "\n")


def draw(indices) -> None:
    """Draw these scenes and drop them."""
    for index in indices:
        generate(SEED, index)


def per_cpu_second(images: int) -> float:
    """Images per second of this process's CPU time."""
    began = time.process_time()
    draw(range(images))
    return images / (time.process_time() - began)


def per_second(images: int, processes: int, executor) -> float:
    """Images per second by the clock, shared out in small parts."""
    parts = [range(k, min(k + 10, images)) for k in range(0, images, 10)] * processes
    began = time.perf_counter()
    list(executor.map(draw, parts))
    return images * processes / (time.perf_counter() - began)


def summary(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest, rounded."""
    return {
        "median": round(statistics.median(values), 1),
        "lowest": round(min(values), 1),
        "highest": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
