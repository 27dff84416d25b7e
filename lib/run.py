"""Run the notebooks without a browser: ``python -m lib.run 05 -p dataset folder -p data_root DIR``.

Under OUTPUT lie afterwards the executed notebooks (notebooks/), their figures (figures/), the
records they wrote (results/) and a table of these (results.md, results.csv). Notebooks run in the
Python environment of this command, at the root of the repository: relative paths count from there.

Exit status: 0 all went through; 1 a notebook failed; 2 the request makes no sense, nothing was run;
130 stopped with Ctrl-C.
"""

import argparse
import difflib
import os
import shutil
import sys
from pathlib import Path

from nbformat import NotebookNode
from tabulate import tabulate

from lib.notebook.execution import Run, execute
from lib.notebook.file import NotebookError, opening_table, parameters_of, read_notebook, title
from lib.notebook.parameters import assign
from lib.notebook.progress import ProgressLine, clock
from lib.notebook.results import extract_figures, write_results_table
from lib.paths import repository_root

# A cell of the quick profile that takes longer hangs; the published schedules have no limit.
PROFILES = ("quick", "paper")
CELL_SECONDS = 600
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None, *, root: Path | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        arguments: the command line without the program; default: that of the process.
        root: the repository; default: found from the working directory.
    """
    options = _parser().parse_args(arguments)
    try:
        root = (root or repository_root()).resolve()
        nodes = {
            path: read_notebook(path) for path in _select(options.notebooks, root / "notebooks")
        }
        defaults = {path.stem: parameters_of(node, path.name) for path, node in nodes.items()}
        if options.list:
            print(_listing(nodes, defaults))
            return 0
        output = _output_folder(options.output, root)
        values = _values(options, defaults, output, root)
    except (NotebookError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    _prepare_environment()
    runs = _run_all(nodes, values, options, output, root)
    print(_summary(runs, _results_line(output)))
    if any(run.status == "interrupted" for run in runs):
        return INTERRUPTED
    return FAILED if any(run.status != "ok" for run in runs) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "notebooks", nargs="*", metavar="NAME|NUMBER", help="which ones, such as 05; default: all"
    )
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), dest="parameters",
        help="set a parameter in every chosen notebook that has it; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--profile", choices=PROFILES, help="small CPU run, or the published schedule"
    )
    parser.add_argument("--output", default="outputs", metavar="DIR", help="default: outputs")
    parser.add_argument(
        "--timeout", type=int, metavar="SECONDS",
        help=f"limit for one cell, 0 for none; default: {CELL_SECONDS}, none for the paper profile",
    )  # fmt: skip
    parser.add_argument(
        "--in-place", action="store_true",
        help="for authors: write the executed notebooks back over their sources, to be committed",
    )  # fmt: skip
    parser.add_argument(
        "--list", action="store_true", help="show notebooks, cost and parameters; run nothing"
    )
    return parser


def _select(wishes: list[str], folder: Path) -> list[Path]:
    """Return the notebooks asked for, in order of their numbers; all when none is named."""
    available = sorted(folder.glob("*.ipynb"))
    if not available:
        raise NotebookError(f"{folder}: there is no notebook")
    chosen, unknown = [], []
    for wish in wishes:
        found = [path for path in available if _is_meant(wish, path)]
        chosen += found
        if not found:
            unknown.append(wish)
    if unknown:
        names = [path.stem for path in available]
        slugs = [name.partition("_")[2] for name in names]
        close = [difflib.get_close_matches(wish, names + slugs, n=1) for wish in unknown]
        hint = "; did you mean " + ", ".join(match[0] for match in close if match) + "?"
        raise NotebookError(
            f"no notebook {', '.join(unknown)}{hint if any(close) else '.'} "
            f"There are: {', '.join(names)}"
        )
    return sorted(set(chosen)) or available


def _is_meant(wish: str, path: Path) -> bool:
    number, _, slug = path.stem.partition("_")
    if wish.isdecimal():
        return number.isdecimal() and int(number) == int(wish)
    return wish in (path.stem, slug) or Path(wish).resolve() == path.resolve()


def _output_folder(output: str, root: Path) -> Path:
    folder = root / Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotebookError(f"--output {output}: there is a file of that name; name a folder")
    if (folder / "notebooks").resolve() == (root / "notebooks").resolve():
        raise NotebookError(
            f"--output {output}: the executed notebooks would take the place of their sources; "
            "name another folder"
        )
    return folder


def _values(
    options: argparse.Namespace,
    defaults: dict[str, dict[str, object]],
    output: Path,
    root: Path,
) -> dict[str, dict[str, object]]:
    """Return for each notebook the parameters to set; every fault of the request is an error."""
    requests = [tuple(pair) for pair in options.parameters]
    if options.profile:
        requests.append(("profile", options.profile))
    if any(key == "output" for key, _ in requests):
        raise NotebookError("-p output: use --output DIR, which also moves the executed notebooks")
    wrong = [value for key, value in requests if key == "profile" and value not in PROFILES]
    if wrong:
        raise NotebookError(f"-p profile {wrong[0]}: it is {' or '.join(PROFILES)}")
    if options.timeout is not None and options.timeout < 0:
        raise NotebookError(f"--timeout {options.timeout}: seconds, or 0 for no limit")
    if options.in_place:
        if requests or options.output != "outputs":
            raise NotebookError("--in-place: committed notebooks show the defaults; drop -p, "
                                "--profile and --output")  # fmt: skip
        return {name: {} for name in defaults}
    values = assign(requests, defaults)
    # Relative where possible: the value is seen in the executed notebooks.
    folder = output.resolve()
    folder = folder.relative_to(root) if folder.is_relative_to(root) else folder
    for name, parameters in defaults.items():
        if "output" in parameters:
            values[name]["output"] = folder.as_posix()
    return values


def _prepare_environment() -> None:
    """Set what the kernels inherit."""
    # A backend set by the user, such as Agg, would leave the notebooks without figures.
    os.environ.pop("MPLBACKEND", None)
    # The kernel "python3" of this environment comes before one of the same name in the home folder.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # Keep the debugger of the kernel from printing a warning about frozen modules.
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def _run_all(
    nodes: dict[Path, NotebookNode],
    values: dict[str, dict[str, object]],
    options: argparse.Namespace,
    output: Path,
    root: Path,
) -> list[Run]:
    runs: list[Run] = []
    for position, (path, node) in enumerate(nodes.items(), start=1):
        if any(run.status == "interrupted" for run in runs):
            runs.append(Run(path.stem, "not run"))
            continue
        progress = ProgressLine(f"[{position}/{len(nodes)}] {path.stem}", len(node.cells))
        run = execute(
            path,
            output / "notebooks" / path.name,
            parameters=values[path.stem],
            timeout=_timeout(options.timeout, values[path.stem]),
            root=root,
            progress=progress,
        )
        if run.path:
            _keep_figures(run, output / "figures")
        if options.in_place and run.status == "ok":
            shutil.copyfile(run.path, path)
        progress.close(f"{run.status}, {clock(run.seconds)}, peak {run.peak_gb:.1f} GB")
        runs.append(run)
    return runs


def _keep_figures(run: Run, folder: Path) -> None:
    """Write the figures of a notebook; where that fails, its run has failed and no other."""
    try:
        extract_figures(run.path, folder)
    except OSError as error:
        run.status = "failed" if run.status == "ok" else run.status
        run.message = run.message or f"its figures could not be written: {error}"


def _timeout(seconds: int | None, values: dict[str, object]) -> int | None:
    if seconds is None and values.get("profile") != "paper":
        return CELL_SECONDS
    return seconds or None


def _listing(nodes: dict[Path, NotebookNode], defaults: dict[str, dict[str, object]]) -> str:
    entries = []
    for path, node in nodes.items():
        parameters = "  ".join(f"{key}={value!r}" for key, value in defaults[path.stem].items())
        cost = opening_table(node).get("Cost", "not stated")
        entries.append(
            f"{path.stem}\n  {title(node)}\n  cost: {cost}\n  parameters: {parameters or 'none'}"
        )
    return "\n".join(entries)


def _results_line(output: Path) -> str:
    """Write the table of results and tell where it is, or why there is none."""
    try:
        table = write_results_table(output)
    except (ValueError, OSError) as error:  # records of other versions, a folder in the way
        return f"no table of results: {error}"
    return f"results: {os.path.relpath(table)}" if table else ""


def _summary(runs: list[Run], results: str) -> str:
    rows = [(run.name, run.status, clock(run.seconds), f"{run.peak_gb:.1f}") for run in runs]
    total, peak = sum(run.seconds for run in runs), max(run.peak_gb for run in runs)
    rows.append(("all", "", clock(total), f"{peak:.1f}"))
    columns = ("notebook", "status", "time", "peak GB")
    alignment = ("left", "left", "right", "right")
    lines = ["", tabulate(rows, columns, disable_numparse=True, colalign=alignment)]
    for run in runs:
        if run.message:
            lines.append(f"\n{run.status.upper()} {run.name}: {run.message}")
        if run.message and run.path:
            lines.append(f"  kept: {os.path.relpath(run.path)}")
    return "\n".join([*lines, "", results] if results else lines)


if __name__ == "__main__":
    sys.exit(main())
