"""The look of a scene, and the ingredients that can be left out of it to measure what they add."""

from dataclasses import dataclass

INGREDIENTS = {
    "hidden": "objects that are hardly visible",
    "shading": "domes lit from one side, mirrored lamps, shadows",
    "surface": "textures of objects' own, opacity",
    "border": "borders that are rough, vanish, or have a rim",
    "clutter": "highlights, hairs, ribs, rulers, writing without a mask",
    "degradation": "uneven light, speckle, blur, noise, gamma, JPEG",
}
HIDDEN = 0.23  # share of the single objects that are hardly visible


@dataclass(frozen=True)
class Style:
    """How a scene looks.

    `name`: key of `backgrounds.STYLES`; `without`: keys of `INGREDIENTS` that are left out;
    `hidden`: share of the single objects that are hardly visible.
    """

    name: str
    without: frozenset[str] = frozenset()
    hidden: float = HIDDEN

    def has(self, ingredient):
        """Whether the scene may use this ingredient."""
        return ingredient not in self.without
