"""Runs one notebook through papermill and tells in one line how it ended.

Papermill alone reports success for a notebook that leaves early, has no time-out for a cell and
says nothing of a kernel the system killed. Each of these ends here as a failed `Run` with a remedy.
"""

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from lib.notebook.clean import clean
from lib.notebook.file import read_notebook, tags
from lib.notebook.progress import ProgressLine

SAMPLE_SECONDS = 0.2
# Papermill gives a busy machine 4 s to hand over a cell's output, then fails the notebook.
OUTPUT_SECONDS = 120
# A kernel warns at each start that it talks over a local port.
QUIET_KERNEL = ["--IPKernelApp.log_level=ERROR"]

# Parameters that change nothing of what a text may say.
ALIKE = ("output",)

# Every failure is reported by `Run.message`; the libraries would log it a second time.
logging.getLogger("papermill").setLevel(logging.CRITICAL)


@dataclass
class Run:
    """How one notebook ended: ``ok``, ``failed``, ``interrupted`` or ``not run``."""

    name: str
    status: str
    message: str = ""
    seconds: float = 0.0
    peak_gb: float = 0.0
    path: Path | None = None


def execute(
    source: Path,
    destination: Path,
    *,
    parameters: dict[str, object],
    timeout: int | None,
    root: Path,
    progress: ProgressLine,
) -> Run:
    """Run the notebook ``source`` and leave the executed copy at ``destination``.

    Args:
        source: the notebook; it is not changed.
        destination: written after each cell, so that it exists however the run ends.
        parameters: values for the cell tagged ``parameters``, of the right types.
        timeout: seconds one cell may take; ``None`` for no limit.
        root: the folder in which the kernel starts.
        progress: told of each cell and, several times a second, of the memory in use.

    Returns:
        The run. A failure is in its status and message; nothing is raised for it.
    """
    cells = _CurrentCell(progress)
    memory = _MemoryWatch(progress)
    start = time.monotonic()
    status, message = "ok", ""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.unlink(missing_ok=True)
        with memory:
            papermill.execute_notebook(
                _papermill_path(source),
                _papermill_path(destination),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=root,
                execution_timeout=timeout,
                iopub_timeout=OUTPUT_SECONDS,
                extra_arguments=QUIET_KERNEL,
                on_cell_start=cells.enter,
            )
        message = _left_early(read_notebook(destination))
    except KeyboardInterrupt:
        status, message = "interrupted", f"stopped by the user in {cells}"
    except CellTimeoutError:
        message = f"{cells} took longer than {timeout} s; allow more with --timeout SECONDS"
    except DeadKernelError:
        message = _dead_kernel(cells, memory.peak_bytes)
    except papermill.PapermillExecutionError as error:
        message = f"{cells}: {error.ename}: {_first_line(error.evalue)}"
    except Exception as error:  # a kernel that does not start, a full disk: name it and go on
        message = f"{cells}: {type(error).__name__}: {_first_line(str(error))}"
    if message and status == "ok":
        status = "failed"
    seconds = time.monotonic() - start
    try:
        path = _finish(destination, message, parameters, root)
    except Exception as error:  # the same full disk, which left half a file
        path, status = None, "failed" if status == "ok" else status
        message = message or f"{destination.name}: {type(error).__name__}: {error}"
    return Run(source.stem, status, message, seconds, memory.peak_bytes / 1e9, path)


class _CurrentCell:
    """The cell being run, numbered from 1 as in the source notebook."""

    def __init__(self, progress: ProgressLine) -> None:
        self.progress = progress
        self.number = 0
        self.first_line = ""
        self._injected = 0  # cells that papermill added so far

    def enter(self, cell: NotebookNode, cell_index: int) -> None:
        self._injected += "injected-parameters" in tags(cell)
        self.number = cell_index + 1 - self._injected
        self.first_line = _first_line(cell.source)
        self.progress.cell(self.number)

    def __str__(self) -> str:
        return f"cell {self.number} ({self.first_line})" if self.number else "starting the kernel"


class _MemoryWatch:
    """Samples the memory of the kernel and its workers: all child processes of this one.

    Resident memory, summed; pages shared by several workers count once for each.
    """

    def __init__(self, progress: ProgressLine) -> None:
        self.progress = progress
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "_MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        this = psutil.Process()
        while not self._stop.wait(SAMPLE_SECONDS):
            used = sum(_resident(child) for child in this.children(recursive=True))
            self.peak_bytes = max(self.peak_bytes, used)
            self.progress.tick(used)


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it ended meanwhile
        return 0


def _left_early(node: NotebookNode) -> str:
    """Return what is wrong with a run that papermill calls a success, or an empty string."""
    cells = [cell for cell in node.cells if "injected-parameters" not in tags(cell)]
    code = [
        (number, cell)
        for number, cell in enumerate(cells, start=1)
        if cell.cell_type == "code" and cell.source.strip()
    ]
    for number, cell in code:
        if any(output.output_type == "error" for output in cell.outputs):
            where = f"cell {number} ({_first_line(cell.source)})"
            return f"{where} ended the notebook early, as sys.exit() does"
    skipped = [number for number, cell in code if cell.execution_count is None]
    return f"{len(skipped)} cells were not run, the first is cell {skipped[0]}" if skipped else ""


def _dead_kernel(cells: _CurrentCell, peak_bytes: int) -> str:
    total = psutil.virtual_memory().total
    return (
        f"{cells}: the kernel died; its memory peaked at {peak_bytes / 1e9:.1f} GB of "
        f"{total / 1e9:.0f} GB. If that is close, the system killed it: use --profile quick, lower "
        "image size or batch size with -p (see --list), or close other programs"
    )


def _finish(destination: Path, message: str, parameters: dict, root: Path) -> Path | None:
    """Clean the executed copy, finished or partial, and say on top what its reader must know."""
    if not destination.is_file():
        return None
    node = nbformat.read(destination, as_version=4)
    if changed := {key: value for key, value in parameters.items() if key not in ALIKE}:
        values = ", ".join(f"`{key} = {value!r}`" for key, value in changed.items())
        note = nbformat.v4.new_markdown_cell(
            f"**A run of its own**: {values}. Its outputs are below. Sentences that quote numbers, "
            "or speak of this run, describe the run with the defaults that the project commits."
        )
        node.cells.insert(1, note)  # below the title
    if message:
        banner = nbformat.v4.new_markdown_cell(f"**This run did not finish.** {message}")
        node.cells.insert(0, banner)
    nbformat.write(clean(node, root), destination)
    return destination


def _papermill_path(path: Path) -> str:
    """Return ``path`` for papermill, which takes braces in a name as fields to fill in."""
    return str(path.resolve()).replace("{", "{{").replace("}", "}}")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:120]
