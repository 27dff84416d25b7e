"""Networks by name and arguments, so that a file of weights can say what it belongs to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lib.models.co_training import build_co_training
from lib.models.unet import build_unet
from lib.models.unet_2d import UNet2d
from lib.models.unet_pp import build_unet_pp
from lib.models.vnet_2d import VNet2d

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "unet_pp": build_unet_pp,
    "unet": build_unet,
    "unet_2d": UNet2d,
    "vnet_2d": VNet2d,
    "co_training": build_co_training,
}


@dataclass(frozen=True)
class Architecture:
    """What builds a network: `Architecture("unet_pp", {"encoder": "resnet18", "classes": 2})`.

    name: one of `BUILDERS`.
    arguments: of that builder, as JSON can hold them.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an unknown name."""
        if self.name not in BUILDERS:
            raise ValueError(f"architecture must be one of {', '.join(BUILDERS)}, not {self.name}")

    def build(self) -> nn.Module:
        """The network with random weights; pretrained ones are not downloaded.

        Raises:
            ValueError: arguments that the builder does not know or take.
        """
        arguments = dict(self.arguments)
        if "encoder_weights" in arguments:
            arguments["encoder_weights"] = None
        try:
            return BUILDERS[self.name](**arguments)
        except TypeError as error:
            raise ValueError(f"architecture {self.name!r}: {error}") from error
