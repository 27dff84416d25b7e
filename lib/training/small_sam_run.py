"""The command that pretrains a small SAM from nothing: pool of images, training, card.

    python -m lib.training.small_sam_run --output DIR --steps 6000 --small-steps 6000 --pool 20000

It resumes where it was killed. `--small-steps` are taken first, at 128 px, a quarter of the cost.
"""

import argparse
import time
from pathlib import Path

import torch

from lib.data.generated import GeneratedStream, ImagePool
from lib.sam.resize import resize_positions
from lib.sam.small import IMAGE_SIZE, build_small_sam
from lib.training.loop import fit
from lib.training.small_sam import SmallSamConfig, SmallSamPretraining
from lib.training.small_sam_card import save_small_sam
from lib.training.small_sam_evaluation import evaluate_prompts, summarise_prompts
from lib.training.small_sam_records import generated_objects


def pretrain(output, *, steps, small_steps=0, pool=20_000, config=None, seed=0, progress=True):
    """Train as the command does; returns the averaged SAM and both stages' histories."""
    config, output = config or SmallSamConfig(), Path(output)
    torch.manual_seed(seed)
    sam, histories = build_small_sam(), []
    images = ImagePool(output / "pool", seed=seed, count=pool).fill(progress=progress)
    check = generated_objects(64)[:2]
    for size, length in ((IMAGE_SIZE // 2, small_steps), (IMAGE_SIZE, steps)):
        if not length:
            continue
        method = SmallSamPretraining(config, sam=resize_positions(sam, size))
        validate = (lambda m: _scores(m, check)) if size == IMAGE_SIZE else None
        histories.append(
            fit(
                method,
                GeneratedStream(images, batch=config.batch, size=size, seed=seed),
                steps=length,
                directory=output / f"{size}px",
                validate=validate,
                score="jittered_box",
                max_grad_norm=1.0,
                progress=progress,
            )
        )
        sam = method.average.requires_grad_(True)
    return sam.eval(), histories


def _scores(method, check):
    means = summarise_prompts(evaluate_prompts(method.average, *check))
    return {key: means[key] for key in ("tight_box", "jittered_box", "clicks_1", "clicks_3")}


def main(arguments=None):
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="folder of pool, checkpoints and weights")
    parser.add_argument("--steps", type=int, default=6000, help="steps at 256 px")
    parser.add_argument("--small-steps", type=int, default=0, help="steps at 128 px before them")
    parser.add_argument("--pool", type=int, default=20_000, help="generated images")
    parser.add_argument("--batch", type=int, default=SmallSamConfig.batch)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    began, cpu = time.monotonic(), time.process_time()
    sam, _ = pretrain(
        chosen.output, steps=chosen.steps, small_steps=chosen.small_steps, pool=chosen.pool,
        config=SmallSamConfig(batch=chosen.batch), seed=chosen.seed,
    )  # fmt: skip
    scores = evaluate_prompts(sam, *generated_objects(300)[:2])
    training = {
        "Steps": f"{chosen.small_steps} at 128 px, {chosen.steps} at 256 px",
        "Images a step": chosen.batch,
        "Pool": f"{chosen.pool} generated images, seed {chosen.seed}",
        "Minutes": round((time.monotonic() - began) / 60, 1),
        "CPU hours": round((time.process_time() - cpu) / 3600, 2),
    }
    means = summarise_prompts(scores) | {"images": len(scores["tight_box"])}
    facts = {"training": training, "accuracy": {"generated": means}}
    print(save_small_sam(sam, chosen.output, facts))


if __name__ == "__main__":
    main()
