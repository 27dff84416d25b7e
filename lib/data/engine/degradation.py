"""What stands between a scene and its image: clutter, optics, sensor, compression."""

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from .fields import blur, colour, double, grid, noise, step
from .shapes import strokes, walk
from .textures import texture


def clutter(rng, image, style):
    """Draw what no mask belongs to, in place: highlights, hairs, rulers, writing."""
    if not style.has("clutter"):
        return
    size, channels = image.shape[1], len(image)
    chance = rng.random()
    if style.name == "endoscopy" and chance < 0.8:
        for _ in range(int(rng.integers(1, 3))):
            kind = "blotch" if rng.random() < 0.6 else "grain"
            spots = texture(rng, size, kind) + 0.5 * noise(rng, size, 5) - rng.uniform(2.2, 3.4)
            image += step(spots * rng.uniform(6, 20)) * rng.uniform(0.3, 0.9)
    if (style.name == "dermoscopy" and chance < 0.45) or chance < 0.05:
        tone = colour(rng, [0.0] * channels, [0.35] * channels)
        if rng.random() < 0.2:
            tone = tone + 0.6
        number, bend = int(rng.integers(1, 20)), rng.uniform(0.01, 0.06)
        paths = [
            walk(rng, 25, rng.uniform(-1.1, 1.1, 2), rng.uniform(0, 6.3), 0.04, bend)
            for _ in range(number)
        ]
        hair = strokes(size, paths, [np.full(25, rng.uniform(0.002, 0.007))] * number)
        image += hair * rng.uniform(0.3, 0.95) * (tone - image)
    if style.name == "dermoscopy" and rng.random() < 0.3:
        image += _ruler(rng, size) * (rng.uniform(0, 0.4) - image)
    if rng.random() < (0.3 if style.name in ("endoscopy", "xray", "ultrasound") else 0.05):
        image += _writing(rng, size) * (rng.uniform(0.6, 1) - image)
    if rng.random() < 0.04:  # rectangles: overlays and black-outs
        row, column = rng.integers(0, size - 8, 2)
        high, wide = rng.integers(4, size // 4, 2)
        image[:, row : row + high, column : column + wide] = rng.uniform(0, 1)


def _ruler(rng, size):
    """A line with ticks: share of each pixel, `H x W`."""
    angle = rng.uniform(-0.3, 0.3) + (math.pi / 2 if rng.random() < 0.3 else 0)
    along = np.array([math.sin(angle), math.cos(angle)])
    across = np.array([along[1], -along[0]])
    start, length, ticks = rng.uniform(-0.9, 0.9, 2), rng.uniform(0.4, 1), int(rng.integers(8, 25))
    lines = [np.stack([start, start + length * along])]
    for k in range(ticks):
        foot = start + along * length * k / (ticks - 1)
        lines.append(np.stack([foot, foot + across * (0.07 if k % 5 == 0 else 0.04)]))
    return strokes(size, lines, [np.full(2, 0.003)] * len(lines))


def _writing(rng, size):
    """A few lines of small letters near the border: share of each pixel, `H x W`."""
    canvas = Image.new("L", (size, size))
    pen = ImageDraw.Draw(canvas)
    letters = "".join(chr(int(k)) for k in rng.integers(48, 91, 24))
    x = int(rng.choice((4, size - 60))) if rng.random() < 0.8 else int(rng.integers(0, size))
    y = int(rng.integers(0, size - 10))
    for line in range(int(rng.integers(1, 4))):
        pen.text(
            (x, y + 12 * line), letters[6 * line : 6 * line + int(rng.integers(1, 7))], fill=255
        )
    return np.asarray(canvas, np.float32) * np.float32(1 / 255)


def field_of_view(rng, size, style):
    """`H x W` in {0, 1}: what the instrument sees; the rest stays black. None: everything."""
    rows, columns = grid(size)
    chance = rng.random()
    if style.name == "endoscopy" and chance < 0.7:
        side, corner = rng.uniform(0.82, 1.0), rng.uniform(1.25, 1.9)
        view = (np.abs(columns) < side) & (np.abs(rows) + np.abs(columns) < corner)
        if chance < 0.3:  # a picture in a corner
            view &= (rows < rng.uniform(0.3, 0.7)) | (columns > rng.uniform(-0.7, -0.3))
    elif style.name == "fundus" or (style.name in ("endoscopy", "dermoscopy") and chance > 0.9):
        view = rows * rows + columns * columns < rng.uniform(0.85, 1.2) ** 2
    elif style.name == "ultrasound" and chance < 0.15:
        view = np.abs(columns) < (rows + rng.uniform(1.2, 3)) * rng.uniform(0.4, 0.8)
    elif style.name in ("xray", "mri") and chance < 0.12:  # bars where a picture is not square
        bar = rows if chance < 0.06 else columns
        view = np.abs(bar) < rng.uniform(0.65, 0.97)
    else:
        return None
    return view


def degrade(rng, image, style):
    """Light fall-off, bias field, speckle, blur, noise, gamma; `C x H x W` in [0, 1]."""
    if not style.has("degradation"):
        return np.clip(image, 0, 1)
    size = image.shape[1]
    if rng.random() < 0.35:
        image *= np.exp(rng.uniform(0.1, 0.5) * noise(rng, size, 2))
    if rng.random() < (0.5 if style.name in ("dermoscopy", "fundus", "endoscopy") else 0.15):
        rows, columns = grid(size)
        fall = rows * rows + columns * columns
        image *= 1 - rng.uniform(0.05, 0.4) * (fall if rng.random() < 0.5 else fall * fall * 0.5)
    if style.name == "ultrasound" or rng.random() < 0.04:
        speckle = texture(rng, size, "speckle", turn=False)
        if rng.random() < 0.4:  # a coarser one
            speckle = double(texture(rng, size // 2, "speckle", turn=False))
        image *= np.exp(rng.uniform(0.12, 0.6) * (np.log(speckle + 0.05) + 0.1))
    if rng.random() < 0.4:
        image = blur(image, rng.uniform(0.7, 2.0))
    if rng.random() < 0.5:
        strength = math.exp(rng.uniform(math.log(0.004), math.log(0.08)))
        if style.name == "microscopy":
            strength *= 0.3
        image += strength * texture(rng, size, "white" if rng.random() < 0.6 else "grain")
    np.clip(image, 0, 1, out=image)
    if rng.random() < 0.6:
        image **= math.exp(rng.uniform(-0.45, 0.45))
    return image


def develop(rng, image, style):
    """`C x H x W` in [0, 1] as `H x W x 3` bytes, one in three of them through JPEG."""
    pixels = (image * np.float32(255) + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0)
    if pixels.shape[2] == 3 and rng.random() < 0.12:
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
    if style.has("degradation") and rng.random() < 0.33:
        pixels = jpeg(pixels, int(rng.integers(15, 90)))
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def jpeg(pixels, quality):
    """Bytes `H x W x C` (C = 1 or 3), compressed with `quality` (1 to 95) and read back."""
    file = io.BytesIO()
    picture = Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    )
    picture.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(pixels.shape)
