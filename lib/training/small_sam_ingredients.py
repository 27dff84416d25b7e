"""What each ingredient of the data engine adds, measured on real images.

    python -m lib.training.small_sam_ingredients --output DIR --data-root DIR [--data-root DIR ...]

The shipped small SAM is trained a little longer at 128 px, on complete scenes and on scenes that
lack one ingredient, with equal steps and seeds. What an ingredient adds is the difference, image
by image. One more run sees complete scenes through random networks, which the engine itself does
not have. A few minutes a run tell large effects only: the spread over seeds says how large.
"""

import argparse
import copy
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from lib.data.engine import INGREDIENTS, VERSION
from lib.data.generated import GeneratedStream, ImagePool
from lib.evaluation.provenance import provenance
from lib.files import replacing
from lib.fingerprint import tensor_bytes
from lib.sam.resize import resize_positions
from lib.sam.small import IMAGE_SIZE, load_small_sam
from lib.training.loop import fit
from lib.training.small_sam import SmallSamConfig, SmallSamPretraining
from lib.training.small_sam_evaluation import evaluate_prompts
from lib.training.small_sam_objects import named_folder, named_once, real_objects
from lib.training.small_sam_run import refuse_other_settings

PROMPTS = ("tight_box", "jittered_box", "clicks_1", "clicks_3")
RESTYLED = "restyled"  # complete scenes and something more, so its difference has the other sign
SHARE = 0.5  # of them that are
MEANING = {**INGREDIENTS, RESTYLED: f"{SHARE:.0%} of the images seen through random networks"}
# A gentle continuation: two rounds, and an average that follows within the few steps.
CONFIG = SmallSamConfig(rounds=2, learning_rate=4e-4, warmup=0.1, ema=0.98, batch=24)


def measure(
    output, objects, *, steps=300, seeds=(0, 1), pool=2000, ingredients=tuple(MEANING),
    start=load_small_sam, config=CONFIG, workers=None, progress=True,
):  # fmt: skip
    """Train and evaluate every variant; an interrupted measurement goes on where it stopped.

    `objects`: data set -> images (`N x 3 x 256 x 256`) and masks (bool), one object each; `start`:
    makes the SAM that all variants start from. Returns what `compare` returns. Raises ValueError
    where `output` holds results of other settings or images.
    """
    scores, output = {}, Path(output)
    variants = [(), *((name,) for name in ingredients)]
    for seed, without in itertools.product(seeds, variants):
        variant = "-".join(["seed", str(seed), *without])
        saved = output / f"{variant}.json"
        sam = resize_positions(start(), IMAGE_SIZE // 2)
        method = SmallSamPretraining(config, sam=sam)
        settings = {**method.hyperparameters(), "engine": VERSION, "steps": steps, "pool": pool}
        settings |= {f"images of {name}": _fingerprint(*pair) for name, pair in objects.items()}
        if not saved.exists():
            lacking = tuple(set(without) - {RESTYLED})
            images = ImagePool(output / "pool", seed=seed, count=pool, without=lacking)
            stream = GeneratedStream(
                images.fill(workers, progress), batch=config.batch, size=IMAGE_SIZE // 2, seed=seed,
                restyled=SHARE * (RESTYLED in without),
            )  # fmt: skip
            fit(
                method, stream, steps=steps, directory=output / variant, max_grad_norm=1.0,
                progress=progress,
            )  # fmt: skip
            sam = resize_positions(copy.deepcopy(method.average).cpu().eval(), IMAGE_SIZE)
            found = {k: _evaluate(sam, *v) for k, v in objects.items()}
            with replacing(saved) as temporary:
                temporary.write_text(json.dumps({"settings": settings, "scores": found}))
        found = json.loads(saved.read_text())
        refuse_other_settings(saved, found["settings"], json.loads(json.dumps(settings)))
        scores[seed, without] = found["scores"]
    return compare(scores, ingredients)


def _fingerprint(*tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _evaluate(sam, images, masks):
    scores = evaluate_prompts(sam, images, masks)
    return {prompt: [round(float(v), 4) for v in scores[prompt]] for prompt in PROMPTS}


def compare(scores, ingredients) -> dict:
    """Means of the complete engine and what each ingredient adds to them.

    `scores`: (seed, ingredients left out or `RESTYLED`) -> data set -> prompt -> IoU of each image.
    Returns `complete` (data set -> prompt -> mean) and `adds` (ingredient -> data set -> prompt ->
    `mean` difference, `standard_error` over images of its mean over seeds, and it `by_seed`).
    """
    seeds = sorted({seed for seed, _ in scores})

    def table(without):
        """Data set -> prompt -> `seeds x images`."""
        return {
            name: {p: np.array([scores[s, without][name][p] for s in seeds]) for p in prompts}
            for name, prompts in scores[seeds[0], without].items()
        }

    complete = table(())
    adds = {}
    for ingredient in ingredients:
        lacking, sign = table((ingredient,)), -1 if ingredient == RESTYLED else 1
        adds[ingredient] = {
            name: {p: _difference(sign * (v - lacking[name][p])) for p, v in prompts.items()}
            for name, prompts in complete.items()
        }
    means = {n: {p: round(float(v.mean()), 4) for p, v in t.items()} for n, t in complete.items()}
    return {"complete": means, "adds": adds}


def _difference(values):
    each = values.mean(0)
    return {
        "mean": round(float(values.mean()), 4),
        "standard_error": round(float(each.std(ddof=1) / len(each) ** 0.5), 4),
        "by_seed": [round(float(v), 4) for v in values.mean(1)],
    }


def main(arguments=None):
    """Measure and write `results/benchmarks/small_sam_ingredients.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="folder of pools and checkpoints")
    parser.add_argument(
        "--data-root", action="append", required=True, type=named_folder, metavar="[NAME=]DIR",
        help="folder of a data set",
    )  # fmt: skip
    parser.add_argument("--results", default="results/benchmarks/small_sam_ingredients.json")
    parser.add_argument("--steps", type=int, default=300, help="of 24 images, in each run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=100, help="at most so many of each set")
    parser.add_argument("--pool", type=int, default=2000, help="generated images of each variant")
    parser.add_argument("--ingredient", action="append", choices=MEANING, help="default: all")
    chosen = parser.parse_args(arguments)
    torch.manual_seed(0)
    objects = {}
    for name, root in named_once(parser, chosen.data_root).items():
        objects[name] = real_objects(root, chosen.images)[1:3]
    seeds, ingredients = tuple(range(chosen.seeds)), tuple(chosen.ingredient or MEANING)
    origin = provenance()
    found = measure(
        chosen.output, objects, steps=chosen.steps, seeds=seeds, pool=chosen.pool,
        ingredients=ingredients,
    )  # fmt: skip
    report = {
        "engine_version": VERSION, "steps": chosen.steps, "images_a_step": CONFIG.batch,
        "size": IMAGE_SIZE // 2, "seeds": list(seeds), "pool": chosen.pool,
        "start": "shipped small SAM", "images": {k: len(v[0]) for k, v in objects.items()},
        "ingredients": {name: MEANING[name] for name in ingredients}, **found, **origin,
    }  # fmt: skip
    Path(chosen.results).parent.mkdir(parents=True, exist_ok=True)
    Path(chosen.results).write_text(json.dumps(report, indent=1) + "\n")
    print(chosen.results)


if __name__ == "__main__":
    main()
