"""Finding images that stand in a data set twice, exactly or nearly.

Exact: the same pixels. Nearly: resized, compressed again, brightened, or the next frame of a film.
Rotated and mirrored copies are not looked for.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib.data.dataset import SegmentationDataset

# Chosen on seven medical sets: pairs within both limits were copies to the eye, while different
# chest X-rays and different retinas, which all look alike, come as near as 19 bits at a correlation
# of 0.90, and 22 bits at 0.98.
MAX_BITS = 20
MIN_CORRELATION = 0.97
_HASH_SIDE = 16  # 16 x 16 = 256 bits
_THUMBNAIL_SIDE = 32


def find_duplicates(
    dataset: SegmentationDataset, indices: Sequence[int] | None = None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the pairs (i, j), i < j, of exact duplicates and those of near duplicates.

    Near: the difference hashes (Krawetz, by the package ImageHash) differ in at most MAX_BITS of
    256 bits, and 32 x 32 thumbnails correlate by at least MIN_CORRELATION, which tells pictures
    with little structure apart. A copy of a copy is paired with the first of its kind only.
    Memory: about 4 kB an image; time: decoding, then about N^2 comparisons.
    """
    indices = range(len(dataset)) if indices is None else indices
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(lambda index: _look(dataset.pixels(index)), indices))
    first: dict[bytes, int] = {}
    exact = []
    for position, (content, _, _) in enumerate(looks):
        if first.setdefault(content, position) != position:
            exact.append((first[content], position))
    if not first:
        return [], []
    unique = sorted(first.values())
    hashes = np.array([looks[i][1] for i in unique]).reshape(len(unique), -1)
    thumbnails = np.array([looks[i][2] for i in unique]).reshape(len(unique), -1)
    near = [(unique[i], unique[j]) for i, j in _near(hashes, thumbnails)]
    pairs = ([(indices[i], indices[j]) for i, j in found] for found in (exact, near))
    exact, near = ([tuple(sorted(pair)) for pair in found] for found in pairs)
    return sorted(exact), sorted(near)


def clusters(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for each of `count` images the number of the cluster that `pairs` link it into."""
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _look(pixels: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Return a digest of the pixels, the difference hash and a thumbnail of mean 0 and norm 1."""
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    grey = Image.fromarray(pixels).convert("L")
    bits = imagehash.dhash(grey, _HASH_SIDE).hash
    small = grey.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    thumbnail = np.asarray(small, np.float32).ravel()
    thumbnail = thumbnail - thumbnail.mean()
    norm = max(float(np.linalg.norm(thumbnail)), 1e-6)
    return digest, np.packbits(bits).view(np.uint64), thumbnail / norm


def _near(hashes: np.ndarray, thumbnails: np.ndarray, chunk: int = 256) -> list[tuple[int, int]]:
    """Compare all pairs, `chunk` rows at a time so that memory stays small."""
    found = []
    for start in range(0, len(hashes), chunk):
        rows, rest = hashes[start : start + chunk], hashes[start:]
        bits = np.zeros((len(rows), len(rest)), np.uint16)
        for word in range(hashes.shape[1]):
            bits += np.bitwise_count(rows[:, word, None] ^ rest[None, :, word])
        for i, j in zip(*np.nonzero(bits <= MAX_BITS), strict=True):
            alike = thumbnails[start + i] @ thumbnails[start + j]
            if i < j and alike >= MIN_CORRELATION:
                found.append((int(start + i), int(start + j)))
    return found
