"""Decoding pictures of every mode that medical data sets come in, and telling whole from broken.

`inspect` judges a file without decoding it where the format allows; `read_image` and `read_mask`
decode it. Pillow does the decoding; this file adds the rules for bit depth, rotation and colour.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lib.data.errors import DataError

# A picture that a data set may hold; everything else beside it is a foreign file.
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".pnm")
)
LOSSY_FORMATS = ("JPEG", "MPO")  # MPO: the JPEG of cameras that append further pictures
COLOUR = 1 << 24  # read_mask codes a coloured pixel as COLOUR + 0xRRGGBB, a grey one as its value

EMPTY = "Empty files of zero bytes: copy or download them again"
TEXT = "Text instead of a picture (of Git LFS: run `git lfs pull`): fetch the real files"
BROKEN = "Truncated or damaged pictures: copy or download them again"
PAGES = "Several pages of the same size in one file: save each page as a picture of its own"

_PNG_MARKS = (b"eXIf", b"Raw profile type exif", b"acTL")  # rotation or animation: decode it
_ORIENTATION = 0x0112  # EXIF tag; its values 5 to 8 exchange width and height
_TURNS = {
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}


@dataclass(frozen=True)
class Picture:
    """What a file's header says; width and height in pixels as shown, after EXIF rotation."""

    width: int
    height: int
    mode: str
    orientation: int


class BrokenPicture(Exception):
    """A file that is no whole picture: `kind` is one of the headings above."""

    def __init__(self, kind: str, detail: str = ""):
        """Take the heading and what the decoder said."""
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def inspect(path: Path) -> Picture:
    """Return what `path` holds, or raise BrokenPicture.

    A file cut short is found without decoding: a whole JPEG has an end marker after its last scan,
    a PNG's chunks carry checksums. The other formats have no such sign and are decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BrokenPicture(BROKEN, error.strerror or str(error)) from error
    if not data:
        raise BrokenPicture(EMPTY)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            orientation = left = 1
            if opened.format in LOSSY_FORMATS:
                if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
                    raise BrokenPicture(BROKEN, "the JPEG has no end")
                orientation = left = opened.getexif().get(_ORIENTATION, 1)
                size = opened.size
            elif opened.format == "PNG" and not any(mark in data for mark in _PNG_MARKS):
                opened.verify()
                size = opened.size
            else:
                orientation = opened.getexif().get(_ORIENTATION, 1)
                opened.load()  # turns a TIFF upright and takes its tag away
                left = opened.getexif().get(_ORIENTATION, 1)
                size = opened.size
                _refuse_stack(opened)
            width, height = size[::-1] if left in _TURNS else size
            return Picture(width, height, opened.mode, orientation)
    except BrokenPicture:
        raise
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        kind = TEXT if _is_text(data) else BROKEN
        raise BrokenPicture(kind, "" if kind == TEXT else _reason(error)) from error


def read_image(path: Path) -> np.ndarray:
    """Return the picture as uint8, H x W (grey) or H x W x 3, EXIF rotation applied.

    Transparency is dropped. More than 8 bits are stretched from the picture's own 0.5th to 99.5th
    percentile to 0..255. Raises DataError when the file cannot be decoded.
    """
    picture, _ = _decode(path)
    if picture.mode in ("1", "L", "LA", "La"):
        return np.array(picture.convert("L"))
    if _is_deep(picture):
        return to_bytes(np.array(picture))
    if picture.mode == "P":  # by way of RGBA: a palette may hold transparency
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


@dataclass(frozen=True)
class MaskPixels:
    """A mask as stored, before anyone has said what its values mean.

    values: H x W, uint8 or int32. Grey pixels carry their value (1-bit ones 0 and 255), coloured
        ones COLOUR + 0xRRGGBB, those of a coloured palette that begins with black their index;
        what is transparent is 0.
    lossy: from a JPEG, so that the values around edges mean nothing.
    deep: more than 8 bits a pixel, always grey.
    """

    values: np.ndarray
    lossy: bool = False
    deep: bool = False


def read_mask(path: Path) -> MaskPixels:
    """Return the mask's values as stored, its own EXIF rotation applied; DataError if broken."""
    picture, lossy = _decode(path)
    if picture.mode in ("1", "L"):
        return MaskPixels(np.array(picture.convert("L")), lossy)
    if _is_deep(picture):
        return MaskPixels(np.nan_to_num(np.array(picture)).round().astype(np.int32), deep=True)
    if picture.mode == "P" and _class_palette(picture):
        return MaskPixels(np.array(picture))
    transparent = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        transparent = np.array(picture.getchannel("A")) < 128
    red, green, blue = (np.array(channel) for channel in picture.convert("RGB").split())
    if lossy:  # JPEG tints its greys; the brightest channel serves also what was painted in red
        return MaskPixels(np.maximum(np.maximum(red, green), blue), lossy)
    values = red
    coloured = (red != green) | (green != blue)
    if coloured.any():
        code = COLOUR + (red.astype(np.int32) << 16) + (green.astype(np.int32) << 8) + blue
        values = np.where(coloured, code, red)
    return MaskPixels(values if transparent is None else np.where(transparent, 0, values))


def brightness(values: np.ndarray) -> np.ndarray:
    """Return the brightest channel, 0..255, of values coded as in MaskPixels."""
    if values.dtype == np.uint8:
        return values
    colour = values - COLOUR
    channels = np.maximum(np.maximum(colour >> 16, (colour >> 8) & 255), colour & 255)
    return np.where(values >= COLOUR, channels, values)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return H x W pixels turned as an EXIF orientation of 5 to 8 asks for, W x H."""
    return np.ascontiguousarray(_TURNS[orientation](pixels))


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Stretch float or wide integer pixels from their 0.5th..99.5th percentile to uint8 0..255."""
    pixels = np.nan_to_num(pixels.astype(np.float32))
    if pixels.min() >= 0 and 1 < pixels.max() <= 255 and (pixels == pixels.round()).all():
        return pixels.astype(np.uint8)  # 8 bits in a wide container
    low, high = np.percentile(pixels, (0.5, 99.5))
    if high <= low:  # nearly constant: the few other pixels are all there is to see
        low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) / max(high - low, np.finfo(np.float32).tiny)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


def _decode(path: Path) -> tuple[Image.Image, bool]:
    """Return the decoded picture, upright, and whether it came from a lossy format."""
    try:
        # Not from the path: Pillow 13 maps uncompressed TIFFs from there and garbles turned ones.
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened), opened.format in LOSSY_FORMATS
    except Exception as error:  # Pillow's plugins raise many types on damaged files
        message = f"{path} cannot be decoded ({_reason(error)}): copy or download it again"
        raise DataError(message, [path]) from error


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode.startswith(("I", "F"))


def _class_palette(picture: Image.Image) -> bool:
    """Whether the index is the class: colours, and black first, as in a map that was labelled.

    Software that reduces colours puts the most frequent ones first, whatever they are. The palette
    decides, not the colours in use: all files of a data set share the one, and not the others.
    Black and white alone are themselves, whatever else the palette has.
    """
    palette = picture.getpalette("RGB")
    used = {colour for _, colour in picture.convert("RGB").getcolors(256)}
    if used <= {(0, 0, 0), (255, 255, 255)}:
        return False
    red, green, blue = palette[::3], palette[1::3], palette[2::3]
    grey = red == green == blue
    return not grey and not any(palette[:3]) and not picture.has_transparency_data


def _refuse_stack(opened: Image.Image) -> None:
    """Raise BrokenPicture for further pages of the same size; a smaller one is a thumbnail."""
    size, pages = opened.size, getattr(opened, "n_frames", 1)
    for page in range(1, pages):
        opened.seek(page)
        if opened.size == size:
            raise BrokenPicture(PAGES, f"{pages} pages")


def _is_text(data: bytes) -> bool:
    start = data[:1024]
    return b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow knows"
    return str(error) or type(error).__name__
