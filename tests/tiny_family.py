"""Every method of the semi-supervised family on networks and batches that train in milliseconds."""

import torch
from tiny_training import Squares

from lib.data.batches import BatchStream
from lib.models.multi_decoder import MultiDecoder
from lib.models.multi_scale import MultiScale
from lib.models.unet_2d import UNet2d
from lib.training.bcp import Bcp, BcpConfig
from lib.training.cps import Cps, CpsConfig
from lib.training.fixmatch import FixMatch, FixMatchConfig
from lib.training.mc_net import McNet, McNetConfig
from lib.training.mean_teacher import MeanTeacher, MeanTeacherConfig
from lib.training.ua_mt import UaMt, UaMtConfig
from lib.training.unimatch import UniMatch, UniMatchConfig
from lib.training.urpc import Urpc, UrpcConfig

WIDTHS, DROPOUTS = (4, 6, 8), (0.05, 0.1, 0.2)
CLASSES = 4


class Poisoned(Squares):
    """Squares of three kinds; the masks of images 4 to 9 raise when read."""

    classes = CLASSES

    def _load_mask(self, index):
        if 4 <= index < 10:
            raise AssertionError(f"the mask of unlabelled image {index} was read")
        return super()._load_mask(index) * (1 + index % 3)


def stream(**changes):
    settings = {"labelled": range(4), "unlabelled": range(4, 10), "labelled_batch": 4}
    return BatchStream(Poisoned(), **{**settings, "unlabelled_batch": 4, "seed": 3, **changes})


def unet(seed=0, kind=UNet2d):
    torch.manual_seed(seed)
    return kind(classes=CLASSES, widths=WIDTHS, dropouts=DROPOUTS)


def build(name, **changes):
    """One method with its defaults, or with `changes` of them."""
    if name == "CPS":
        return Cps(CpsConfig(**changes), network=unet(), second=unet(1))
    method, config, kind = {
        "Mean Teacher": (MeanTeacher, MeanTeacherConfig, UNet2d),
        "UA-MT": (UaMt, UaMtConfig, UNet2d),
        "FixMatch": (FixMatch, FixMatchConfig, UNet2d),
        "UniMatch": (UniMatch, UniMatchConfig, UNet2d),
        "URPC": (Urpc, UrpcConfig, MultiScale),
        "MC-Net+": (McNet, McNetConfig, MultiDecoder),
        "BCP": (Bcp, BcpConfig, UNet2d),
    }[name]
    return method(config(**changes), network=unet(kind=kind))


FAMILY = ("Mean Teacher", "UA-MT", "CPS", "FixMatch", "UniMatch", "URPC", "MC-Net+", "BCP")
WITH_TEACHER = ("Mean Teacher", "UA-MT", "BCP")
