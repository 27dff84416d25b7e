"""All methods of the semi-supervised family at one budget, by name, for tables and notebooks.

    budget = Budget.quick()
    for name in NAMES:
        method = build_method(name, classes=2, budget=budget, sam=fresh_sam, seed=seed)
        stream = BatchStream(..., **batches(method))
        fit(method, stream, steps=budget.steps)

Every method gets networks of the same size, which start from the same weights, and sees as many
images a step. What its paper says otherwise is in its own configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam

from lib.models.multi_decoder import MultiDecoder
from lib.models.multi_scale import MultiScale
from lib.models.unet_2d import WIDTHS, UNet2d
from lib.models.vnet_2d import VNet2d
from lib.prompts.learnable import LearnablePrompts
from lib.sam.adapted import AdaptedSam
from lib.sam.adapters import add_adapters
from lib.sam.frozen import FrozenSam
from lib.training.bcp import Bcp, BcpConfig
from lib.training.cps import Cps, CpsConfig
from lib.training.fixmatch import FixMatch, FixMatchConfig
from lib.training.knowsam import KnowSam, KnowSamConfig
from lib.training.mc_net import McNet, McNetConfig
from lib.training.mc_seg import McSeg, McSegConfig
from lib.training.mean_teacher import MeanTeacher, MeanTeacherConfig
from lib.training.method import Method
from lib.training.sam_distillation import SamDistillation, sam_distillation
from lib.training.semi_sam import SemiSam, SemiSamConfig
from lib.training.supervised_baseline import SupervisedBaseline, SupervisedBaselineConfig
from lib.training.two_way_sam import TwoWaySam, TwoWaySamConfig
from lib.training.ua_mt import UaMt, UaMtConfig
from lib.training.unimatch import UniMatch, UniMatchConfig
from lib.training.urpc import Urpc, UrpcConfig

BASELINES = ("supervised U-Net", "supervised V-Net")
WITHOUT_SAM = (
    "Mean Teacher",
    "UA-MT",
    "CPS",
    "CPS, ramp-up",
    "FixMatch",
    "UniMatch",
    "URPC",
    "MC-Net+",
    "BCP",
    "MC-seg",
)
WITH_SAM = ("SemiSAM", "two-way SAM", "KnowSAM")
NAMES = (*BASELINES, *WITHOUT_SAM, *WITH_SAM)
SAM_TEACHERS = ("frozen", "adapted")
# As in SSL4MIS, where networks start from random weights; the paper's are pretrained and need none.
GENTLE_CPS = {"cross_weight": 0.1, "ramp_up": 1.0}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all rows of a table have in common; the defaults are KnowSAM's protocol.

    widths: channels of the five levels of every U-Net and V-Net.
    labelled_batch, unlabelled_batch, steps, size: see `SemiSupervisedConfig`.
    """

    widths: tuple[int, ...] = WIDTHS
    labelled_batch: int = 12
    unlabelled_batch: int = 12
    steps: int = 50_000
    size: int = 256

    @classmethod
    def quick(cls, **changes) -> "Budget":
        """A short run for the CPU: small images, few steps; the networks stay."""
        small = {"labelled_batch": 4, "unlabelled_batch": 4, "steps": 60, "size": 96}
        return cls(**{**small, **changes})


def build_method(
    name: str,
    *,
    classes: int,
    budget: Budget | None = None,
    seed: int = 0,
    sam: Callable[[], Sam] | None = None,
    freeze: Callable[[Sam], FrozenSam] = FrozenSam,
    distillation: str | None = None,
    **changes,
) -> Method:
    """One of `NAMES`, ready for `fit`.

    Args:
        name: which method.
        classes: background included.
        budget: what it shares with the others.
        seed: of the initial weights; the global generator stays as it is.
        sam: gives a fresh SAM at each call, such as `lambda: load_sam("small", image_size=256)`;
            for the methods of `WITH_SAM` and for `distillation`. Fresh, because adapters change it.
        freeze: makes a frozen teacher of it, such as `functools.partial(FrozenSam, device="cuda",
            encode_at_once=12)`; whatever else is built goes where the loop puts the method.
        distillation: "frozen" or "adapted" adds SAM-induced distillation by such a SAM.
        changes: of the method's own configuration.

    Raises:
        ValueError: an unknown name or teacher, or no SAM where one is needed.
    """
    if name not in NAMES:
        raise ValueError(f"no method is called {name!r}; there are {', '.join(NAMES)}")
    if distillation not in (None, *SAM_TEACHERS):
        raise ValueError(f"distillation must be frozen, adapted or None, not {distillation!r}")
    if sam is None and (name in WITH_SAM or distillation):
        raise ValueError(
            f"{name} with distillation={distillation!r} needs a SAM: pass "
            'sam=lambda: load_sam("small")'
        )
    if name in BASELINES and not distillation:
        changes = {"unlabelled_batch": 0, **changes}  # it would not look at them

    def teacher() -> Sam:
        """A fresh SAM; to build one leaves the networks' initial weights as they are."""
        with torch.random.fork_rng(devices=[]):
            return sam()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = _build(name, classes, budget or Budget(), teacher, freeze, changes)
        if distillation == "frozen":
            return sam_distillation(method, freeze(teacher()))
        if distillation == "adapted":
            return sam_distillation(method, _adapted(teacher(), classes))
    return method


def batches(method: Method) -> dict[str, int]:
    """`labelled_batch` and `unlabelled_batch` of a method, for its `BatchStream`."""
    config = (method.method if isinstance(method, SamDistillation) else method).config
    return {
        "labelled_batch": config.labelled_batch,
        "unlabelled_batch": config.unlabelled_batch,
    }


def _build(name: str, classes: int, budget: Budget, sam, freeze, changes: dict) -> Method:
    shared = {key: value for key, value in vars(budget).items() if key != "widths"} | changes
    sizes = {"classes": classes, "widths": budget.widths}
    match name:
        case "supervised U-Net" | "supervised V-Net":
            network = UNet2d(**sizes) if name.endswith("U-Net") else VNet2d(**sizes)
            return SupervisedBaseline(SupervisedBaselineConfig(**shared), network=network)
        case "Mean Teacher":
            return MeanTeacher(MeanTeacherConfig(**shared), network=UNet2d(**sizes))
        case "UA-MT":
            return UaMt(UaMtConfig(**shared), network=UNet2d(**sizes))
        case "CPS" | "CPS, ramp-up":
            schedule = {} if name == "CPS" else GENTLE_CPS
            config = CpsConfig(**{**schedule, **shared})
            return Cps(config, network=UNet2d(**sizes), second=UNet2d(**sizes))
        case "FixMatch":
            return FixMatch(FixMatchConfig(**shared), network=UNet2d(**sizes))
        case "UniMatch":
            return UniMatch(UniMatchConfig(**shared), network=UNet2d(**sizes))
        case "URPC":
            return Urpc(UrpcConfig(**shared), network=MultiScale(**sizes))
        case "MC-Net+":
            return McNet(McNetConfig(**shared), network=MultiDecoder(**sizes))
        case "BCP":
            return Bcp(BcpConfig(**shared), network=UNet2d(**sizes))
        case "MC-seg":
            return McSeg(McSegConfig(**sizes, **shared))
        case "SemiSAM":
            network = UNet2d(**sizes)
            return SemiSam(SemiSamConfig(**shared), network=network, sam=freeze(sam()))
        case "two-way SAM":
            network = UNet2d(**sizes)
            adapted = _adapted(sam(), classes)
            return TwoWaySam(TwoWaySamConfig(**shared), network=network, sam=adapted)
        case "KnowSAM":
            return KnowSam(KnowSamConfig(**sizes, **shared), sam=sam())


def _adapted(sam: Sam, classes: int) -> AdaptedSam:
    """A SAM with adapters and learnable prompts, as in KnowSAM."""
    prompts = LearnablePrompts(classes=classes, channels=sam.prompt_encoder.embed_dim)
    return AdaptedSam(add_adapters(sam), prompts=prompts)
