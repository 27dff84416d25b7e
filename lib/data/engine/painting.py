"""How an object shows: by colour, texture, border, rim or shading, each of which may be missing."""

import math

import numpy as np

from .backgrounds import pattern
from .fields import blur, direction, noise, sign, slope, step
from .textures import texture

HARDLY_VISIBLE, FAINT = 0.3, 0.9
LOW, HIGH = math.log(0.07), math.log(0.45)  # of a clear colour change


def visibility(rng, style, hidden=None):
    """How far an object stands out, in deviations of its surroundings' brightness.

    A share `hidden` (default: the style's) is hardly visible (below 0.3), a sixth faint (below
    0.9), the rest clear.
    """
    hidden = style.hidden if hidden is None else hidden
    hidden = hidden if style.has("hidden") else 0.0
    roll = rng.random()
    if roll < hidden:
        return rng.uniform(0.0, HARDLY_VISIBLE)
    return rng.uniform(0.3, FAINT) if roll < hidden + 0.16 else math.exp(rng.uniform(0, 1.8))


def paint(rng, image, depth, tone, strength, style):
    """Draw one object onto `image` (`C x H x W`), in place.

    `depth`: `H x W` pixels from the border, positive inside; `tone`: colour change of the style,
    `C x 1 x 1`; `strength`: see `visibility`; `style`: a `Style`. Colour, texture, border, rim,
    shading, highlights and shadows are separate cues, each of which may be missing.
    """
    reach = max(float(depth.max()), 1.0)
    soft = min(math.exp(rng.normal(0.1, 0.9)), reach / 2)
    if style.name == "microscopy":
        soft = min(soft, 1.0)
    window = _window(depth, 12 + 6 * soft)
    if window is None:
        return
    depth, patch = depth[window], image[(slice(None), *window)]
    alpha = step(depth * (2 / soft))
    if style.has("border") and rng.random() < 0.15:  # the border vanishes on one side
        away = noise(rng, image.shape[1], 3)[window]
        alpha = alpha * step((away + rng.uniform(0, 1.2)) * rng.uniform(2, 8))
    thin = patch[:, ::4, ::4]
    scale = min(max(float(thin.mean(0).std()), 0.02), 0.2)
    often = {"endoscopy": 0.75, "microscopy": 0.06}.get(style.name, 0.15)
    shaded = style.has("shading") and rng.random() < often
    amount = strength * scale
    if strength > FAINT:  # on even ground too
        amount = max(amount, math.exp(rng.uniform(LOW, HIGH)))
    amount *= rng.uniform(0.1, 1) if shaded else 1.0
    change = _change(rng, thin.mean((1, 2))[:, None, None], tone, amount)
    if style.has("surface") and rng.random() < 0.75:  # hides what lies behind it
        opacity = rng.uniform(0.2, 1) * min(1.0, strength)
        patch += (opacity * alpha) * (_mean(patch, alpha) - patch)
    patch += alpha * change
    if style.has("surface"):
        inside = alpha * _inside(rng, window, image.shape[1], depth, reach, style)
        patch += inside * (rng.uniform(0, 0.6) * change)
        if rng.random() < 0.5:
            patch += inside * (rng.uniform(0.1, 0.6) * min(strength, 1.0) * scale)
    if shaded:
        _shade(rng, patch, depth, alpha, reach, max(min(strength, 1.5), 0.2), style)
    if style.has("border") and rng.random() < 0.25:  # a rim or a halo
        rim = np.exp(-0.5 * ((depth - rng.uniform(-2, 2)) * (1 / rng.uniform(0.8, 5))) ** 2)
        patch += (rng.normal(0, 0.8) * min(strength, 2.0) * scale) * rim
    if style.name == "ultrasound" and style.has("shading") and rng.random() < 0.6:
        # A shadow or an enhancement behind it.
        behind = np.zeros(image.shape[1:], np.float32)
        behind[window] = alpha
        behind = np.cumsum(behind, 0) * (1 / image.shape[1])
        behind[window] *= 1 - alpha
        image *= np.exp(rng.uniform(-4, 2.5) * min(strength, 1.0) * behind)


def _window(depth, margin):
    """Slices of the rows and columns that the object and `margin` pixels around it take up."""
    near = depth > -margin
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _mean(patch, alpha):
    """Mean colour (`C x 1 x 1`) of `patch` under `alpha`."""
    return ((patch * alpha).sum((1, 2)) / (alpha.sum() + 1e-3))[:, None, None]


def _change(rng, level, tone, amount):
    """The colour change: along `tone`, of mean size `amount`, turned round where it would clip."""
    if len(level) == 3:
        tone = tone + rng.normal(0, 0.15, (3, 1, 1)).astype(np.float32)
    mean = float(level.mean())
    up = float(tone.mean()) > 0
    room = max(1.0 - mean if up else mean, 0.01)
    if room < amount / 3:  # little to be seen of it
        tone, room = -tone, 1.0 - room
    return tone * np.float32(min(amount, room) / (float(np.abs(tone).mean()) + 1e-3))


def _inside(rng, window, size, depth, reach, style):
    """What varies within an object: a texture, blotches, a paler or darker middle."""
    roll = rng.random()
    if roll < 0.3:
        return (depth * (2 / reach)).clip(0, 2) * sign(rng) - 0.5
    if roll < 0.5:
        return noise(rng, size, int(rng.integers(4, 20)))[window]
    if roll < 0.6 or style.name == "texture":
        return pattern(rng, size)[window]
    return texture(rng, size, ("grain", "blotch", "pink", "cloud", "net")[int(rng.integers(5))])[
        window
    ]


def _shade(rng, patch, depth, alpha, reach, strength, style):
    """Light on a dome: a bright and a dark side, a mirrored lamp, a shadow beside it."""
    dome = np.sqrt(np.clip(depth * (1 / (reach * rng.uniform(0.4, 1))), 0, 1))
    if min(dome.shape) >= 16:
        dome = _even(dome, max(1.0, rng.uniform(0.04, 0.2) * reach))
    towards = direction(rng)
    light = np.clip(slope(dome, towards) * (reach * rng.uniform(0.2, 0.7)), -0.5, 0.5)
    patch *= 1 + (light + rng.uniform(-0.1, 0.4) * dome * alpha) * strength
    if style.name == "endoscopy" and rng.random() < 0.6:
        spread = int(rng.integers(2, 8))
        row, column = (round(float(k) * spread) for k in towards)
        shadow = np.roll(alpha, (row, column), (0, 1)) * (1 - alpha)
        patch *= 1 - (rng.uniform(0.1, 0.6) * min(strength, 1.0)) * shadow
    if style.name == "endoscopy" and rng.random() < 0.5:
        spots = texture(rng, max(depth.shape), "blotch")[: depth.shape[0], : depth.shape[1]]
        glint = step((spots + 2 * dome - rng.uniform(2.5, 4)) * rng.uniform(4, 12)) * alpha
        patch += glint * rng.uniform(0.2, 0.9)


def _even(field, sigma):
    """`blur` for windows of any size."""
    rows, columns = (n - n % 4 for n in field.shape)
    field = field.copy()
    field[:rows, :columns] = blur(field[:rows, :columns], min(sigma, 6.0))
    return field
