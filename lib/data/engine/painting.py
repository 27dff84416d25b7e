"""How an object shows: by colour, texture, border, rim or shading, each of which may be missing."""

import numpy as np

from .backgrounds import pattern
from .fields import blur, fractal, noise, relief, sigmoid


def paint(rng, image, depth, direction, contrast, style):
    """Draw one object onto `image` and return the new image.

    `depth`: `H x W` pixels from the border, positive inside; `direction`: colour change of the
    style; `contrast`: 0 (nothing to be seen) to 1. Colour, texture, border, rim, and shading
    are separate cues, each of which may be missing.
    """
    size = image.shape[0]
    reach = max(float(depth.max()), 2.0)
    soft = min(float(np.exp(rng.normal(0.6, 0.9))), reach / 2)
    if style in ("microscopy", "texture") and rng.random() < 0.5:
        soft = 0.5
    alpha = sigmoid(depth / soft)
    if rng.random() < 0.4:  # the border vanishes on one side
        away = noise(rng, size, 3)
        alpha = alpha * sigmoid((away + rng.uniform(-0.2, 1)) * rng.uniform(2, 8))
    shading_only = rng.random() < (0.4 if style == "endoscopy" else 0.12)
    change = np.zeros(3, np.float32)
    if not shading_only:
        tone = direction * (1 if rng.random() < 0.75 else -0.6)
        if np.ptp(direction) > 0:
            tone = tone + rng.normal(0, 0.12, 3).astype(np.float32)
        change = change + tone * contrast * rng.uniform(0.5, 1.0)
    if rng.random() < 0.6:  # uneven inside
        mottle = fractal(rng, size, int(rng.integers(3, 14)), 3)[..., None]
        change = change + mottle * contrast * rng.uniform(0.05, 0.3) * (direction + 0.1)
    if rng.random() < (0.5 if style == "texture" else 0.06):
        change = change + pattern(rng, size)[..., None] * contrast * rng.uniform(0.1, 0.4)
    opacity = rng.uniform(0.3, 1) * contrast if rng.random() < 0.5 and not shading_only else 0.0
    if opacity:  # hides the background's texture instead of tinting it
        inside = alpha[..., None] * opacity
        level = (image * alpha[..., None]).sum((0, 1)) / (alpha.sum() + 1)
        image = image + inside * (level - image)
    bump = 0.75 if style == "endoscopy" else 0.25
    if shading_only or rng.random() < bump:
        dome = np.sqrt(np.clip(depth / reach, 0, 1))
        if rng.random() < 0.5:
            dome = blur(dome, rng.uniform(0.02, 0.08) * size)
        light = np.clip(relief(dome, rng, reach * rng.uniform(0.2, 0.9)), -0.5, 0.5)
        lit = light + rng.uniform(-0.1, 0.3) * dome
        image = image * (1 + lit * max(contrast, 0.05 + 0.25 * shading_only))[..., None]
        if style == "endoscopy" and rng.random() < 0.4:  # wet surfaces mirror the lamp
            glint = light + 0.12 * noise(rng, size, int(rng.integers(12, 40)))
            glint = sigmoid((glint - rng.uniform(0.25, 0.45)) * 25) * alpha
            image = image + (glint * rng.uniform(0.2, 0.7))[..., None]
    if rng.random() < 0.25:  # a rim or a halo
        width = rng.uniform(1, 5)
        rim = np.exp(-0.5 * ((depth - rng.uniform(-2, 2)) / width) ** 2)
        image = image + rng.normal(0, 0.25) * contrast * rim[..., None]
    if style == "ultrasound" and rng.random() < 0.6:  # shadow or enhancement behind it
        behind = np.cumsum(alpha, 0) / size
        image = image * np.exp(rng.uniform(-4, 2.5) * behind * (1 - alpha))[..., None]
    if style == "endoscopy" and rng.random() < 0.4:  # shadow cast beside it
        shift = (rng.normal(0, 0.06, 2) * size).astype(int)
        shadow = blur(np.roll(alpha, shift, (0, 1)), rng.uniform(2, 8)) * (1 - alpha)
        image = image * (1 - rng.uniform(0.1, 0.6) * max(contrast, 0.15) * shadow)[..., None]
    return image + alpha[..., None] * change
