"""`python -m lib.predict`: a mask and an overlay for each picture, whatever its mode and size."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from pictures import half_mask, picture, save
from PIL import Image
from torch import nn

from lib.data.folder import FolderDataset
from lib.display.style import CLASS_COLOURS
from lib.export import export_onnx, load_student, save_student
from lib.models import Architecture
from lib.predict import folder as prediction
from lib.predict.__main__ import main
from lib.predict.inputs import InputError, claim, find_jobs
from lib.predict.model import PRECISIONS, load_model
from lib.predict.pictures import COLOURS

SIZE = 16
DEEP = np.linspace(0, 4000, 30 * 20).reshape(30, 20).astype(np.uint16)


def brightness(classes=2):
    """Class by brightness in [0, 1]: with two classes the foreground is above 1/2."""
    network = nn.Conv2d(3, classes, 1)
    steps = torch.arange(classes, dtype=torch.float32)
    with torch.no_grad():
        network.weight.copy_((steps / 3)[:, None, None, None].expand_as(network.weight))
        network.bias.copy_(-steps.square() / (2 * (classes - 1)))
    return network


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    return export_onnx(
        brightness(), tmp_path_factory.mktemp("model") / "bright.onnx", size=SIZE, method="hand"
    )


def read(path):
    with Image.open(path) as opened:
        return opened.mode, np.array(opened)


def half_bright(path, **options):
    """The left third white; saved with any mode and size."""
    return save(path, half_mask(shape=(48, 72)), **options)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_pictures_of_every_mode_at_their_own_size(tmp_path, bright, capsys):
    source, output = tmp_path / "images", tmp_path / "new" / "output"
    for mode in ("L", "RGB", "RGBA", "P", "1"):
        half_bright(source / f"{mode}.png", mode=mode)
    half_bright(source / "deeper" / "photo.jpg", mode="RGB", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6
    half_bright(source / "deeper" / "turned.jpg", quality=95, exif=turned)
    save(source / "deep.tif", DEEP)
    save(source / ".hidden.png", half_mask())
    (source / "notes.txt").write_text("no picture")
    assert run(bright, source, "--output", output, "--batch", 3) == 0
    said = capsys.readouterr().out
    assert said.startswith("8 pictures in ")
    assert "images/s; classes: background, foreground" in said

    expected = half_mask(shape=(48, 72))
    for name in ("L", "RGB", "RGBA", "P", "1", "deeper/photo"):
        mode, mask = read(output / "masks" / f"{name}.png")
        assert (mode, set(np.unique(mask))) == ("L", {0, 255})
        assert mask.shape == expected.shape
        assert (mask == expected).mean() > 0.95
        mode, overlay = read(output / "overlays" / f"{name}.png")
        assert mode == "RGB"
        green = np.array([0x00, 0x9E, 0x73])
        np.testing.assert_allclose(overlay[24, 4], 0.55 * 255 + 0.45 * green, atol=3)
        assert overlay[24, 60].max() <= 3
    mask = read(output / "masks/deeper/turned.png")[1]
    assert (mask == np.rot90(expected, -1)).mean() > 0.95
    mask = read(output / "masks/deep.png")[1]
    assert (mask == np.where(DEEP > 2000, 255, 0)).mean() > 0.95
    assert len(list(output.rglob("*.png"))) == 16


def small_unet(classes):
    """A U-Net with random weights, and what built it."""
    torch.manual_seed(0)
    settings = {"classes": classes, "widths": [4, 6, 8], "dropouts": [0, 0, 0]}
    architecture = Architecture("unet_2d", settings)
    network = architecture.build()
    nn.init.normal_(network.decoder.head.weight)
    return network, architecture


def test_a_student_sees_what_it_saw_in_training(tmp_path):
    network, architecture = small_unet(classes=4)
    names = ("background", "a", "b", "c")
    model = save_student(
        tmp_path / "s.safetensors", network, architecture=architecture, size=SIZE, class_names=names
    )
    shapes = [(40, 60, 3), (33, 21, 3), (16, 16), (90, 50)]
    for number, shape in enumerate(shapes):
        save(tmp_path / "data" / "images" / f"{number}.png", picture(number, shape))
        save(tmp_path / "data" / "masks" / f"{number}.png", half_mask(1, shape=shape[:2]))
    exactly = ("--device", "cpu", "--precision", "float32")
    arguments = (model, tmp_path / "data" / "images", "--output", tmp_path / "out", *exactly)
    assert run(*arguments, "--no-overlay") == 0
    dataset = FolderDataset(tmp_path / "data", size=SIZE)
    student = load_student(model)
    seen = set()
    for number, shape in enumerate(shapes):
        mode, mask = read(tmp_path / "out" / "masks" / f"{number}.png")
        logits = student(dataset.image(number)[None])
        larger = nn.functional.interpolate(logits, shape[:2], mode="bilinear")
        assert mode == "P"
        assert (mask == larger[0].argmax(dim=0).numpy()).mean() > 0.999
        seen |= set(np.unique(mask))
    assert len(seen) > 1
    assert not (tmp_path / "out" / "overlays").exists()
    with Image.open(tmp_path / "out" / "masks" / "0.png") as opened:
        palette = np.array(opened.getpalette()[:12]).reshape(4, 3)
    assert ["#{:02X}{:02X}{:02X}".format(*colour) for colour in palette] == [
        "#000000",
        *CLASS_COLOURS[:3],
    ]
    assert COLOURS == CLASS_COLOURS
    assert run(*arguments, "--size", 32) == 0


def test_more_classes_get_their_numbers(tmp_path):
    model = export_onnx(brightness(3), tmp_path / "a.onnx", size=SIZE)
    grey = np.repeat(np.array([[10, 128, 245]], np.uint8), 20, axis=0).repeat(20, axis=1)
    save(tmp_path / "grey.png", grey)
    assert run(model, tmp_path / "grey.png", "--output", tmp_path / "out") == 0
    mask = read(tmp_path / "out" / "masks" / "grey.png")[1]
    assert [mask[10, column] for column in (5, 30, 55)] == [0, 1, 2]


def test_broken_pictures_are_named_and_the_others_are_written(tmp_path, bright, capsys):
    source, output = tmp_path / "images", tmp_path / "out"
    for name in ("a", "b", "c", "d"):
        half_bright(source / f"{name}.png")
    whole = (source / "b.png").read_bytes()
    (source / "b.png").write_bytes(whole[: len(whole) // 2])
    (source / "c.png").write_text("<html>not found</html>")
    pages = [Image.fromarray(half_mask()) for _ in range(2)]
    pages[0].save(source / "e.tif", save_all=True, append_images=pages[1:])
    assert run(bright, source, "--output", output) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("2 pictures in ")
    assert "3 pictures could not be read" in captured.err
    for name, reason in {"b.png": "Truncated", "c.png": "Text", "e.tif": "Several pages"}.items():
        assert f"{source / name}: {reason}" in captured.err
    assert sorted(path.name for path in (output / "masks").glob("*.png")) == ["a.png", "d.png"]


def test_running_again_replaces_results_and_leaves_them_out_of_the_search(tmp_path, bright):
    half_bright(tmp_path / "a.png")
    output = tmp_path / "results"
    for _ in range(2):
        assert run(bright, tmp_path, "--output", output) == 0
        found = sorted(str(p.relative_to(output)) for p in output.rglob("*.png"))
        assert found == ["masks/a.png", "overlays/a.png"]
    (output / "masks" / "a.png").write_text("old")
    assert run(bright, tmp_path, "--output", output) == 0
    assert read(output / "masks" / "a.png")[0] == "L"


def test_names_stay_apart(tmp_path):
    for name in ("one/1.png", "two/1.png", "two/deeper/1.png"):
        save(tmp_path / name, picture())
    inputs = [tmp_path / "one", tmp_path / "two", tmp_path / "two" / "1.png"]
    masks = [job.mask.relative_to("out/masks").as_posix() for job in find_jobs(inputs, "out")]
    assert masks == ["one/1.png", "two/1.png", "two/deeper/1.png"]
    save(tmp_path / "two" / "1.jpg", picture())
    with pytest.raises(InputError, match=r"would have the same mask.*\n.*1\.jpg and .*1\.png"):
        find_jobs([tmp_path / "two"], "out")
    with pytest.raises(InputError, match="would have the same mask"):
        find_jobs([tmp_path / "one/1.png", tmp_path / "two/1.png"], "out")
    claim(tmp_path / "x")
    save(tmp_path / "x" / "masks" / "1.png", picture())
    with pytest.raises(InputError, match="would be overwritten"):
        find_jobs([tmp_path / "x" / "masks" / "1.png"], tmp_path / "x")


def test_masks_of_others_are_never_overwritten(tmp_path, bright, capsys):
    """A data set's own folder as the output: its masks/ holds what was drawn by hand."""
    half_bright(tmp_path / "images" / "a.png")
    truth = save(tmp_path / "masks" / "a.png", half_mask())
    before = truth.read_bytes()
    assert run(bright, tmp_path / "images" / "a.png", "--output", tmp_path) == 2
    assert "no results of this program" in capsys.readouterr().err
    assert truth.read_bytes() == before


def test_pictures_below_the_output_are_found(tmp_path, bright):
    half_bright(tmp_path / "images" / "a.png")
    for _ in range(2):
        assert run(bright, tmp_path, "--output", tmp_path) == 0
    assert (tmp_path / "masks" / "images" / "a.png").is_file()
    assert not (tmp_path / "masks" / "masks").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "nowhere", "nothing.png"], "There is nothing at:\n  - nowhere\n  - nothing.png"),
        (["MODEL", "empty"], "There is no picture (.bmp, "),
        (["gone.onnx", "image.png"], "gone.onnx does not exist"),
        (["gone.safetensors", "image.png"], "gone.safetensors does not exist"),
        (["image.png", "image.png"], "is neither .safetensors"),
        (["MODEL", "image.png", "--size", "30"], "of 30 px (--size): images must be"),
        (["MODEL", "image.png", "--device", "cuda"], "ONNX models run on the CPU"),
    ],
)
def test_wrong_requests_write_nothing(tmp_path, bright, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    half_bright(tmp_path / "image.png")
    arguments = [bright if argument == "MODEL" else argument for argument in arguments]
    assert run(*arguments, "--output", "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_size_is_not_blamed_where_none_was_given(tmp_path, student, capsys, monkeypatch):
    def short_of_memory(*arguments, **settings):
        raise RuntimeError("out of memory")

    half_bright(tmp_path / "image.png")
    monkeypatch.setattr("lib.export.student.Student.__call__", short_of_memory)
    assert run(student, tmp_path / "image.png", "--output", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "a.safetensors cannot be run on images of 32 px (the size of its training)" in message
    assert "out of memory; try --device cpu" in message


@pytest.fixture
def student(tmp_path):
    """A small U-Net with random weights."""
    network, architecture = small_unet(classes=2)
    return save_student(tmp_path / "a.safetensors", network, architecture=architecture, size=32)


def test_precision_of_a_student(student):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, half = (load_model(student, device="cpu", precision=p) for p in PRECISIONS[1:])
    assert torch.equal(load_model(student, device="cpu")(x), exact(x))
    assert exact(x).dtype == half(x).dtype == torch.float32
    error = (half(x) - exact(x)).norm() / exact(x).norm()
    assert 1e-5 < error < 0.1  # rounded to 8 bits
    assert all(p.dtype == torch.float32 for p in half.network.parameters())
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, not"):
        load_model(student, precision="float16")


@pytest.mark.parametrize(
    ("found", "half"),
    [({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_precision_is_chosen_by_the_processor(student, tmp_path, capsys, monkeypatch, found, half):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert load_model(student, device="cpu", precision="auto").half is half
    half_bright(tmp_path / "images" / "one.png")
    assert run(student, tmp_path / "images", "--output", tmp_path / "out", "--device", "cpu") == 0
    assert ("images/s, bfloat16;" in capsys.readouterr().out) is half


def test_an_onnx_model_computes_as_exported(tmp_path, bright, capsys):
    half_bright(tmp_path / "one.png")
    asked = (bright, tmp_path / "one.png", "--output", tmp_path / "out", "--precision")
    assert run(*asked, "bfloat16") == 2
    assert "compute as exported" in capsys.readouterr().err
    assert run(*asked, "auto") == 0


def test_numbers_out_of_range_are_usage_errors(capsys):
    for option in ("--batch", "--size"):
        with pytest.raises(SystemExit) as stopped:
            run("a.onnx", "b.png", "--output", "out", option, "0")
        assert stopped.value.code == 2
        assert "must be a whole number from 1, not 0" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_said(tmp_path, bright, capsys):
    half_bright(tmp_path / "a.png")
    (tmp_path / "out").write_text("a file where the folder should be")
    assert run(bright, tmp_path / "a.png", "--output", tmp_path / "out") == 1
    assert "a result could not be written" in capsys.readouterr().err


def test_pictures_are_batched_and_few_are_held(tmp_path, monkeypatch):
    for number in range(23):
        half_bright(tmp_path / f"{number}.png")
    held, most, batches = set(), [], []
    real_read, real_write = prediction._read, prediction._write

    def reading(job, size):
        held.add(job.picture)
        return real_read(job, size)

    def writing(one, *rest):
        real_write(one, *rest)
        held.discard(one.job.picture)

    monkeypatch.setattr(prediction, "_read", reading)
    monkeypatch.setattr(prediction, "_write", writing)
    network = brightness()

    def model(images):
        most.append(len(held))
        batches.append(len(images))
        with torch.no_grad():
            return network(images)

    jobs = find_jobs([tmp_path], tmp_path / "out")
    report = prediction.predict_pictures(model, jobs, size=SIZE, batch=4)
    assert batches == [4, 4, 4, 4, 4, 3]
    assert max(most) <= 3 * 4
    assert (report.written, report.unreadable) == (23, [])
    assert report.rate == pytest.approx(23 / report.seconds)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        prediction.predict_pictures(model, jobs, size=SIZE, batch=0)


def test_results_of_any_run_below_the_input_are_no_pictures(tmp_path, bright):
    half_bright(tmp_path / "a.png")
    for name in ("one", "two"):
        assert run(bright, tmp_path, "--output", tmp_path / name) == 0
    assert len(list((tmp_path / "two").rglob("*.png"))) == 2
    named = find_jobs([tmp_path / "one" / "overlays"], tmp_path / "three")  # asked for by name
    assert [job.picture.name for job in named] == ["a.png"]


def test_the_module_runs(tmp_path, bright):
    half_bright(tmp_path / "a.png")
    command = [sys.executable, "-m", "lib.predict", bright, tmp_path, "--output", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 pictures in ")
    assert (tmp_path / "out" / "masks" / "a.png").exists()
