"""The drawn pictures: generate, check, and write as files. ``python -m data_scripts.synthetic``.

Fills the cache that the notebooks read (``<root>/synthetic``), so that none of them has to wait.
``--png`` writes folders of ``images/`` and ``masks/`` as well, to look at or to open like your
own data. ``--check`` draws some samples again and compares them with the cache, bit for bit.
"""

import argparse
import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_scripts._cli import run
from data_scripts._disk import exclusive, require_space, sync_folder
from data_scripts._errors import FetchError
from lib.data.errors import DataError
from lib.data.synthetic import DOMAINS, MODALITIES, SyntheticDataset, draw

REDRAWN = 5  # samples per set that --check draws again


def arrays(dataset: SyntheticDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H x W x 3 uint8) and mask (H x W uint8, 0 or 1) of one sample, as stored."""
    image = np.rint(dataset.image(index).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return image, dataset.mask(index).numpy().astype(np.uint8)


def check(dataset: SyntheticDataset) -> None:
    """Raise FetchError when a sample differs from what the code draws now."""
    last = len(dataset) - 1
    for index in sorted({round(last * i / (REDRAWN - 1)) for i in range(REDRAWN)}):
        drawn = draw(
            dataset.modality, dataset.domain, seed=dataset.seed, index=index, size=dataset.size
        )
        stored = arrays(dataset, index)
        if not all(np.array_equal(a, b) for a, b in zip(drawn, stored, strict=True)):
            raise FetchError(
                f"{dataset.names[index]}: the cached picture is not what the code draws (damaged, "
                "or drawn by another version of NumPy); delete the cache folder and run again"
            )


def write_png(dataset: SyntheticDataset, folder: Path) -> None:
    """Write ``folder/images`` and ``folder/masks`` (0 and 255); complete or not at all.

    An existing folder is left as it is. Raises FetchError on a full disk.
    """
    with exclusive(folder.parent, folder.name):
        if folder.exists():
            return
        pixels = len(dataset) * dataset.size**2
        require_space(folder.parent, 4 * pixels, f"writing {folder}")
        draft = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for part in ("images", "masks"):
                (draft / part).mkdir(parents=True)
            for index, name in enumerate(dataset.names):
                image, mask = arrays(dataset, index)
                Image.fromarray(image).save(draft / "images" / f"{name}.png")
                Image.fromarray(mask * 255).save(draft / "masks" / f"{name}.png")
            os.rename(draft, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Drawn pictures of six modalities, two domains")
    parser.add_argument("--root", type=Path, default=Path("data"), help="default: data")
    parser.add_argument("--modality", nargs="+", choices=MODALITIES, default=MODALITIES)
    parser.add_argument("--domain", nargs="+", choices=DOMAINS, default=DOMAINS)
    parser.add_argument("--count", type=int, default=200, help="pictures a set (default: 200)")
    parser.add_argument("--size", type=int, default=256, help="side in pixels (default: 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", action="store_true", help="write folders of PNG files, too")
    parser.add_argument("--check", action="store_true", help="only verify what is there")
    arguments = parser.parse_args(argv)

    def action() -> int:
        for modality, domain in itertools.product(arguments.modality, arguments.domain):
            try:
                _one(modality, domain, arguments)
            except DataError as error:
                raise FetchError(f"{error}; correct the option") from error
        return 0

    return run(action)


def _one(modality: str, domain: str, arguments: argparse.Namespace) -> None:
    count, size, seed = arguments.count, arguments.size, arguments.seed
    cache = arguments.root / "synthetic"
    # The rest of a cached folder's name is a digest of the drawing code.
    name = f"{modality}-{domain}-{size}px-{count}-seed{seed}"
    drawn = {"modality": modality, "domain": domain, "count": count, "seed": seed, "size": size}
    try:
        dataset = SyntheticDataset(**drawn, cache=cache, generate=not arguments.check)
    except FileNotFoundError as error:
        raise FetchError(f"{error}; run without --check") from error
    check(dataset)
    share = np.mean([arrays(dataset, index)[1].mean() for index in range(len(dataset))])
    print(f"{dataset.title}: {count} pictures of {size} px, foreground {share:.1%}, as drawn")
    if arguments.png and not arguments.check:
        folder = arguments.root / "png" / name
        write_png(dataset, folder)
        print(f'  open: open_dataset("folder", root="{folder.as_posix()}")')


if __name__ == "__main__":
    raise SystemExit(main())
