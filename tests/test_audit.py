"""The audit: the numbers of its table, its problems, the contact sheet, the command line."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.data.audit import audit, contact_sheet, main
from lib.data.folder import FolderDataset
from lib.data.splits import Split, save_split
from lib.display.style import use_style


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of 40 x 30: n3 copies n1, n4 is a paler n2, n5 is grey, n6's mask is empty."""
    pixels = {}
    for number in range(10):
        coarse = np.random.default_rng(number).integers(0, 250, (6, 8, 3), np.uint8)
        pixels[number] = np.kron(coarse, np.ones((5, 5, 1))).astype(np.uint8)
    pixels[3] = pixels[1]
    pixels[4] = (pixels[2] * 0.9 + 9).astype(np.uint8)
    pixels[5] = pixels[5][..., 0]
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number in range(10):
        Image.fromarray(pixels[number]).save(tmp_path / "set" / "images" / f"n{number}.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[: 3 * number if number != 6 else 0] = 255  # share of the foreground: number / 10
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"n{number}.png")
    return tmp_path / "set"


def test_table_and_problems(folder):
    split = Split(["n1", "n2", "n5", "n6"], ["n3"], ["n4", "n7", "n8", "n9"])
    report = audit(FolderDataset(folder), split)
    table = report.table
    assert list(table.columns) == ["all", "train", "val", "test"]
    assert table.loc["images"].tolist() == ["10", "4", "1", "4"]
    assert table.loc["width, px (min / median / max)", "all"] == "40 / 40 / 40"
    assert table.loc["height, px (min / median / max)", "test"] == "30 / 30 / 30"
    assert table.loc["modes", "all"] == "RGB 9, L 1"
    assert table.loc["empty masks"].tolist() == ["2", "1", "0", "0"]  # n0 and n6
    shares = np.array([4, 7, 8, 9]) / 10
    expected = " / ".join(f"{100 * np.quantile(shares, q):.1f}" for q in (0.05, 0.5, 0.95))
    assert table.loc["foreground, % (5th / 50th / 95th)", "test"] == expected
    assert report.exact == [("n1", "n3")]
    assert report.near == [("n2", "n4")]
    assert table.loc["exact duplicates, pairs"].tolist() == ["1", "0", "0", "0"]
    assert table.loc["duplicates in other parts"].tolist() == ["0", "2", "1", "1"]
    assert "exact duplicates in two parts (leak): n1 (train), n3 (val)" in report.problems
    assert "near duplicates in two parts (leak): n2 (train), n4 (test)" in report.problems
    assert "PROBLEM: exact duplicates in two parts" in str(report)


def test_own_parts_groups_and_classes(folder):
    rows = [f"n{i},{'train' if i < 6 else 'test'},p{i // 4}" for i in range(10)]
    (folder / "index.csv").write_text("\n".join(["stem,split,patient", *rows]))
    report = audit(FolderDataset(folder, classes=2))
    assert list(report.table.columns) == ["all", "train", "test"]
    assert "group p1 stands in several parts (leak)" in report.problems
    assert any("1 near duplicates of different groups: n2 and n4" in p for p in report.problems)
    clean = FolderDataset(folder)
    clean.names, clean.splits, clean.groups = clean.names[5:], clean.splits[5:], clean.groups[5:]
    clean.classes = 3
    assert "no mask has the classes [2]" in audit(clean).problems


@pytest.mark.parametrize(
    ("rows", "message"),
    [(28, "half of the masks cover more than 93% of the picture: are they inverted?"),
     (0, "100% of the masks are empty: a network that finds nothing scores a Dice of 100%"),
     (12, None)],
)  # fmt: skip
def test_masks_that_are_mostly_full_or_empty_are_a_problem(folder, rows, message):
    for path in (folder / "masks").iterdir():
        mask = np.zeros((30, 40), np.uint8)
        mask[:rows] = 255
        Image.fromarray(mask).save(path)
    text = "\n".join(audit(FolderDataset(folder)).problems)
    assert (message in text) if message else ("masks" not in text)


def test_a_picture_damaged_inside_is_a_problem_not_an_error(folder):
    dataset = FolderDataset(folder)
    path = folder / "images" / "n7.png"
    path.write_bytes(path.read_bytes()[:200])
    report = audit(dataset)
    assert len(report.images) == 9
    assert any("n7.png cannot be decoded" in problem for problem in report.problems)


@pytest.mark.parametrize("broken", [1, 10])
def test_the_command_line_reports_pictures_damaged_inside(folder, tmp_path, capsys, broken):
    """Whole at their ends, so that the folder opens: some, or all of them."""
    for number in range(broken):
        path = folder / "images" / f"n{number}.png"
        jpeg = path.with_suffix(".jpg")
        Image.open(path).convert("RGB").save(jpeg)
        path.unlink()
        content = bytearray(jpeg.read_bytes())
        table = content.index(b"\xff\xc4") + 5  # of the Huffman codes
        content[table : table + 16] = b"\xff" * 16
        jpeg.write_bytes(content)
    assert main([str(folder), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.count("cannot be decoded") == broken
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_contact_sheet_shows_pictures_with_outlines(folder, tmp_path):
    figure = contact_sheet(FolderDataset(folder), 5, columns=3)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["n0", "n2", "n4", "n7", "n9"]
    assert [bool(axes.collections) for axes in shown] == [False, True, True, True, True]
    figure.savefig(tmp_path / "sheet.png")
    assert np.asarray(Image.open(tmp_path / "sheet.png").convert("L")).std() > 10


def test_contact_sheet_keeps_its_margins_in_a_notebook(folder, recwarn):
    with mpl.rc_context():
        use_style()
        contact_sheet(FolderDataset(folder), 5).canvas.draw()
    assert not [warning for warning in recwarn if "layout" in str(warning.message)]


def test_command_line(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert main([str(folder), "--output", str(output)]) == 1  # duplicates are problems
    assert "| images " in capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {
        "audit.md",
        "images.csv",
        "contact_sheet.png",
    }
    assert pd.read_csv(output / "images.csv").foreground.tolist()[:3] == pytest.approx(
        [0, 0.1, 0.2], abs=0.01
    )
    save_split(Split(["n0"], ["n1"], ["n3"]), tmp_path / "split.json")
    assert main([str(folder), "--split", str(tmp_path / "split.json")]) == 1
    assert "n1 (val), n3 (test)" in capsys.readouterr().out
    (folder / "images" / "n1.png").unlink()
    (folder / "images" / "n0.png").write_bytes(b"")
    assert main([str(folder)]) == 2
    message = capsys.readouterr().err
    assert "images/n0.png" in message
    assert "masks/n1.png" in message
