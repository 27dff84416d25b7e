import huggingface_hub.constants
import pytest
import torch

from lib.models import build_unet, build_unet_pp

SMALL = {"encoder": "tu-mobilenetv3_small_050", "decoder_channels": (16, 16, 8, 8, 8)}


@pytest.mark.parametrize("build", [build_unet, build_unet_pp])
def test_logits_have_the_size_of_the_image_and_every_weight_a_gradient(build):
    network = build(**SMALL, classes=3)
    logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_default_is_resnet18_with_random_weights():
    torch.manual_seed(0)
    first = build_unet_pp()
    torch.manual_seed(1)
    second = build_unet_pp()
    weight = "network.encoder.conv1.weight"
    assert not torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert sum(p.numel() for p in first.network.encoder.parameters()) == 11_176_512  # ResNet-18


def test_unet_pp_has_the_nested_decoder_that_unet_lacks():
    def nodes(network):
        return {name.split(".")[0] for name, _ in network.network.decoder.blocks.named_parameters()}

    # Five levels: a triangle of 4 + 3 + 2 + 1 nodes x_i_j and the last one at full resolution.
    triangle = {f"x_{depth}_{layer}" for layer in range(4) for depth in range(layer + 1)}
    assert nodes(build_unet_pp(**SMALL)) == triangle | {"x_0_4"}
    assert nodes(build_unet(**SMALL)) == {"0", "1", "2", "3", "4"}


def test_images_in_unit_range_are_normalised_inside():
    network = build_unet(**SMALL)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    image = torch.rand(1, 3, 32, 32)
    seen = []
    network.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(torch.cat([image, image]))
    torch.testing.assert_close(seen[0][0], (image[0] - mean) / std)


def test_one_channel_images():
    network = build_unet(**SMALL, in_channels=1).eval()
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_weights_that_cannot_be_downloaded_name_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=r"resnet18 could not be downloaded.*encoder_weights=None"):
        build_unet_pp(encoder_weights="imagenet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "resnet1000"}, "encoder='resnet1000'.*Wrong encoder name"),
        ({"encoder": "tu-nothing"}, "encoder='tu-nothing'.*Unknown model"),
        ({"encoder_weights": "mine"}, "encoder_weights='mine'.*Wrong pretrained weights"),
        ({"encoder": "tu-resnet18", "encoder_weights": "a1"}, "part of the encoder's name"),
        ({"classes": 1}, "classes counts the background"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_unet_pp(**arguments)
