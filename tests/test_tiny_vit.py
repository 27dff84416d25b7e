"""The light encoder: shapes and counts, controllers against a plain loop, MobileSAM's weights."""

import pytest
import torch
from timm.models.tiny_vit import Attention, TinyVitBlock
from tiny_esp import NAMES, WIDTH, images, tiny_encoder
from tiny_sam import fill

from lib.models.mobile_sam_weights import load_mobile_sam, timm_name
from lib.models.modality_controller import BlockController, attend, run_block
from lib.models.tiny_vit import TinyVitEncoder, TinyVitShape


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    return TinyVitEncoder(modalities=("one",)).eval()


def test_parameters_are_those_of_the_released_code(full):
    assert size(full.backbone) == 5_071_124
    assert size(full.neck) == 672_768
    assert size(full.controllers[0]) == 3_144_202
    assert len(full.controllers[0].blocks) == 10


def test_separate_tokens_cost_one_token_a_block_more(full):
    separate = TinyVitEncoder(modalities=("one",), separate_tokens=True)
    more = 2 * 128 + 6 * 160 + 2 * 320
    assert size(separate.controllers[0]) == size(full.controllers[0]) + more


def test_controllers_start_as_released(full):
    for block in full.controllers[0].blocks:
        assert block.bias.item() == 0
        assert 0.07 < block.key.abs().max() <= 0.0875
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


@torch.no_grad()
def test_embedding_has_stride_16(full):
    assert full(torch.rand(1, 3, 64, 96), torch.tensor([0])).shape == (1, 256, 4, 6)


@torch.no_grad()
@pytest.mark.parametrize("side", [256, 512, 1024])
def test_image_sizes(side):
    shape = TinyVitShape(dims=(4, 4, 4, 4), depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))
    encoder = TinyVitEncoder(modalities=NAMES, width=8, shape=shape).eval()
    grid = encoder(torch.rand(1, 3, side, side), torch.tensor([2])).shape
    assert grid == (1, 8, side // 16, side // 16)


@torch.no_grad()
def test_without_controllers_it_is_timms_network_and_the_neck():
    encoder = tiny_encoder()
    x = images()
    plain = encoder.neck(encoder.backbone(encoder.standardise(x))[-1])
    torch.testing.assert_close(encoder(x), plain)
    assert (encoder(x) - encoder(x, torch.tensor([0, 1, 2, 0]))).abs().max() > 0.1


# -- attention -------------------------------------------------------------------------------------


def plain_attention(attention, window, controller):
    """One window (tokens x C), one controller: every head and every query by itself."""
    x = attention.norm(window)
    qkv = attention.qkv(x).view(len(window), attention.num_heads, -1)
    side = round(len(window) ** 0.5)
    out = torch.zeros(len(window), attention.num_heads, attention.val_dim)
    for head in range(attention.num_heads):
        q, k, v = qkv[:, head].split(attention.key_dim, dim=1)
        k = torch.cat([k, controller.key[head]])
        v = torch.cat([v, controller.value[head]])
        for i in range(len(window)):
            logits = torch.zeros(len(window) + 1)
            for j in range(len(window)):
                rows, columns = abs(i // side - j // side), abs(i % side - j % side)
                # timm numbers the offsets in the order in which the first query meets them
                offset = attention.attention_biases[head, rows * side + columns]
                logits[j] = q[i] @ k[j] / attention.key_dim**0.5 + offset
            logits[-1] = q[i] @ k[-1] / attention.key_dim**0.5 + controller.bias[0]
            out[i, head] = logits.softmax(0) @ v
    return attention.proj(out.flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("separate", [False, True])
def test_token_attention_equals_a_plain_loop_for_each_sample(separate):
    attention = Attention(12, 4, num_heads=3, attn_ratio=1, resolution=(3, 3))
    fill(attention, seed=1)
    controllers = []
    for seed in (2, 3):
        controllers.append(BlockController(width=12, heads=3, separate_tokens=separate))
        fill(controllers[-1], seed)
    windows = torch.randn(5, 9, 12, generator=torch.Generator().manual_seed(4))
    parts = [(slice(0, 3), controllers[0]), (slice(3, 5), controllers[1])]
    expected = torch.stack(
        [plain_attention(attention, w, controllers[i >= 3]) for i, w in enumerate(windows)]
    )
    qkv = attention.qkv(attention.norm(windows))
    torch.testing.assert_close(attention.proj(attend(attention, qkv, parts)), expected)


@pytest.mark.parametrize("grid", [(7, 7), (4, 6), (9, 14)])
def test_a_controller_that_attention_cannot_see_only_adds_its_mlp(grid):
    block = TinyVitBlock(12, 3, window_size=7)
    controller = BlockController(width=12, heads=3)
    fill(block, seed=1)
    fill(controller, seed=2)
    block.eval()
    middle = []
    block.local_conv.register_forward_hook(lambda module, inputs, output: middle.append(output))
    x = torch.randn(2, *grid, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        controller.bias.fill_(-1e9)
        plain = block(x)
        controlled = run_block(block, x, [(slice(0, 2), controller)])
        own = controller.mlp(middle[0].permute(0, 2, 3, 1))
    torch.testing.assert_close(controlled, plain + own)
    assert own.abs().max() > 0.1


def test_operations_can_be_counted_without_weights():
    with torch.device("meta"):
        block, x = TinyVitBlock(12, 3, window_size=7), torch.rand(2, 9, 10, 12)
        assert run_block(block, x, [(slice(0, 2), None)]).shape == x.shape


def test_padding_as_one_token_has_the_gradient_of_the_padding():
    block = TinyVitBlock(12, 3, window_size=7)
    fill(block, seed=1)
    block.eval()  # running statistics: the gradients are those of the attention
    x = torch.randn(2, 9, 12, 12, generator=torch.Generator().manual_seed(3))
    gradients = []
    for run in (block, lambda x: run_block(block, x, [(slice(0, 2), None)])):
        block.zero_grad()
        block.attn.attention_bias_cache = {}
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in block.attn.parameters()])
    for ours, timms in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(ours, timms, rtol=1e-4, atol=1e-4 * timms.abs().max().item())


# -- mixed batches ---------------------------------------------------------------------------------


@torch.no_grad()
def test_a_mixed_batch_gives_each_image_what_it_gets_alone():
    encoder = tiny_encoder()
    x, modality = images(6), torch.tensor([2, 0, 1, 0, 2, 1])
    together = encoder(x, modality)
    alone = torch.cat([encoder(x[i : i + 1], modality[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[:1] - encoder(x[:1], torch.tensor([1]))).abs().max() > 0.1


def test_only_controllers_of_the_modalities_in_the_batch_get_a_gradient():
    encoder = tiny_encoder()
    encoder(images(3), torch.tensor([2, 0, 2])).square().sum().backward()
    for index, expected in enumerate([True, False, True]):
        controller = encoder.controllers[index]
        assert all((p.grad is not None) == expected for p in controller.parameters())
    assert all(p.grad is not None for p in encoder.shared_parameters())


@torch.no_grad()
def test_a_new_modality_leaves_the_old_ones_bit_identical():
    encoder = tiny_encoder()
    x, modality = images(), torch.tensor([1, 0, 2, 1])
    before = encoder(x, modality)
    assert encoder.add_modality("dermoscopy") == 3
    assert encoder.modalities == (*NAMES, "dermoscopy")
    assert torch.equal(encoder(x, modality), before)
    assert not torch.equal(encoder(x, torch.full((4,), 3)), before)


@torch.no_grad()
def test_weights_loaded_in_evaluation_mode_take_effect():
    one, other = tiny_encoder(), tiny_encoder(seed=5)
    x, modality = images(2), torch.tensor([0, 1])
    one(x, modality)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(x, modality), other(x, modality))


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        (torch.tensor([0, 3]), r"unknown modality \[3\]; known: 0 fundus, 1 xray, 2 nuclei"),
        (torch.tensor([-1, 0]), r"unknown modality \[-1\].*EspMedSam.resolve.*add_modality"),
        (torch.tensor([0]), r"one int64 index an image, \(2,\)"),
        (torch.tensor([0.0, 1.0]), "int64 index"),
    ],
)
def test_unknown_modalities_are_refused(modality, message):
    with pytest.raises(ValueError, match=message):
        tiny_encoder()(images(2), modality)


def test_sizes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"64 x 80 px: both sides must be multiples of 32"):
        tiny_encoder()(torch.rand(1, 3, 64, 80))
    with pytest.raises(ValueError, match="'xray' already: fundus, xray, nuclei"):
        tiny_encoder().add_modality("xray")


# -- MobileSAM's weights ---------------------------------------------------------------------------


def mobile_sam_name(key):
    """The name in MobileSAM's file of a tensor of ours, written from MobileSAM's own layout."""
    part, key = key.split(".", 1)
    if part == "neck":
        return f"image_encoder.neck.{key}"
    head, rest = key.split(".", 1)
    if head == "patch_embed":
        rest = rest.replace("conv1.", "seq.0.").replace("conv2.", "seq.2.")
    elif rest.startswith("downsample"):
        head = f"layers.{int(head[-1]) - 1}"
    else:
        head = f"layers.{head[-1]}"
    return f"image_encoder.{head}.{rest.replace('.conv.', '.c.')}"


def mobile_sam_state(encoder):
    tensors = {
        f"{part}.{key}": tensor
        for part in ("backbone", "neck")
        for key, tensor in getattr(encoder, part).state_dict().items()
    }
    state = {mobile_sam_name(key): tensor for key, tensor in tensors.items()}
    state |= {"image_encoder.head.weight": torch.zeros(2), "mask_decoder.x": torch.zeros(1)}
    state |= {"image_encoder.norm_head.bias": torch.zeros(2)}
    return state


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("patch_embed.seq.2.bn.running_mean", "backbone.patch_embed.conv2.bn.running_mean"),
        ("layers.0.blocks.1.conv3.c.weight", "backbone.stages_0.blocks.1.conv3.conv.weight"),
        ("layers.2.downsample.conv2.c.weight", "backbone.stages_3.downsample.conv2.conv.weight"),
        (
            "layers.3.blocks.0.attn.attention_biases",
            "backbone.stages_3.blocks.0.attn.attention_biases",
        ),
        ("neck.2.weight", "neck.2.weight"),
    ],
)
def test_names_of_mobile_sam(theirs, ours):
    assert timm_name(theirs) == ours


@torch.no_grad()
def test_all_292_tensors_of_mobile_sam_are_taken(full):
    names = {f"backbone.{key}" for key in full.backbone.state_dict()}
    assert len(names) == 292
    assert {timm_name(mobile_sam_name(key)[len("image_encoder.") :]) for key in names} == names


@torch.no_grad()
def test_mobile_sams_weights_replace_all_but_the_controllers():
    source, target = tiny_encoder(seed=1), tiny_encoder(seed=2)
    before = [p.clone() for p in target.controllers.parameters()]
    load_mobile_sam(target, mobile_sam_state(source))
    assert torch.equal(target(images()), source(images()))
    after = target.controllers.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("image_encoder.neck.0.weight"), "1 missing: neck.0.weight$"),
        (lambda s: s.update({"image_encoder.a.b": torch.zeros(1)}), "1 unexpected: backbone.a.b"),
        (
            lambda s: s.update({"image_encoder.neck.1.bias": torch.zeros(7)}),
            rf"of another shape: neck.1.bias \(7,\) instead of \({WIDTH},\)",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, message):
    state, target = mobile_sam_state(tiny_encoder(seed=1)), tiny_encoder(seed=2)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=message):
        load_mobile_sam(target, state)
    assert all(torch.equal(before[k], t) for k, t in target.state_dict().items())


def test_the_quick_profile_keeps_the_windows():
    assert TinyVitShape.quick().windows == (7, 7, 14, 7) == TinyVitShape().windows
    assert size(TinyVitEncoder(shape=TinyVitShape.quick()).backbone) < 400_000
