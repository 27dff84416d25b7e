import pytest
import torch
from torch.nn import functional

from lib.models.unet_2d import UNet2d
from lib.models.vnet_2d import VNet2d

TINY = {"classes": 3, "widths": (4, 6, 8, 10, 12)}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_those_of_the_published_subnets():
    assert parameters(UNet2d(classes=2)) == 1_944_322
    assert parameters(VNet2d(classes=2)) == 3_265_986


@pytest.mark.parametrize("network", [UNet2d, VNet2d])
def test_logits_have_the_size_of_the_image_and_every_weight_a_gradient(network):
    network = network(**TINY)
    image = torch.rand(2, 3, 32, 48)
    features = network.encode(image)
    sizes = [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(f.shape) for f in features] == [
        (2, width, *size) for width, size in zip(TINY["widths"], sizes, strict=True)
    ]
    logits = network(image)
    assert logits.shape == (2, 3, 32, 48)
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("network", [UNet2d, VNet2d])
def test_forward_is_decode_of_encode(network):
    network = network(**TINY).eval()
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network(image), network.decode(network.encode(image)))


@pytest.mark.parametrize("network", [UNet2d, VNet2d])
def test_sides_must_divide_by_sixteen(network):
    with pytest.raises(ValueError, match=r"image is 32 x 40.*multiples of 16"):
        network(**TINY)(torch.rand(1, 3, 32, 40))


@pytest.mark.parametrize("network", [UNet2d, VNet2d])
def test_one_class_is_refused(network):
    with pytest.raises(ValueError, match="classes counts the background"):
        network(classes=1)


def test_one_number_a_level():
    with pytest.raises(ValueError, match="dropouts must be one number a level"):
        UNet2d(classes=2, widths=(4, 8), dropouts=(0.1,))
    with pytest.raises(ValueError, match="convolutions must be one number a level"):
        VNet2d(classes=2, widths=(4, 8), convolutions=(1,))


def test_unet_of_two_levels_by_hand():
    network = UNet2d(classes=2, widths=(4, 6), dropouts=(0, 0)).eval()
    image = torch.rand(1, 3, 4, 4)
    first = network.encoder.levels[0](image)
    second = network.encoder.levels[1](functional.max_pool2d(first, 2))
    up = network.decoder.ups[0](second)
    decoded = network.decoder.blocks[0](torch.cat([first, up], dim=1))
    torch.testing.assert_close(network(image), network.decoder.head(decoded))
    [level] = network.decoder.levels([first, second])
    torch.testing.assert_close(level, decoded)


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_unet_with_interpolation_has_a_decoder_of_its_own(upsampling):
    network = UNet2d(**TINY, upsampling=upsampling)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 3, 16, 16)
    assert parameters(network) < parameters(UNet2d(**TINY))
    with pytest.raises(ValueError, match="upsampling must be one of"):
        UNet2d(**TINY, upsampling="cubic")


@pytest.mark.parametrize("before", [False, True])
def test_vnet_of_three_levels_by_hand(before):
    network = VNet2d(
        classes=2, widths=(4, 6, 8), convolutions=(1, 2, 3), skips_before_convolutions=before
    ).eval()
    image = torch.rand(1, 3, 8, 8)
    first = network.levels[0](image)
    entering = network.downs[0](first)
    second = network.levels[1](entering)
    third = network.levels[2](network.downs[1](second))
    skip = entering if before else second
    current = network.decoder_levels[0](network.ups[0](third) + skip)
    current = network.decoder_levels[1](network.ups[1](current) + first)
    torch.testing.assert_close(network(image), network.head(current))


def test_vnet_drops_channels_only_in_training_and_only_if_asked():
    image = torch.rand(1, 3, 16, 16)
    plain, dropping = VNet2d(**TINY), VNet2d(**TINY, dropout=0.5)
    assert torch.equal(plain(image), plain(image))
    assert not torch.equal(dropping(image), dropping(image))
    dropping.eval()
    assert torch.equal(dropping(image), dropping(image))
