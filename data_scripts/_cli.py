"""The command line that the data set scripts share, and its plain-text errors."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_scripts._disk import human
from data_scripts._errors import FetchError
from data_scripts._fetch import Options, fetch, given_folder, verify_set
from data_scripts._sets import DataSet

INTERRUPTED = 130  # what shells report for Ctrl-C


def run(action: Callable[[], int]) -> int:
    """Run ``action``; turn expected failures into one line on stderr and an exit status."""
    try:
        return action()
    except FetchError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except OSError as error:
        name = error.filename or "disk"
        print(
            f"error: {name}: {error.strerror or error}; check that the path exists, that you may "
            "write there, and that the disk has room",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("stopped: run the same command again to go on where it stopped", file=sys.stderr)
        return INTERRUPTED
    return 1


def main(datasets: Sequence[DataSet], argv: Sequence[str] | None = None) -> int:
    """Entry point of a data set script; returns the exit status (0 when all is well)."""
    arguments = _parser(datasets).parse_args(argv)
    chosen = [d for d in datasets if d.name in (arguments.only or [d.name])]

    def action() -> int:
        if len(chosen) > 1 and (arguments.archive or arguments.url or arguments.sha256):
            names = " or ".join(d.name for d in chosen)
            raise FetchError(f"--archive, --url, --sha256: add --only {names}, which one is meant?")
        options = Options(
            root=arguments.root,
            archives=tuple(arguments.archive),
            url=arguments.url,
            pins=dict(arguments.sha256),
            keep_archive=arguments.keep_archive,
        )
        return max(_one(dataset, options, arguments.check) for dataset in chosen)

    return run(action)


def _one(dataset: DataSet, options: Options, only_check: bool) -> int:
    print(f"{dataset.title}\n  licence: {dataset.licence}\n  home: {dataset.homepage}")
    report = (verify_set if only_check else fetch)(dataset, options)
    print(report.text())
    if report.problems:
        return 1
    folder = given_folder(options) or options.root / dataset.name
    for task in dataset.tasks:
        option = f', task="{task}"' if task else ""
        print(f'  open: open_dataset("{dataset.layout}", root="{folder.as_posix()}"{option})')
    return 0


def _parser(datasets: Sequence[DataSet]) -> argparse.ArgumentParser:
    names = [dataset.name for dataset in datasets]
    sizes = human(sum(source.size or 0 for d in datasets for source in d.sources))
    parser = argparse.ArgumentParser(
        description="; ".join(dataset.title for dataset in datasets)
        + ("" if sizes == "0 B" else f" (download {sizes})")
    )
    parser.add_argument(
        "--root", type=Path, default=Path("data"), help="folder for all data (default: data)"
    )
    parser.add_argument("--check", action="store_true", help="only verify what is there")
    parser.add_argument(
        "--archive",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="zip or tar files that you have, or a folder that you unpacked (used in place)",
    )
    parser.add_argument("--url", help="mirror: an address, or a folder ending with /")
    parser.add_argument(
        "--sha256",
        type=_pin,
        nargs="+",
        default=[],
        metavar="[NAME=]HASH",
        help="accept exactly this archive",
    )
    parser.add_argument(
        "--keep-archive", action="store_true", help="do not delete downloads after unpacking"
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, help=argparse.SUPPRESS if len(names) == 1 else None
    )
    return parser


def _pin(text: str) -> tuple[str, str]:
    name, _, value = text.rpartition("=")
    value = value.lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise argparse.ArgumentTypeError(f"{text!r} is not 64 hexadecimal digits")
    return name, f"sha256:{value}"
