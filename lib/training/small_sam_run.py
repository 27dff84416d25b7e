"""The command that pretrains a small SAM, from nothing or further: images, training, weights, card.

    python -m lib.training.small_sam_run --output DIR --minutes 240

The run lasts as long as it is given: one cosine over the whole budget, by the clock, first at
128 px (a quarter of the cost), then at 256 px. It resumes where it was killed, and a checkpoint is
written every 25 steps. Meanwhile a worker draws new images into a pool of bounded size.
"""

import argparse
import contextlib
import copy
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from lib.data.engine import HIDDEN, VERSION
from lib.data.generated import GeneratedStream, ImagePool
from lib.files import replacing
from lib.sam.frozen import sam_fingerprint
from lib.sam.resize import resize_positions
from lib.sam.small import IMAGE_SIZE, build_small_sam, load_small_sam
from lib.training.clock import Clock
from lib.training.loop import fit
from lib.training.schedules import cosine
from lib.training.small_sam import SmallSamConfig, SmallSamPretraining
from lib.training.small_sam_card import save_small_sam
from lib.training.small_sam_evaluation import evaluate_prompts, summarise_prompts
from lib.training.small_sam_objects import generated_objects
from lib.training.small_sam_soup import mix

NO_END = 10**7  # steps: the clock ends a stage
SETTLE = 50  # steps after which AdamW's averages, new in each stage, can be relied on
CHECKPOINT_EVERY = 25  # steps: about a minute, and less than ten on a busy machine
CURVE = ("tight_box", "jittered_box", "clicks_1", "clicks_3")
CURVE_NOTE = (
    "Mean IoU on {images} held-out generated images (engine {version}) at 256 px; minutes and CPU "
    "hours of the training process, its evaluations included."
)


class TimedPretraining(SmallSamPretraining):
    """Pretraining whose learning rate follows a clock; the clock is part of its state."""

    def __init__(self, config: SmallSamConfig, *, sam, clock: Clock, run: dict | None = None):
        """Train `sam` in place until whoever holds the clock stops.

        run: what else decides the result; a run is resumed with the same only.
        """
        super().__init__(config, sam=sam)
        self.clock, self.run = clock, run or {}

    def hyperparameters(self):
        """The configuration, the budget and what else decides the run."""
        return super().hyperparameters() | {"minutes": self.clock.budget / 60} | self.run

    def learning_rate(self, progress):
        """The recipe's cosine over the clock's budget."""
        factor = cosine(self.clock.fraction, warmup=self.config.warmup, floor=0.01)
        return factor * min(1.0, (progress.step + 1) / SETTLE)

    def get_extra_state(self):
        """What the clock shows."""
        return self.clock.state_dict()

    def set_extra_state(self, state):
        """Put the clock back."""
        self.clock.load_state_dict(state)


class TimedStream(GeneratedStream):
    """A stream that ends once the clock has passed a `share` of its budget."""

    def __init__(self, pool, *, clock: Clock, share: float, **settings):
        """`settings`: of `GeneratedStream`."""
        super().__init__(pool, **settings)
        self.clock, self.share = clock, share

    def iterate(self, start, stop):
        """Batches from `start` on, at least one, until the time is over."""
        with contextlib.closing(super().iterate(start, stop)) as batches:
            for batch in batches:
                yield batch
                if self.clock.fraction >= self.share:
                    return


class MinuteLine:
    """A printed line a minute, for the log of a run that lasts hours."""

    def __init__(self, clock: Clock, size: int):
        """The first line comes after a minute."""
        self.clock, self.size, self._next, self._shown = clock, size, clock.spent + 60, 0

    def update(self, history, total):
        """Print where the run stands if a minute has passed."""
        if self.clock.spent < self._next:
            return
        self._next = self.clock.spent + 60
        row = history.steps[-1]
        names = ("total", "box_iou", "corrected_iou", "learning_rate")
        losses = ", ".join(f"{name} {row[name]:.4g}" for name in names)
        minutes = f"{self.clock.spent / 60:.0f} of {self.clock.budget / 60:g} minutes"
        print(f"{minutes}, {self.size} px, step {row['step']}: {losses}", flush=True)
        for found in history.validations[self._shown :]:
            scores = ", ".join(f"{name} {found[name]:.3f}" for name in CURVE)
            print(f"  held out, step {found['step']}: {scores}", flush=True)
        self._shown = len(history.validations)

    def close(self):
        """Nothing to close."""


def pretrain(
    output, *, minutes, small_share=0.6, pool=4000, fresh=0.5, restyled=0.0, hidden=HIDDEN,
    workers=1, config=None, seed=0, build=build_small_sam, validate_every=200, held_out=64,
    progress=True, cpu_time=False,
):  # fmt: skip
    """Train as the command does; returns the averaged SAM and the facts of its card.

    Args:
        output: folder of pool, checkpoints and finished stages; an interrupted run resumes there.
        minutes: budget by the wall clock, filling the pool excepted.
        small_share: share of it at 128 px, with twice the images a step.
        pool, fresh, restyled, workers: see `GeneratedStream`; hidden: see `ImagePool`.
        build: makes the SAM for 256 px that the run starts from.
        validate_every: steps between two rows of the curve; `held_out`: images for it.
        cpu_time: the budget is one of CPU time.

    Raises:
        ValueError: if `small_share` is outside [0, 1), `minutes` is not positive, or `output` holds
            a finished stage of a run with other settings.
    """
    if not 0 <= small_share < 1:
        raise ValueError(f"small_share must be in [0, 1), got {small_share}")
    config, output = config or SmallSamConfig(), Path(output)
    clock = Clock(minutes, cpu_time=cpu_time)
    torch.manual_seed(seed)
    sam = build()
    run = {
        "small_share": small_share, "cpu_time": cpu_time, "pool": pool, "fresh": fresh,
        "seed": seed, "began_with": sam_fingerprint(sam),
    }  # fmt: skip
    usual = {"restyled": (restyled, 0.0), "hidden": (hidden, HIDDEN)}  # older runs do not say it
    run |= {name: value for name, (value, default) in usual.items() if value != default}
    settings = {**asdict(config), "minutes": minutes, "engine": VERSION, **run}
    images = ImagePool(output / "pool", seed=seed, count=pool, hidden=hidden)
    check = generated_objects(held_out)[:2]
    done = {"first": 0, "drawn": 0, "curve": [], "stages": []}
    stages = [(IMAGE_SIZE // 2, 2 * config.batch, small_share), (IMAGE_SIZE, config.batch, 1.0)]
    for size, batch, share in stages if small_share else stages[1:]:
        sam, finished = resize_positions(sam, size), output / f"{size}px.pt"
        if finished.exists():
            done = torch.load(finished, weights_only=True)
            refuse_other_settings(finished, done.get("settings", {}), settings)
            sam.load_state_dict(done["sam"])
            clock.load_state_dict(done["clock"])
            continue
        stream = TimedStream(
            images, clock=clock, share=share, batch=batch, size=size, seed=seed,
            fresh=fresh, restyled=restyled, offset=done["first"], workers=workers,
        )  # fmt: skip
        method = TimedPretraining(config, sam=sam, clock=clock, run=run)
        if not list((output / f"{size}px").glob("checkpoint-*.pt")):
            before = clock.state_dict()
            images.fill(workers, progress=progress, first=stream.offset)
            clock.load_state_dict(before)  # the budget is for training
        history = fit(
            method, stream, steps=NO_END, directory=output / f"{size}px",
            checkpoint_every=CHECKPOINT_EVERY, max_grad_norm=1.0,
            progress=MinuteLine(clock, size) if progress else False,
            validate=lambda m: _scores(m, check), validate_every=validate_every,
            score="jittered_box",
        )  # fmt: skip
        sam, steps = method.average.requires_grad_(True).cpu(), history.steps[-1]["step"]
        if [row["step"] for row in history.validations[-1:]] != [steps]:
            history.add_validation(steps, _scores(method, check), method)
        rows = [
            {"minutes": round(row["minutes"]), "CPU hours": row["cpu_hours"], "px": size}
            | {"images seen": int(row["step"]) * batch + _seen(done)}
            | {name.replace("_", " "): row[name] for name in CURVE}
            for row in history.validations
        ]
        done = {
            "settings": settings,
            "sam": sam.state_dict(),
            "clock": clock.state_dict(),
            "first": stream.first(steps),  # the next stage goes on with these images
            "drawn": stream.first(steps) + pool,
            "curve": done["curve"] + rows,
            "stages": [*done["stages"], {"px": size, "steps": steps, "images": steps * batch}],
        }
        with replacing(finished) as temporary:
            torch.save(done, temporary)
    facts = _facts(done, config, minutes, len(check[0]))
    if restyled:
        facts["training"]["Restyled"] = (
            f"{restyled:.0%} of the images, each by a random network of its own (Ouyang et al. "
            "2022, arXiv 2111.12525)"
        )
    if hidden != HIDDEN:
        facts["training"]["Hardly visible"] = f"{hidden:.0%} of the single objects"
    return sam.eval(), facts


def refuse_other_settings(path, theirs, ours):
    """ValueError if a finished result in `path` was made with settings other than ours."""
    names = dict.fromkeys([*ours, *theirs])
    if other := [name for name in names if ours.get(name) != theirs.get(name)]:
        raise ValueError(
            f"{path} is of a run with another {', '.join(other)}: give another folder, or delete "
            "that file and its checkpoints"
        )


def _seen(done):
    return sum(stage["images"] for stage in done["stages"])


def _scores(method, check):
    """Means of the averaged weights at 256 px, and the time it took to get there."""
    # Where it stands on the curve, read before the evaluation itself takes its time.
    times = {"minutes": method.clock.seconds / 60, "cpu_hours": method.clock.cpu_seconds / 3600}
    sam = resize_positions(copy.deepcopy(method.average).cpu(), IMAGE_SIZE).eval()
    means = summarise_prompts(evaluate_prompts(sam, *check))
    return times | {key: means[key] for key in CURVE}


def _facts(done, config, minutes, images):
    stages = (f"{s['steps']:,} at {s['px']} px ({s['images']:,} images)" for s in done["stages"])
    drawn, prompts = done["drawn"], _seen(done) * config.prompts * config.rounds
    training = {
        "Data": f"generated by this project (`lib.data.engine`, version {VERSION}), no photograph, "
        f"no patient: {drawn:,} images, seen {_seen(done) / drawn:.1f} times on average",
        "Steps": "; ".join(stages),
        "Images, prompts": f"{_seen(done):,} and {prompts:,}",
        "First prompts": f"half clicks, half boxes: {config.exact_box:.0%} of them exact, the mean "
        f"error of the others {config.box_error:g} of the side",
        "Time": f"{done['clock']['seconds'] / 60:.0f} minutes of a budget of {minutes:g}, "
        f"{done['clock']['cpu_seconds'] / 3600:.2f} CPU hours without drawing the images",
        "Recipe": "`lib/training/small_sam.py`, one cosine over the budget",
    }
    note = CURVE_NOTE.format(images=images, version=VERSION)
    return {"training": training, "curve": done["curve"], "curve_note": note}


def main(arguments=None):
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="folder of pool, checkpoints and weights")
    parser.add_argument("--minutes", type=float, default=240, help="budget by the clock")
    parser.add_argument(
        "--cpu-time", action="store_true", help="the budget is one of CPU time, not by the clock"
    )
    parser.add_argument("--small-share", type=float, default=0.6, help="of it at 128 px")
    parser.add_argument("--pool", type=int, default=4000, help="images on disk (262 kB each)")
    parser.add_argument("--fresh", type=float, default=0.5, help="new images per image seen")
    parser.add_argument(
        "--restyled", type=float, default=0.0, help="share of the images seen by a random network"
    )
    parser.add_argument(
        "--hidden", type=float, default=HIDDEN, help="share of objects that are hardly visible"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that fill the pool; then one draws ahead"
    )
    parser.add_argument("--batch", type=int, default=SmallSamConfig.batch, help="at 256 px")
    parser.add_argument("--learning-rate", type=float, default=SmallSamConfig.learning_rate)
    parser.add_argument("--box-error", type=float, default=SmallSamConfig.box_error)
    parser.add_argument("--start", help="weights of a small SAM to go on from, its card beside it")
    parser.add_argument(
        "--keep", type=float, default=0.0, metavar="SHARE",
        help="of the weights of --start in what is saved; a mean of both forgets less",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if chosen.keep and not chosen.start:
        parser.error("--keep needs --start: there are no earlier weights to keep a share of")
    if not 0 <= chosen.keep <= 1:
        parser.error(f"--keep must be in [0, 1], not {chosen.keep:g}")
    sam, facts = pretrain(
        chosen.output, minutes=chosen.minutes, small_share=chosen.small_share, pool=chosen.pool,
        fresh=chosen.fresh, restyled=chosen.restyled, hidden=chosen.hidden, seed=chosen.seed,
        workers=chosen.workers, cpu_time=chosen.cpu_time,
        config=SmallSamConfig(
            batch=chosen.batch, learning_rate=chosen.learning_rate, box_error=chosen.box_error
        ),
        build=partial(load_small_sam, chosen.start) if chosen.start else build_small_sam,
    )  # fmt: skip
    if chosen.start:
        card = json.loads(Path(chosen.start).with_suffix(".json").read_text(encoding="utf-8"))
        facts["before"] = card["training"] | {"SHA-256": card["sha256"]}
    if chosen.keep:
        mix(sam, load_small_sam(chosen.start), share=chosen.keep)
        facts["training"]["Weights"] = (
            f"{chosen.keep:g} of those it started from and {1 - chosen.keep:g} of those after "
            "this training (Wortsman et al. 2022, arXiv 2109.01903); its curve is without the mean"
        )
    scores = evaluate_prompts(sam, *generated_objects(300)[:2])
    means = summarise_prompts(scores) | {"images": len(scores["tight_box"])}
    print(save_small_sam(sam, chosen.output, facts | {"accuracy": {"generated": means}}))


if __name__ == "__main__":
    main()
