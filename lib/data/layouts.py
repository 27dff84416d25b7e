"""The layouts that a folder of images and masks may have, and how one is told from another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data import known_layouts as known
from lib.data.errors import DataError, Problems
from lib.data.index_file import apply_index
from lib.data.pair_folder import find_pairs, locate_pairs
from lib.data.pairing import Found, folders_below


@dataclass(frozen=True)
class Layout:
    """How one data set lies on disk.

    looks_for: one line for messages.
    locate: from the folders below the root, nearest first, the one that `find` starts at, or None.
    find: fills a Found from that folder; its third argument is the task, or None.
    tasks: tasks that the data set offers; classes: background included, None: told from the masks.
    """

    looks_for: str
    locate: Callable[[Sequence[Path]], Path | None]
    find: Callable[[Path, Found, str | None], None]
    tasks: tuple[str, ...] = ()
    classes: int | None = 2
    title: str = ""
    licence: str = "as its owner states"
    origin: str = "your own folder"


INDEX = "index.csv"


def _nearest(test: Callable[[Path], bool]) -> Callable[[Sequence[Path]], Path | None]:
    return lambda folders: next(filter(test, folders), None)


# Tried in this order: what is most peculiar comes first, the plain folder of pairs last.
LAYOUTS = {
    "covid_qu_ex": Layout(
        "'Lung Segmentation Data' or 'Infection Segmentation Data' holding Train, Val, Test",
        known.locate_covid,
        known.find_covid,
        tasks=("lung", "infection"),
        title="COVID-QU-Ex chest X-rays",
        licence="CC BY-SA 4.0, as reported on Kaggle",
        origin="Tahir et al., Computers in Biology and Medicine 139, 2021; Qatar University",
    ),
    "dsb2018": Layout(
        "stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png",
        known.locate_dsb,
        known.find_dsb,
        title="Data Science Bowl 2018, nuclei",
        licence="CC0",
        origin="Caicedo et al., Nature Methods 16, 2019; BBBC038",
    ),
    "acdc": Layout(
        "HDF5 slices patientNNN_frameFF_slice_K.h5 with the keys image and label",
        _nearest(known.is_acdc),
        known.find_acdc,
        classes=4,
        title="ACDC cardiac MRI: right ventricle, myocardium, left ventricle",
        licence="research use under the terms of ACDC",
        origin="Bernard et al., IEEE TMI 37(11), 2018",
    ),
    "kvasir": Layout(
        "Kvasir-SEG/{images,masks}/<id>.jpg beside kavsir_bboxes.json",
        _nearest(known.is_kvasir),
        known.find_kvasir,
        title="Kvasir-SEG, polyps in colonoscopy",
        licence="research and educational use; no redistribution",
        origin="Jha et al., MMM 2020, arXiv 1911.07069; datasets.simula.no/kvasir-seg",
    ),
    "montgomery": Layout(
        "MontgomerySet/CXR_png and MontgomerySet/ManualMask/{leftMask,rightMask}",
        _nearest(known.is_montgomery),
        known.find_montgomery,
        title="Montgomery County chest X-rays, lungs",
        licence="research use; cite the paper",
        origin="Jaeger et al., Quant. Imaging Med. Surg. 4(6), 2014; US NLM",
    ),
    "shenzhen": Layout(
        "CXR_png/CHNCXR_NNNN_D.png and, beside it, a folder of CHNCXR_NNNN_D_mask.png",
        _nearest(known.is_shenzhen),
        known.find_shenzhen,
        title="Shenzhen chest X-rays, lungs",
        licence="research use; cite the paper",
        origin="Jaeger et al. 2014 (US NLM); masks by Stirenko et al. 2018",
    ),
    "drive": Layout(
        "{training,test}/images/NN_*.tif and {training,test}/1st_manual/NN_manual1.gif",
        _nearest(known.is_drive),
        known.find_drive,
        title="DRIVE, vessels of the retina",
        licence="research use after registration; no redistribution",
        origin="Staal et al., IEEE TMI 23(4), 2004",
    ),
    "busi": Layout(
        "benign, malignant and normal folders of 'benign (1).png', 'benign (1)_mask.png'",
        _nearest(known.is_busi),
        known.find_busi,
        title="BUSI, breast ultrasound",
        licence="research use; cite the paper",
        origin="Al-Dhabyani et al., Data in Brief 28, 2020",
    ),
    "isic": Layout(
        "ISIC_NNNNNNN.jpg and ISIC_NNNNNNN_segmentation.png, in any folders",
        known.locate_isic,
        known.find_isic,
        title="ISIC, skin lesions in dermoscopy",
        licence="by image, see the ISIC archive (training data of 2017: CC0)",
        origin="Codella et al., arXiv 1710.05006 and 1902.03368",
    ),
    "pairs": Layout(
        "images/ and masks/ with files of the same names, here or in train/, val/, test/",
        locate_pairs,
        find_pairs,
        classes=None,
    ),
}


def find_entries(root: Path, layout: str = "auto", task: str | None = None) -> tuple[str, Found]:
    """Return the name of the layout of `root` and what it found there.

    Raises DataError when `root` is no folder, when the layout is unknown, not there or has no such
    task, and when no image is found.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is no folder"
            + ("; unpack it and name the folder." if root.is_file() else ": check the path.")
        )
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"Unknown layout {layout!r}; known are auto, {', '.join(LAYOUTS)}.")
    folders = folders_below(root)
    for name in LAYOUTS if layout == "auto" else [layout]:
        base = LAYOUTS[name].locate(folders)
        if base is not None:
            found = _filled(name, base, folders, task)
            found.notes += _left_out(name, base, folders)
            return name, found
    tried = LAYOUTS if layout == "auto" else [layout]
    looked = "\n".join(f"  - {name}: {LAYOUTS[name].looks_for}" for name in tried)
    raise DataError(
        f"{root} has not the layout {layout!r}. Looked for:\n{looked}\n"
        f"It holds: {_contents(root)}.\n"
        "Arrange your own data as images/ and masks/, or name the folder that has the layout."
    )


def _filled(name: str, base: Path, folders: Sequence[Path], task: str | None) -> Found:
    root = folders[0]
    tasks = LAYOUTS[name].tasks
    if task is not None and name != "pairs" and task not in tasks:
        known_tasks = ", ".join(tasks) or "none"
        raise DataError(f"Layout {name!r} has no task {task!r}; it has {known_tasks}.")
    found = Found(Problems(root))
    LAYOUTS[name].find(base, found, task)
    # Beside the images, or above them where only their folder was found, up to the root.
    above = [folder for folder in (base, *base.parents) if folder.is_relative_to(root)]
    indices = [folder / INDEX for folder in above if (folder / INDEX).is_file()]
    if indices:
        below = base.relative_to(indices[0].parent).as_posix()
        apply_index(indices[0], found, prefix="" if below == "." else f"{below}/")
    further = {folder / INDEX for folder in folders if (folder / INDEX).is_file()}
    for path in sorted(further.union(indices) - set(indices[:1])):
        found.notes.append(f"not read: {path}; one index.csv states a whole data set")
    return found


def _left_out(name: str, base: Path, folders: Sequence[Path]) -> list[str]:
    """Notes on other data sets beside the one that is read."""
    notes = []
    for other, layout in LAYOUTS.items():
        place = layout.locate(folders) if other != name else None
        if place and not (place.is_relative_to(base) or base.is_relative_to(place)):
            notes.append(f"not read: {place} (layout {other}); name it as the root to read it")
    return notes


def _contents(root: Path) -> str:
    inner = sorted(root.iterdir())
    shown = [path.name + "/" * path.is_dir() for path in inner[:12]]
    if len(inner) > 12:
        shown.append(f"and {len(inner) - 12} more")
    return ", ".join(shown) or "nothing"
