"""ESP-MedSAM as a whole: mixed batches, unknown modalities, switches, what it weighs."""

import pytest
import torch
from segment_anything import sam_model_registry
from tiny_esp import NAMES, WIDTH, images, tiny_encoder, tiny_esp
from torch.nn import functional

from lib.models.esp_medsam import UNKNOWN, EspMedSam
from lib.models.modality_classifier import ModalityClassifier
from lib.models.modality_decoder import ModalityDecoder
from lib.models.multiply_adds import multiply_adds
from lib.models.parameter_table import RELEASED, SAM, claims_table, parameter_table, totals
from lib.models.tiny_vit import TinyVitEncoder
from lib.prompts.self_patch import SelfPatchPrompts, patch_targets

MIXED = torch.tensor([2, 0, 1, 0])


@torch.no_grad()
def test_output_is_decoded_from_the_embedding_and_its_own_prompt():
    model, x = tiny_esp(), images()
    output = model(x, MIXED)
    assert output.logits.shape == (4, 2, 64, 64)
    assert output.patch_logits.shape == (4, 1, 2, 2)
    assert output.logits[:, 0].abs().max() == 0
    embedding = model.encoder(x, MIXED)
    dense, patches = model.prompts(embedding)
    low = model.decoder(embedding + dense, MIXED)
    expected = functional.interpolate(low, (64, 64), mode="bilinear")
    torch.testing.assert_close(output.logits[:, 1:], expected)
    torch.testing.assert_close(output.patch_logits, patches)
    torch.testing.assert_close(output.embedding, embedding)


@torch.no_grad()
def test_a_mixed_batch_gives_each_image_what_it_gets_alone():
    model, x = tiny_esp(), images()
    together = model(x, MIXED).logits
    alone = torch.cat([model(x[i : i + 1], MIXED[i : i + 1]).logits for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("decoder", [{}, {"one_query": True}, {"own_hyper": True}])
def test_a_new_modality_leaves_the_old_ones_bit_identical(decoder):
    model, x = tiny_esp(**decoder), images()
    masks, classes = model(x, MIXED).logits, model.classify(x)
    assert model.add_modality("dermoscopy") == 3
    assert torch.equal(model(x, MIXED).logits, masks)
    torch.testing.assert_close(model.classify(x)[:, :3], classes)
    new = model(x, model.index(["dermoscopy"] * 4)).logits
    assert (new - masks).abs().max() > 1e-3


@torch.no_grad()
def test_without_prompts_the_bare_embedding_is_decoded():
    model, x = tiny_esp(prompts=False), images()
    output = model(x, MIXED)
    assert output.patch_logits is None
    low = model.decoder(model.encoder(x, MIXED), MIXED)
    torch.testing.assert_close(
        output.logits[:, 1:], functional.interpolate(low, 64, mode="bilinear")
    )


@torch.no_grad()
def test_oracle_patches_decide_the_mask():
    model, x = tiny_esp(oracle=True), images()
    mask = torch.zeros(4, 64, 64, dtype=torch.int64)
    empty = model(x, MIXED, patch_targets(mask)).logits
    mask[:, :40, :10] = 1
    filled = model(x, MIXED, patch_targets(mask)).logits
    assert (empty - filled).abs().max() > 1e-3
    with pytest.raises(ValueError, match="oracle=True, patches missing"):
        model(x, MIXED)


# -- unknown modalities ----------------------------------------------------------------------------


def test_unknown_modalities_are_refused_by_name_and_by_index():
    model = tiny_esp()
    assert model.index(["nuclei", "fundus"]).tolist() == [2, 0]
    with pytest.raises(ValueError, match="unknown modality mri; known: fundus, xray, nuclei"):
        model.index(["mri", "xray"])
    with pytest.raises(ValueError, match=r"unknown modality \[-1\]"):
        model(images(1), torch.tensor([UNKNOWN]))


@torch.no_grad()
def test_the_classifier_resolves_what_is_unknown_and_nothing_else():
    model, x = tiny_esp(), images(16)
    model.classifier.outputs.bias -= model.classify(x).mean(0)  # no class wins everywhere
    found = model.classify(x).argmax(1)
    assert len(found.unique()) > 1
    assert torch.equal(model.resolve(x), found)
    given = (found + 1) % 3
    given[4:] = UNKNOWN
    resolved = model.resolve(x, given)
    assert torch.equal(resolved[:4], (found[:4] + 1) % 3)
    assert torch.equal(resolved[4:], found[4:])
    assert (given[4:] == UNKNOWN).all()  # the caller's tensor stays
    model.classifier = None
    assert torch.equal(model.resolve(x, found), found)
    with pytest.raises(ValueError, match="no modality classifier"):
        model.resolve(x, given)


@torch.no_grad()
def test_the_classifier_does_not_see_the_controllers():
    model, x = tiny_esp(), images()
    before = model.classify(x)
    for parameter in model.encoder.controllers.parameters():
        parameter.zero_()
    assert torch.equal(model.classify(x), before)


# -- what it weighs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full():
    names = ("dermoscopy", "xray", "ultrasound", "fundus", "microscopy", "colonoscopy")
    return EspMedSam(
        encoder=TinyVitEncoder(modalities=names),
        prompts=SelfPatchPrompts(),
        decoder=ModalityDecoder(modalities=6),
        classifier=ModalityClassifier(modalities=6),
    ).eval()


def test_released_counts_add_up_to_what_was_measured_on_the_whole():
    assert totals(RELEASED, 6) == {"one": 12_789_587, "all": 28_510_597}


def test_parameter_table_counts_the_model(full):
    rows = {row["part"]: row for row in parameter_table(full)}
    whole = sum(parameter.numel() for parameter in full.parameters())
    assert rows["whole, all 6 controllers"]["ours"] == whole
    assert rows["whole, one controller"]["ours"] == whole - 5 * 3_144_202
    for part in ("one modality controller", "patch head", "dense prompt", "mask decoder"):
        assert rows[part]["ours"] == rows[part]["released"]
    # The released encoder's unused head: a LayerNorm and 1000 classes.
    unused = 2 * 320 + 320 * 1000 + 1000
    assert rows["shared encoder"]["ours"] == rows["shared encoder"]["released"] - unused
    assert rows["mask queries"] == {"part": "mask queries", "ours": 6 * 256, "released": 7 * 256}


def test_claims_agree_with_one_or_all_controllers_of_the_released_code(full):
    rows = claims_table(full)
    assert [row["claimed"] for row in rows] == [0.314, 0.045, 0.02]
    for row in rows:
        assert row[f"released, {row['counted']}"] == pytest.approx(row["claimed"], abs=0.011)
    assert rows[2]["released, one"] == pytest.approx(12_789_587 / 641_090_608)


def test_parameter_table_of_a_model_without_prompts():
    rows = {row["part"]: row["ours"] for row in parameter_table(tiny_esp(prompts=False))}
    assert rows["patch head"] == rows["dense prompt"] == 0


@pytest.mark.parametrize(
    ("name", "builder"), [("SAM-B", "vit_b"), ("SAM-L", "vit_l"), ("SAM-H", "vit_h")]
)
def test_sizes_of_sam_are_those_of_segment_anything(name, builder):
    with torch.device("meta"):
        sam = sam_model_registry[builder]()
    assert sum(parameter.numel() for parameter in sam.parameters()) == SAM[name]


def test_multiply_adds_by_hand():
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
    image, matrix = torch.rand(2, 3, 10, 10), torch.rand(4, 5)
    assert multiply_adds(lambda: convolution(image)) == 2 * 8 * 100 * 27
    assert multiply_adds(lambda: matrix @ matrix.T) == 4 * 4 * 5
    q = torch.rand(1, 2, 6, 4)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert multiply_adds(lambda: attention(q, q, q)) == 2 * 2 * 6 * 6 * 4


def test_multiply_adds_of_a_controller_are_those_of_its_token_and_its_mlp():
    encoder, x = tiny_encoder(), images(1)
    more = multiply_adds(lambda: encoder(x, MIXED[:1])) - multiply_adds(lambda: encoder(x))
    expected = 0
    # (channels, blocks, tokens) of the attention stages; the padding of windows costs nothing
    for width, blocks, tokens in [(12, 1, 64), (16, 2, 16), (24, 1, 16)]:
        expected += blocks * (2 * tokens * 4 * width * width + 2 * tokens * width)
    assert more == expected


def test_widths_other_than_sams_fit_together():
    model = tiny_esp()
    assert model.encoder.width == WIDTH
    assert model.modalities == NAMES
    assert model(images(1), MIXED[:1]).embedding.shape == (1, WIDTH, 4, 4)
