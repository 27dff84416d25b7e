"""The ways to make a training step of KnowSAM that `knowsam.py` measures, and their weights."""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from unittest.mock import patch

import torch
from knowsam_plain import plain_layout, plain_step  # the transcription beside this file
from torch import Tensor, nn

from lib.sam.checkpoints import load_sam
from lib.training import knowsam
from lib.training.knowsam import KnowSam, KnowSamConfig
from lib.training.method import Progress

PHASES = {"before_exchange": Progress(0, 100), "with_exchange": Progress(50, 100)}
RELEASED = ("as_released", "anomaly_detection_off")
OURS = ("project", "project_bfloat16", "independent_norm")
WAYS = (*RELEASED, *OURS)


class Way:
    """One way to make a training step: which method, with or without bfloat16 or anomaly checks."""

    def __init__(self, name: str, method: KnowSam, device: str):
        """`method` from `build(plain=...)`; ways may share one."""
        self.name, self.method, self.device = name, method, torch.device(device)

    def losses_and_gradients(self, images: Tensor, masks: Tensor, progress: Progress) -> dict:
        """Losses; gradients are in the parameters afterwards."""
        self.method.zero_grad()
        if self.name in RELEASED:
            exchange = progress.fraction >= self.method.config.exchange_start
            with torch.autograd.set_detect_anomaly(self.name == "as_released"):
                return plain_step(self.method, images, masks, progress, exchange=exchange)
        half = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.name.endswith("bfloat16")
        )
        # Augmentation is the loader's work in the released code: here nobody augments.
        with half, patch.object(knowsam, "views", lambda batch, config: batch):
            losses = self.method.step((images, masks), progress)
        losses.total.backward()
        return {"sam": losses["sam"].detach(), "students": (losses.total - losses["sam"]).detach()}

    def step(self, images: Tensor, masks: Tensor, progress: Progress) -> None:
        """The whole step, optimisers included."""
        self.losses_and_gradients(images, masks, progress)
        for optimizer in self.method.optimizers():
            optimizer.step()


def build(options: Namespace, *, plain: bool = False, norm: str = "batch") -> KnowSam:
    """The released configuration with equal weights at every call."""
    torch.manual_seed(0)
    sam = load_sam(
        options.sam,
        untrained=True,
        image_size=options.image_size,
        fused_attention=not plain,
        relative_positions=False,
    )
    for module in sam.image_encoder.modules():
        if isinstance(module, nn.LayerNorm):  # zero as built: padding would be nothing then
            nn.init.normal_(module.bias, std=0.2)
    config = KnowSamConfig.released(widths=tuple(options.widths), prompt_norm=norm)
    method = KnowSam(config, sam=sam).to(options.device).train()
    if plain:
        return plain_layout(method)
    if options.compile:
        encoder = method.teacher.sam.image_encoder
        for module in (encoder, method.students.first, method.students.second):
            module.compile()
    return method


def ways(options: Namespace, names: tuple[str, ...]) -> list[Way]:
    """The named ways; those that differ by a switch alone share a method."""
    methods: dict[str, KnowSam] = {}
    found = []
    for name in names:
        kind = "plain" if name in RELEASED else name.removesuffix("_bfloat16")
        if kind not in methods:
            norm = "group" if kind == "independent_norm" else "batch"
            methods[kind] = build(options, plain=kind == "plain", norm=norm)
        found.append(Way(name, methods[kind], options.device))
    return found


def batch(options: Namespace) -> tuple[Tensor, Tensor]:
    """Random images and blobs as masks, the first half labelled."""
    generator = torch.Generator().manual_seed(1)
    side, count = options.image_size, options.batch
    images = torch.rand(count, 3, side, side, generator=generator)
    coarse = torch.rand(count // 2, 1, 8, 8, generator=generator)
    masks = nn.functional.interpolate(coarse, (side, side), mode="bilinear")[:, 0] > 0.5
    return images.to(options.device), masks.long().to(options.device)


def in_turn(runs: dict[str, Callable[[], None]], options: Namespace, *, warm_up: bool) -> dict:
    """Median seconds of each run, on the clock and of the processor.

    Every round has one of each, so that other work on the machine meets all alike; `warm_up` adds
    a round that does not count.
    """
    rounds = [
        {name: timed(run, options.device) for name, run in runs.items()}
        for _ in range(options.steps + warm_up)
    ][warm_up:]
    return {
        name: tuple(
            statistics.median(pair) for pair in zip(*(r[name] for r in rounds), strict=True)
        )
        for name in runs
    }


def timed(run: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu
