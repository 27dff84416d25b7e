import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lib.evaluation.records import Record, write_record
from lib.notebook.execution import Run
from lib.notebook.results import write_results_table
from lib.run import _keep_figures, _results_line, main

REPOSITORY = Path(__file__).parent.parent
# A kernel takes seconds to start, so one run of all these serves most of the tests below.
NOTEBOOKS = {
    "00_good": ["print(steps, name, output)", "import matplotlib.pyplot as plt", "plt.plot([1])"],
    "01_failing": ["print('before')", "x = 1\nx / 0", "print('after')"],
    "02_leaving": ["import sys\nsys.exit(0)", "print('after')"],
    "03_dying": [
        "block = bytearray(200_000_000)\nimport time\ntime.sleep(1)",
        "import os\nos.kill(os.getpid(), 9)",
    ],
}
HANGING = ["import time", "time.sleep(600)"]
PARAMETERS = 'profile = "quick"\nsteps = 2\nname = "a"\noutput = "outputs"\nseed = 0'


@pytest.fixture(scope="module")
def repository(tmp_path_factory, write_notebook):
    # Braces: papermill takes them as fields of a path.
    root = tmp_path_factory.mktemp("with {braces}")
    for name, sources in NOTEBOOKS.items():
        write_notebook(root / f"notebooks/{name}.ipynb", *sources, parameters=PARAMETERS)
    write_notebook(root / "notebooks/04_hanging.ipynb", *HANGING, parameters=PARAMETERS)
    return root


@pytest.fixture(scope="module")
def ended(repository):
    """The status, the printed text and the errors of a run of all the notebooks."""
    text = repository / "printed.txt"
    with pytest.MonkeyPatch.context() as patch, text.open("w") as stream:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("MPLBACKEND", "Agg")
        patch.chdir(repository)
        chosen = [name[:2] for name in NOTEBOOKS]
        status = main([*chosen, "-p", "steps", "3", "-p", "name", "007"], root=repository)
    return status, text.read_text()


def executed(repository, name):
    return nbformat.read(repository / f"outputs/notebooks/{name}.ipynb", as_version=4)


def streams(node):
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_several_notebooks_go_on_after_a_failure_and_end_with_a_summary(ended):
    status, text = ended
    assert status == 1
    rows = [line.split()[:2] for line in text.splitlines()]
    assert ["00_good", "ok"] in rows
    for name in list(NOTEBOOKS)[1:]:
        assert [name, "failed"] in rows
        assert f"FAILED {name}: " in text
        assert f"kept: outputs/notebooks/{name}.ipynb" in text


def test_values_arrive_with_the_types_of_the_defaults(ended, repository):
    assert streams(executed(repository, "00_good")) == "3 007 outputs\n"


def test_a_run_with_other_values_says_whose_numbers_the_text_quotes(ended, repository):
    note = executed(repository, "00_good").cells[1].source
    assert note.startswith("**A run of its own**: `steps = 3`, `name = '007'`.")
    assert "output" not in note.partition(". ")[0]


def test_figures_that_cannot_be_written_fail_one_notebook_and_lose_nothing(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    output = nbformat.v4.new_output("display_data", data={"image/png": "iVBORw0KGgo="})
    node.cells[0].outputs = [output]
    nbformat.write(node, tmp_path / "00_good.ipynb")
    run = Run("00_good", "ok", path=tmp_path / "00_good.ipynb")
    _keep_figures(run, tmp_path / "figures")
    assert run.status == "failed"
    assert "its figures could not be written" in run.message


def test_a_table_that_cannot_be_written_is_said(tmp_path):
    record = Record(
        method="supervised", dataset="Drawn", dataset_fingerprint="f", split_sha256="s" * 64,
        labelled_fraction=0.25, labelled_count=10, seed=0, scores={"last": {"dice": 0.5}},
        per_image={},
    )  # fmt: skip
    write_record(record, tmp_path / "results")
    (tmp_path / "results.md").mkdir()
    assert _results_line(tmp_path).startswith("no table of results: ")


def test_figures_are_left_as_pictures_whatever_the_backend_outside(ended, repository):
    figures = list((repository / "outputs/figures").iterdir())
    assert [figure.name for figure in figures] == ["00_good-1.png"]
    assert figures[0].read_bytes().startswith(b"\x89PNG")


def test_a_failing_cell_is_named_and_the_partial_notebook_kept(ended, repository):
    assert "FAILED 01_failing: cell 4 (x = 1): ZeroDivisionError: division by zero" in ended[1]
    assert streams(executed(repository, "01_failing")) == "before\n"


def test_leaving_early_is_a_failure(ended):
    assert "cell 3 (import sys) ended the notebook early, as sys.exit() does" in ended[1]


def test_a_dead_kernel_is_told_with_its_peak_memory(ended, repository):
    line = next(line for line in ended[1].splitlines() if line.startswith("FAILED 03_dying"))
    assert "cell 4 (import os): the kernel died" in line
    peak = float(line.partition("peaked at ")[2].split()[0])
    assert 0.2 <= peak < 2
    assert "--profile quick" in line
    assert executed(repository, "03_dying").cells[0].source.startswith("**This run did not finish")


def test_a_cell_has_a_time_limit(repository, capsys):
    assert main(["hanging", "--timeout", "2"], root=repository) == 1
    message = "cell 4 (time.sleep(600)) took longer than 2 s; allow more with --timeout"
    assert message in capsys.readouterr().out


def test_executed_copies_hold_no_times_and_no_paths(ended, repository):
    text = (repository / "outputs/notebooks/00_good.ipynb").read_text()
    for trace in ("papermill", "start_time", "widgets", str(repository)):
        assert trace not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7"], "no notebook 7. There are: 00_good"),
        (["0", "godo"], "no notebook godo; did you mean good?"),
        (["-p", "stepz", "3"], "no parameter 'stepz'"),
        (["-p", "steps", "1e-4"], "parameter 'steps': '1e-4' is not a whole number"),
        (["-p", "output", "x"], "use --output DIR"),
        (["--profile", "paper", "-p", "profile", "quick"], "'profile' is given twice"),
        (["--timeout", "-1"], "--timeout -1"),
        (["--output", "notebooks/00_good.ipynb"], "there is a file of that name"),
        (["--in-place", "-p", "steps", "3"], "committed notebooks show the defaults"),
    ],
)
def test_a_request_without_sense_runs_nothing(arguments, message, repository, capsys):
    assert main(arguments, root=repository) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_one_notebook_without_parameters_cell_stops_the_request(write_notebook, tmp_path, capsys):
    write_notebook(tmp_path / "notebooks/00_a.ipynb")
    write_notebook(tmp_path / "notebooks/01_b.ipynb", parameters=None)
    assert main([], root=tmp_path) == 2
    assert "01_b.ipynb: 0 cells are tagged 'parameters'" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_no_notebook_at_all_is_an_error(tmp_path, capsys):
    assert main([], root=tmp_path) == 2
    assert "there is no notebook" in capsys.readouterr().err


def test_list_shows_title_cost_and_parameters(repository, capsys):
    wanted = ["0", "01_failing", "leaving", str(repository / "notebooks/04_hanging.ipynb")]
    assert main(["--list", *wanted], root=repository) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line[0] != " "] == [
        "00_good", "01_failing", "02_leaving", "04_hanging"
    ]  # fmt: skip
    assert "  Title\n  cost: 1 min CPU, 1 GB\n" in text
    assert "steps=2  name='a'" in text


def test_in_place_writes_back_what_went_through(write_notebook, tmp_path):
    good = write_notebook(tmp_path / "notebooks/00_good.ipynb", "import os\nprint(os.getcwd())")
    bad = write_notebook(tmp_path / "notebooks/01_bad.ipynb", "1 / 0")
    before = bad.read_bytes()
    assert main(["--in-place"], root=tmp_path) == 1
    assert bad.read_bytes() == before
    node = nbformat.read(good, as_version=4)
    assert streams(node) == ".\n"  # the repository's path is not shown
    assert [cell.metadata.get("tags", []) for cell in node.cells] == [[], ["parameters"], []]


def test_ctrl_c_keeps_the_partial_notebook_and_ends_the_kernel(write_notebook, tmp_path):
    mark = tmp_path / "kernel.txt"
    source = f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))"
    write_notebook(tmp_path / "notebooks/00_a.ipynb", source, "time.sleep(600)")
    write_notebook(tmp_path / "notebooks/01_b.ipynb")
    code = (
        # A test run in the background of a shell inherits that Ctrl-C is ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys, pathlib, lib.run; sys.exit(lib.run.main([], root=pathlib.Path.cwd()))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    wait_until(mark.exists)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "INTERRUPTED 00_a: stopped by the user in cell" in text
    assert ["01_b", "not", "run"] in [line.split()[:3] for line in text.splitlines()]
    assert streams(executed(tmp_path, "00_a")) == ""
    wait_until(lambda: not alive(int(mark.read_text())))


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_are_tabled_from_records(tmp_path):
    for seed, dice in enumerate([0.5, 0.7]):
        record = Record(
            method="supervised", dataset="Drawn", dataset_fingerprint="f", split_sha256="s" * 64,
            labelled_fraction=0.25, labelled_count=10, seed=seed,
            scores={"last": {"dice": dice, "iou": dice - 0.1}}, per_image={},
        )  # fmt: skip
        write_record(record, tmp_path / "results")
    masks = dataclasses.replace(record, method="masks", scores={"SAM": {"dice": 0.6, "iou": 0.5}})
    write_record(masks, tmp_path / "results")
    text = write_results_table(tmp_path).read_text()
    assert "60.0 ± 14.1 (2)" in text  # mean and standard deviation of 50 and 70
    assert "masks" not in text  # nothing was trained there
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["masks", "supervised", "supervised"]


def test_without_records_there_is_no_table(tmp_path):
    assert write_results_table(tmp_path) is None


@pytest.mark.parametrize("output", [".", "notebooks/.."])
def test_sources_are_never_the_output(repository, capsys, output):
    source = repository / "notebooks/00_good.ipynb"
    before = source.read_bytes()
    assert main(["00", "--output", output], root=repository) == 2
    assert "take the place of their sources" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_an_unknown_profile_is_refused(repository, capsys):
    assert main(["00", "-p", "profile", "Paper"], root=repository) == 2
    assert "it is quick or paper" in capsys.readouterr().err


def test_runs_of_other_settings_stand_in_other_tables(tmp_path):
    def write(method, size, seed=0, steps=10):
        record = Record(
            method=method, dataset="Drawn", dataset_fingerprint="f", split_sha256="s" * 64,
            labelled_fraction=0.25, labelled_count=10, seed=seed,
            scores={"last": {"dice": 0.5, "iou": 0.4}}, per_image={},
            parameters={"size": size, "steps": steps},
        )  # fmt: skip
        write_record(record, tmp_path / "results")

    write("supervised", 64)
    write("mining", 352)
    text = write_results_table(tmp_path).read_text()
    assert text.count("IoU by share of labels") == 2
    assert "64 px" in text
    assert "352 px" in text
    write("supervised", 64, seed=1, steps=20)  # it would fall into one cell with the first
    text = write_results_table(tmp_path).read_text()
    assert "No table: " in text
    assert "mining" in text
