"""Where public data sets keep their images and masks, as their authors pack them.

For each set a function that recognises its folder and one that fills a `Found` from it. The facts
are those of the unpacked archives; other files beside the pictures are foreign and ignored.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lib.data.errors import DataError
from lib.data.index_file import SPLITS
from lib.data.pair_folder import has_pair
from lib.data.pairing import (
    NO_MASK,
    Entry,
    Found,
    by_key,
    files_below,
    folders_below,
    match,
    pair_by_name,
    pictures_below,
)


def _add(found: Found, pairs, **facts: str) -> None:
    found.entries += [Entry(name, image, masks, **facts) for name, image, masks in pairs]


def is_kvasir(folder: Path) -> bool:
    """Tell by the boxes, kavsir_bboxes.json (spelt so), beside images/ and masks/."""
    return has_pair(folder) and any(folder.glob("*vsir_bboxes.json"))


def find_kvasir(base: Path, found: Found, task: str | None) -> None:
    """Pair images/<id>.jpg with masks/<id>.jpg."""
    found.ignored += list(base.glob("*.json"))
    _add(found, pair_by_name(base / "images", base / "masks", found))


def _is_covid(folder: Path) -> bool:
    return folder.resolve().name.endswith("Segmentation Data") and any(
        (folder / split).is_dir() for split in ("Train", "Val", "Test")
    )


def locate_covid(folders: Sequence[Path]) -> Path | None:
    """Return the folder that holds Train, Val and Test, or the root if there are two of it."""
    inner = [folder for folder in folders if _is_covid(folder)]
    if len(inner) < 2:
        return inner[0] if inner else None
    return folders[0]  # lung and infection data side by side


def find_covid(base: Path, found: Found, task: str | None) -> None:
    """Pair <split>/<class>/images with "lung masks" or "infection masks"; domain = class."""
    kinds = {f.resolve().name.split()[0].lower(): f for f in folders_below(base) if _is_covid(f)}
    if task is None and len(kinds) > 1:
        found.notes.append(
            "masks of lungs; for infections give task='infection' (in a notebook: dataset "
            "'folder/infection'), or 'Infection Segmentation Data' as the root"
        )
    task = task or ("lung" if "lung" in kinds else "infection")
    # The infection data have masks of the lungs too.
    trees = [kinds[task]] if task in kinds else list(kinds.values())
    tree = next((folder for folder in trees if any(folder.glob(f"*/*/{task} masks"))), None)
    if tree is None:
        raise DataError(
            f"{base} has no '{task} masks' in Train, Val or Test; it has "
            f"{', '.join(folder.name for folder in kinds.values())}."
        )
    for part in sorted(tree.glob("*/*/images")):
        group = part.parent
        masks = group / f"{task} masks"
        if not masks.is_dir():
            found.problems.add(NO_MASK, part, f"no folder '{masks.name}' beside it")
            continue
        facts = {"domain": group.name, "split": SPLITS.get(group.parent.name.lower(), "")}
        prefix = f"{group.parent.name}/{group.name}/"
        pairs = pair_by_name(part, masks, found)
        _add(found, [(prefix + name, *files) for name, *files in pairs], **facts)


def _is_isic(folder: Path) -> bool:
    return any(folder.glob("ISIC_*_segmentation.png"))


def locate_isic(folders: Sequence[Path]) -> Path | None:
    """Return the root if any folder has a mask of the name ISIC_<id>_segmentation.png."""
    return folders[0] if any(_is_isic(folder) for folder in folders) else None


def find_isic(base: Path, found: Found, task: str | None) -> None:
    """Pair by ISIC number wherever the files lie; the image folder may name the split."""
    files = files_below(base)
    images = by_key(files, _key(r"(ISIC_\d+)\.(?:jpe?g|png)"))
    masks = by_key(files, _key(r"(ISIC_\d+)_segmentation\.png"))
    used = {path for paths in (*images.values(), *masks.values()) for path in paths}
    found.ignored += [path for path in files if path not in used]
    for name, image, parts in match(images, masks, found):
        words = re.split(r"[^a-z]+", image.parent.relative_to(base).as_posix().lower())
        split = next((SPLITS[word] for word in reversed(words) if word in SPLITS), "")
        found.entries.append(Entry(name, image, parts, split=split))


def _key(pattern: str) -> Callable[[Path], str | None]:
    """Return a function from a path to the first group of `pattern` in its whole name."""

    def key(path: Path) -> str | None:
        hit = re.fullmatch(pattern, path.name, re.IGNORECASE)
        return hit and hit[1]

    return key


BUSI_CLASSES = ("benign", "malignant", "normal")


def is_busi(folder: Path) -> bool:
    """Tell by a class folder with "class (n)_mask.png"."""
    return any(any((folder / name).glob("*(*)_mask.png")) for name in BUSI_CLASSES)


def find_busi(base: Path, found: Found, task: str | None) -> None:
    """Unite the masks _mask, _mask_1, ... of an image; a normal one may lack its mask."""
    for kind in (name for name in BUSI_CLASSES if (base / name).is_dir()):
        files = pictures_below(base / kind, found)
        masks = by_key(files, _key(r"(.+?)_mask(?:_\d+)?\.png"))
        images = by_key(files, lambda path: None if "_mask" in path.stem else path.stem)
        pairs = match(images, masks, found, unite=True, may_lack=kind == "normal")
        _add(found, pairs, domain=kind)
    found.notes.append("BUSI names no patients: images of one patient may stand in several parts")


def is_montgomery(folder: Path) -> bool:
    """Tell by the folder of X-rays and the folder of a mask for each lung."""
    return (folder / "CXR_png").is_dir() and (folder / "ManualMask" / "leftMask").is_dir()


def find_montgomery(base: Path, found: Found, task: str | None) -> None:
    """Unite the masks of the left and the right lung; both must be there."""
    lungs = ("leftMask", "rightMask")
    masks: dict[str, list[Path]] = {}
    for lung in lungs:
        for path in pictures_below(base / "ManualMask" / lung, found):
            masks.setdefault(path.stem, []).append(path)
    images = by_key(pictures_below(base / "CXR_png", found), lambda path: path.stem)
    for name, image, parts in match(images, masks, found, unite=True):
        if len(parts) < len(lungs):
            found.problems.add(NO_MASK, image, f"only {parts[0].parent.name}")
        found.entries.append(Entry(name, image, parts, domain="Montgomery"))


def _shenzhen_masks(folder: Path) -> Path | None:
    inner = [folder, *(f for f in folder.iterdir() if f.is_dir())]
    return next((f for f in inner if any(f.glob("CHNCXR_*_mask.png"))), None)


def is_shenzhen(folder: Path) -> bool:
    """Tell by CXR_png and, in this folder or in it, masks of the name CHNCXR_..._mask.png."""
    return (folder / "CXR_png").is_dir() and _shenzhen_masks(folder) is not None


def find_shenzhen(base: Path, found: Found, task: str | None) -> None:
    """Pair by name; X-rays without a mask exist in the real set and are left out."""
    images = by_key(pictures_below(base / "CXR_png", found), lambda path: path.stem)
    masks = by_key(
        pictures_below(_shenzhen_masks(base), found), lambda path: path.stem.removesuffix("_mask")
    )
    without = [name for name in images if name not in masks]
    if without:
        found.notes.append(f"{len(without)} of {len(images)} X-rays have no mask: left out")
    images = {name: paths for name, paths in images.items() if name in masks}
    for name, image, parts in match(images, masks, found):
        domain = "Montgomery" if name.startswith("MCUCXR") else "Shenzhen"
        found.entries.append(Entry(name, image, parts, domain=domain))


def is_drive(folder: Path) -> bool:
    """Tell by the folder 1st_manual in training or test."""
    return any((folder / part / "1st_manual").is_dir() for part in ("training", "test"))


def find_drive(base: Path, found: Found, task: str | None) -> None:
    """Pair by the leading number: 21_training.tif, 21_manual1.gif."""
    number = _key(r"(\d+)_.*")
    for part in (folder for folder in (base / "training", base / "test") if folder.is_dir()):
        if not (part / "1st_manual").is_dir():
            found.notes.append(f"{part.name} has no 1st_manual: its images are left out")
            continue
        images = by_key(pictures_below(part / "images", found), number)
        masks = by_key(pictures_below(part / "1st_manual", found), number)
        for _, image, parts in match(images, masks, found):
            found.entries.append(Entry(image.stem, image, parts, split=SPLITS[part.name]))
    found.notes.append("field-of-view masks are not used: scores cover the whole picture")


_DSB_ID = re.compile(r"[0-9a-f]{64}")


def _is_nucleus_folder(folder: Path) -> bool:
    return (folder / "images" / f"{folder.name}.png").exists() and (folder / "masks").is_dir()


def _is_dsb(base: Path) -> bool:
    """One folder a case is a common form; this set has long ids, and a file for each nucleus.

    Files of one name in several cases (liver.png, tumor.png) are structures, not nuclei, unless
    they are numbered.
    """
    cases = [case for case in base.iterdir() if _is_nucleus_folder(case)]
    if base.name.startswith("stage1") or any(_DSB_ID.fullmatch(case.name) for case in cases):
        return True
    masks = [path.stem for case in cases for path in (case / "masks").glob("*.png")]
    words = [name for name in masks if not re.search(r"\d", name)]
    return len(masks) > len(cases) and len(words) == len(set(words))


def locate_dsb(folders: Sequence[Path]) -> Path | None:
    """Return the parent of the first <id> with images/<id>.png and masks/, a file a nucleus."""
    one = next(filter(_is_nucleus_folder, folders[1:]), None)
    return one.parent if one and _is_dsb(one.parent) else None


def find_dsb(base: Path, found: Found, task: str | None) -> None:
    """Unite the masks of an image, one a nucleus."""
    for folder in sorted(path for path in base.iterdir() if (path / "images").is_dir()):
        images = pictures_below(folder / "images", found, may_lack=True)
        masks = pictures_below(folder / "masks", found, may_lack=True)
        named = ({folder.name: paths} if paths else {} for paths in (images, masks))
        pairs = match(*named, found, unite=True)
        _add(found, pairs)


def is_acdc(folder: Path) -> bool:
    """Tell by the name of a slice."""
    return any(folder.glob("patient*_frame*_slice_*.h5"))


def find_acdc(base: Path, found: Found, task: str | None) -> None:
    """Take each slice as one image; the patient is its group."""
    for path in files_below(base):
        slice_of = re.fullmatch(r"(patient\d+)_frame\d+_slice_\d+\.h5", path.name)
        if slice_of and path.parent == base:
            found.entries.append(Entry(path.stem, path, (path,), group=slice_of[1]))
        else:
            found.ignored.append(path)
