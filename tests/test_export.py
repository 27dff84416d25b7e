"""Exported models compute what the originals do; files that cannot be used say why."""

import json
import math

import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_knowsam import TINY, knowsam, mc_seg
from tiny_esp import tiny_esp
from torch import nn

from lib.export import (
    FixedModality,
    ModelFileError,
    OnnxModel,
    export_onnx,
    load_student,
    quantise_int8,
    save_student,
)
from lib.export.onnx import _require_equal
from lib.models import Architecture
from lib.training.esp_medsam import EspConfig, build_student
from lib.training.method import inference
from lib.training.supervised import Supervised, SupervisedConfig

SIZE = 64
UNET_PP = Architecture(
    "unet_pp",
    {
        "encoder": "tu-mobilenetv3_small_100",
        "classes": 3,
        "decoder_channels": [16, 12, 8, 8, 4],
    },
)
UNET = Architecture("unet_2d", {"classes": 2, "widths": [4, 6, 8], "dropouts": [0.1, 0.1, 0.1]})


def images(count, size=SIZE, seed=5):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def supervised(architecture=UNET):
    torch.manual_seed(0)
    return Supervised(SupervisedConfig.quick(), network=architecture.build())


def grown_esp():
    """With a fourth modality, which meets another number of queries than the first three."""
    model = tiny_esp()
    model.add_modality("skin")
    return model


def forgets_batch():
    class ForgetsBatch(nn.Conv2d):
        def forward(self, image):
            return super().forward(image) + torch.zeros(len(image), 2, 1, 1)

    return ForgetsBatch(3, 2, 1)


def branches():
    class Branches(nn.Conv2d):
        def forward(self, image):
            logits = super().forward(image)
            return logits if len(image) == 2 else -logits

    return Branches(3, 2, 1)


# -- ONNX ----------------------------------------------------------------------------------------


def wide_esp():
    """Wide enough beside its two queries for the other ways of `FewTokenAttention`."""
    torch.manual_seed(0)
    return build_student(EspConfig.quick(), modalities=["fundus", "xray"], width=128)


@pytest.mark.parametrize(
    "make",
    [
        lambda: supervised(UNET_PP),
        lambda: mc_seg(classes=3),
        lambda: (
            mc_seg(
                skips_before_convolutions=True, inverted_maps=True, activated_fusion=True
            ).students
        ),
        lambda: FixedModality(tiny_esp(), "xray"),
        lambda: FixedModality(grown_esp(), "xray"),
        lambda: FixedModality(wide_esp(), "xray"),
    ],
    ids=[
        "U-Net++",
        "MC-seg",
        "students as released",
        "ESP-MedSAM",
        "ESP-MedSAM with one more",
        "ESP-MedSAM whose few queries spare the tokens' projections",
    ],
)
def test_onnx_runtime_computes_the_same_for_any_batch(tmp_path, make):
    model = make()
    names = {name: part.training for name, part in model.named_modules()}
    exported = OnnxModel(export_onnx(model, tmp_path / "new" / "model.onnx", size=SIZE))
    assert names == {name: part.training for name, part in model.named_modules()}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]
    for count in (1, 3, 4):
        with inference(model):
            expected = getattr(model, "predict", model)(images(count))
        expected = getattr(expected, "fused", expected)
        found = exported(images(count))
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_one_modality_is_the_model_told_that_modality():
    model = grown_esp()
    with torch.no_grad():
        for name, index in (("xray", 1), ("skin", 3)):
            expected = model(images(2), torch.tensor([index, index])).logits
            torch.testing.assert_close(FixedModality(model, name)(images(2)), expected)
    with pytest.raises(ValueError, match="unknown modality skins; known: fundus, xray, nuclei"):
        FixedModality(model, "skins")
    with pytest.raises(ValueError, match="oracle=True need true masks"):
        FixedModality(tiny_esp(oracle=True), "xray")


def test_a_model_that_asks_for_a_modality_is_told_how_to_be_exported(tmp_path):
    wrap = r"wrap it in FixedModality\(model, NAME\), NAME being one of fundus, xray, nuclei"
    with pytest.raises(ValueError, match=wrap):
        export_onnx(tiny_esp(), tmp_path / "a.onnx", size=SIZE)
    assert not list(tmp_path.iterdir())
    model = FixedModality(tiny_esp(), "xray")
    path = export_onnx(model, tmp_path / "a.onnx", size=SIZE, method="ESP-MedSAM, xray")
    assert OnnxModel(path).card.method == "ESP-MedSAM, xray"


def test_the_file_describes_itself_and_holds_the_student_alone(tmp_path):
    method = knowsam()
    method.teacher.forward = None  # a SAM that cannot be asked
    path = export_onnx(
        method, tmp_path / "a.onnx", size=SIZE, class_names=("background", "polyp"), method="K"
    )
    card = OnnxModel(path).card
    assert (card.size, card.class_names, card.classes) == (SIZE, ("background", "polyp"), 2)
    assert (card.method, card.precision, card.project_version) == ("K", "float32", "0.1.0")
    stored = sum(math.prod(tensor.dims) for tensor in onnx.load(path).graph.initializer)
    assert stored < 1.1 * sum(p.numel() for p in method.students.parameters())


def test_an_export_that_computes_something_else_leaves_no_file(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(ModelFileError, match="differs from the original by up to"):
        export_onnx(branches(), path, size=8)
    with pytest.raises(ModelFileError, match="fails on 3 images"):
        export_onnx(forgets_batch(), path, size=8)
    with pytest.raises(ModelFileError, match="cannot be written as ONNX"):
        export_onnx(nn.Conv2d(3, 2, 1), path, size=8, opset=1000)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="size=30: the model does not take such images"):
        export_onnx(supervised(), path, size=30)
    with pytest.raises(ValueError, match="class_names must be 2"):
        export_onnx(supervised(), path, size=16, class_names=["polyp"])


def test_files_that_are_no_exported_model_are_refused(tmp_path):
    path = export_onnx(nn.Conv2d(3, 2, 1), tmp_path / "a.onnx", size=8)
    with pytest.raises(ValueError, match=r"B x 3 x 8 x 8 for a\.onnx, not 1 x 3 x 4"):
        OnnxModel(path)(images(1, 4))
    with pytest.raises(ModelFileError, match=r"b\.onnx does not exist"):
        OnnxModel(tmp_path / "b.onnx")
    for content in (b"", b"no model", path.read_bytes()[:-40]):
        (tmp_path / "b.onnx").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"b\.onnx is no whole ONNX model"):
            OnnxModel(tmp_path / "b.onnx")
    graph = onnx.load(path)
    for text, message in ((None, "not written by this project"), ("{}", "in an unknown way")):
        del graph.metadata_props[:]
        if text:
            onnx.helper.set_model_props(graph, {"sam_few_labels": text})
        onnx.save(graph, tmp_path / "c.onnx")
        with pytest.raises(ModelFileError, match=message):
            OnnxModel(tmp_path / "c.onnx")


# -- 8 bits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network that has learnt where one channel is brighter, and its images' ONNX file."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 2, 1),
    )
    data = nn.functional.interpolate(images(8, 4), 16, mode="bilinear")
    truth = (data[:, 0] > data[:, 1]).long()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(data), truth).backward()
        optimiser.step()
    path = export_onnx(network, tmp_path_factory.mktemp("onnx") / "a.onnx", size=16)
    return path, data, truth


def test_8_bits_are_smaller_and_nearly_as_right(trained, tmp_path):
    path, data, truth = trained
    small = quantise_int8(path, tmp_path / "b.onnx", data[:4])
    assert small.stat().st_size < 0.5 * path.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["b.onnx"]
    one, other = OnnxModel(path), OnnxModel(small)
    assert (one.card.precision, other.card.precision) == ("float32", "int8")
    assert other.card.size == 16
    masks = one(data).argmax(dim=1)
    assert (masks == truth).float().mean() > 0.95
    assert (other(data).argmax(dim=1) == masks).float().mean() > 0.95
    assert not torch.equal(one(data), other(data))
    with pytest.raises(ModelFileError, match="is int8 already"):
        quantise_int8(small, tmp_path / "c.onnx", data)


def test_calibration_needs_images_of_the_model_s_size(trained, tmp_path):
    path, data, _ = trained
    with pytest.raises(ValueError, match="images is empty"):
        quantise_int8(path, tmp_path / "b.onnx", data[:0])
    with pytest.raises(ValueError, match="images must be B x 3 x 16 x 16"):
        quantise_int8(path, tmp_path / "b.onnx", images(2, 8))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], not in \[0, 255\]"):
        quantise_int8(path, tmp_path / "b.onnx", data.round() * 255)
    assert list(tmp_path.iterdir()) == []


# -- students ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [knowsam, mc_seg])
def test_a_co_training_student_comes_back_without_sam(tmp_path, make):
    method = make(classes=3, entropy_view=False)
    path = save_student(tmp_path / "s.safetensors", method, size=SIZE)
    student = load_student(path, optimise=False)
    with inference(method):
        assert torch.equal(student(images(2)), method.predict(images(2)))
        torch.testing.assert_close(
            load_student(path)(images(2)), method.predict(images(2)), rtol=0, atol=1e-4
        )
    assert (student.card.method, student.card.size) == (type(method).__name__, SIZE)
    assert student.card.class_names == ("background", "class 1", "class 2")
    assert student.architecture.arguments["widths"] == list(TINY["widths"])
    with safe_open(path, framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {  # noqa: SIM118
            "first",
            "second",
            "fusion",
        }


def test_a_network_comes_back_with_its_normalisation(tmp_path):
    method = supervised(UNET_PP)
    method.network.standardise.mean.fill_(0.3)  # as with another encoder's pretrained weights
    path = save_student(
        tmp_path / "s.safetensors", method.network, architecture=UNET_PP, size=SIZE, method="mine"
    )
    student = load_student(path, optimise=False)
    with inference(method):
        assert torch.equal(student(images(2)), method.predict(images(2)))
    assert method.training
    assert student.card.method == "mine"


def test_building_again_downloads_no_weights():
    arguments = {"encoder": "resnet18", "encoder_weights": "imagenet", "classes": 2}
    Architecture("unet", arguments).build()  # a test has no network


def test_what_is_no_student_is_refused(tmp_path):
    method, path = supervised(), tmp_path / "s.safetensors"
    with pytest.raises(ValueError, match="architecture is missing"):
        save_student(path, method.network, size=16)
    with pytest.raises(ValueError, match=r"s\.pt must end in \.safetensors"):
        save_student(tmp_path / "s.pt", method.network, architecture=UNET, size=16)
    wide = Architecture("unet_2d", {"classes": 2, "widths": [4, 6, 9], "dropouts": [0, 0, 0]})
    with pytest.raises(ValueError, match="the weights are not those of Architecture"):
        save_student(path, method.network, architecture=wide, size=16)
    with pytest.raises(ValueError, match="size=30"):
        save_student(path, method.network, architecture=UNET, size=30)
    with pytest.raises(ValueError, match="architecture must be one of unet_pp, "):
        Architecture("transformer")
    with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
        Architecture("unet_2d", {"classes": 2, "depth": 3}).build()
    assert not path.exists()


def test_an_architecture_that_computes_something_else_is_refused(tmp_path):
    """Where skips are taken has no weights of its own: names and shapes cannot tell."""
    torch.manual_seed(0)
    sizes = {"classes": 2, "widths": [4, 6, 8, 10, 12]}
    trained = Architecture("vnet_2d", {**sizes, "skips_before_convolutions": True})
    network, path = trained.build(), tmp_path / "s.safetensors"
    with pytest.raises(ValueError, match="computes something else"):
        save_student(path, network, architecture=Architecture("vnet_2d", sizes), size=16)
    save_student(path, network, architecture=trained, size=16)


def test_a_network_that_broke_down_is_refused(tmp_path):
    network = UNET.build()
    torch.nn.init.constant_(network.decoder.head.bias, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        save_student(tmp_path / "s.safetensors", network, architecture=UNET, size=16)
    with pytest.raises(ValueError, match="not finite"):
        export_onnx(network, tmp_path / "s.onnx", size=16)
    assert not list(tmp_path.iterdir())


def test_an_exported_file_that_broke_down_is_refused():
    def broken(images):
        return torch.full((len(images), 2, 8, 8), torch.nan)

    with pytest.raises(ModelFileError, match="100% of the pixels"):
        _require_equal(broken, torch.rand(3, 3, 8, 8), torch.zeros(3, 2, 8, 8))


def test_files_that_are_no_student_are_refused(tmp_path):
    network, path = UNET.build(), tmp_path / "s.safetensors"
    with pytest.raises(ModelFileError, match="does not exist"):
        load_student(path)
    save_student(path, network, architecture=UNET, size=16)
    whole = path.read_bytes()
    for content in (b"", b"no weights at all", whole[:-8]):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="is no whole safetensors file"):
            load_student(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="not written by this project"):
        load_student(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    other = {"name": "unet_2d", "arguments": {"classes": 2}}
    for text in (json.dumps(other), json.dumps({"name": "perceptron"}), "{", "{}"):
        save_file(tensors, path, {**metadata, "architecture": text})
        with pytest.raises(ModelFileError, match="cannot be built again"):
            load_student(path)
