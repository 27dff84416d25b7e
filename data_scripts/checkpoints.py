"""SAM's official checkpoints. ``python -m data_scripts.checkpoints vit_b [vit_l vit_h]``.

``--check`` without a name checks all that are there.

Kirillov et al., "Segment Anything", ICCV 2023; Apache-2.0. The six digits in each official file
name begin its MD5 sum. Sizes and SHA-256 are stated alike by micro-sam and 3D Slicer, which pin
them in their code, and by copies in Git-LFS.
"""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from data_scripts._cli import run
from data_scripts._disk import exclusive, human, require_space
from data_scripts._download import download, verify
from data_scripts._errors import FetchError
from data_scripts._sets import Source

BASE = "https://dl.fbaipublicfiles.com/segment_anything/"


def _source(filename: str, size: int, sha256: str) -> Source:
    return Source(filename, url=BASE + filename, known_hash=f"sha256:{sha256}", size=size)


CHECKPOINTS = {
    "vit_b": _source(
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": _source(
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": _source(
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def check(source: Source, root: Path) -> None:
    """Raise FetchError unless the checkpoint below ``root`` has its size and SHA-256."""
    path = root / source.filename
    if not path.exists():
        raise FetchError(f"{path}: no such file; run without --check to get it")
    verify(path, known_hash=source.known_hash, size=source.size)


def fetch(
    source: Source, root: Path, *, archive: Path | None = None, url: str | None = None
) -> Path:
    """Bring a checkpoint to ``root``, from a file that the user has or from the network.

    ``url`` is a mirror: an address, or a folder ending with ``/``. Raises FetchError.
    """
    path = root / source.filename
    with exclusive(root, source.filename):
        if archive and not path.exists():
            if not archive.is_file():
                raise FetchError(f"{archive}: no such file; correct the path given with --archive")
            verify(archive, known_hash=source.known_hash, size=source.size)
            require_space(root, source.size, f"the copy of {archive}")
            draft = path.with_name(path.name + ".copy")
            shutil.copyfile(archive, draft)
            os.replace(draft, path)
        address = url + source.filename if url and url.endswith("/") else url or source.url
        download(address, path, known_hash=source.known_hash, size=source.size)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="SAM's official checkpoints (Apache-2.0)")
    parser.add_argument("names", nargs="*", help="vit_b, vit_l, vit_h")
    parser.add_argument("--root", type=Path, default=Path("checkpoints"), help="target folder")
    parser.add_argument("--check", action="store_true", help="only verify what is there")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="a checkpoint that you have")
    parser.add_argument("--url", help="mirror: an address, or a folder ending with /")
    arguments = parser.parse_args(argv)
    names = arguments.names
    if arguments.check and not names:
        there = [n for n, s in CHECKPOINTS.items() if (arguments.root / s.filename).exists()]
        names = there or list(CHECKPOINTS)
    if not names or not set(names) <= set(CHECKPOINTS):
        parser.error(f"name at least one of {', '.join(CHECKPOINTS)}")
    one_file = arguments.archive or (arguments.url and not arguments.url.endswith("/"))
    if one_file and len(names) > 1:
        parser.error("--archive and --url with a file are for one checkpoint at a time")

    def action() -> int:
        for name in names:
            source = CHECKPOINTS[name]
            if arguments.check:
                check(source, arguments.root)
            else:
                fetch(source, arguments.root, archive=arguments.archive, url=arguments.url)
            path = arguments.root / source.filename
            print(f"{path}: {human(source.size)}, size and SHA-256 are right")
            print(f'  open: load_sam("{name}", "{path.as_posix()}")')
        return 0

    return run(action)


if __name__ == "__main__":
    raise SystemExit(main())
