"""Batched decoding against `SamPredictor`, one prompt at a time."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from tiny_sam import fill, prompt, tiny_sam

from lib.sam.decode import decode_prompts, mask_input
from lib.sam.preprocess import input_size, preprocess
from lib.sam.resize import resize_positions

SIDE = 64  # low-res masks at 256 px


def mixed_prompts(size, generator):
    """Prompts of seven structures, in an order that mixes them."""
    height, width = size
    rng = np.random.default_rng(generator)

    def points(n):
        return rng.uniform(0, 1, (n, 2)) * [width, height]

    def box():
        x, y = rng.uniform(0, 0.5, 2) * [width, height]
        return [x, y, x + width / 3, y + height / 3]

    mask = rng.normal(0, 5, (SIDE, SIDE))
    return [
        prompt(points(3), [1, 1, 0], box()),
        prompt(points(1), [1]),
        prompt(box=box()),
        prompt(points(3), [1, 0, 1], box()),
        prompt(points(1), [1], mask_logits=mask),
        prompt(points(2), [1, 1]),
        prompt(box=box(), mask_logits=-mask),
        prompt(mask_logits=mask),
        prompt(points(1), [0], box()),
        prompt(points(1), [1]),
    ]


def one_by_one(sam, embeddings, prompts, image_index, size, multimask):
    """The reference: segment-anything's predictor, its choice among masks made by hand."""
    predictor = SamPredictor(sam)
    results = []
    for p, image in zip(prompts, image_index, strict=True):
        predictor.is_image_set = True
        predictor.original_size, predictor.input_size = size, input_size(sam, size)
        predictor.features = embeddings[image : image + 1]
        arrays = [None if v is None else v.numpy() for v in (p.points, p.labels, p.box)]
        mask = None if p.mask_logits is None else p.mask_logits.numpy()[None]
        only_points = p.box is None and p.mask_logits is None
        three = only_points if multimask == "auto" else multimask
        logits, iou, low = predictor.predict(
            *arrays, mask_input=mask, multimask_output=three, return_logits=True
        )
        if three and multimask == "auto":
            best = slice(int(iou.argmax()), int(iou.argmax()) + 1)
            logits, iou, low = logits[best], iou[best], low[best]
        results.append((logits, iou, low))
    return [torch.from_numpy(np.stack(part)) for part in zip(*results, strict=True)]


def assert_equal(decoded, reference):
    for ours, theirs in zip((decoded.logits, decoded.iou, decoded.low_res), reference, strict=True):
        assert ours.shape == theirs.shape
        scale = theirs.abs().max()
        assert scale > 0.05  # else equality would say nothing
        assert (ours - theirs).abs().max() <= 1e-4 * min(1, scale)


@pytest.mark.parametrize("multimask", [True, False, "auto"])
@pytest.mark.parametrize("size", [(256, 256), (90, 120), (300, 200)])
def test_equal_to_predictor_one_by_one(size, multimask):
    sam = tiny_sam()
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(3, 32, 16, 16, generator=generator)
    prompts = mixed_prompts(size, 1)
    image_index = [0, 2, 1, 1, 0, 0, 2, 2, 1, 0]
    with torch.no_grad():
        decoded = decode_prompts(
            sam, embeddings, prompts, image_index, size=size, multimask=multimask
        )
    assert_equal(decoded, one_by_one(sam, embeddings, prompts, image_index, size, multimask))


def test_equal_to_predictor_with_vit_b_at_256():
    sam = sam_model_registry["vit_b"]()
    fill(sam.mask_decoder, 1)
    fill(sam.prompt_encoder, 2)
    resize_positions(sam, 256)
    embeddings = torch.randn(2, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts, image_index = mixed_prompts((200, 256), 3)[:6], [1, 0, 1, 0, 0, 1]
    with torch.no_grad():
        decoded = decode_prompts(sam, embeddings, prompts, image_index, size=(200, 256))
    assert_equal(decoded, one_by_one(sam, embeddings, prompts, image_index, (200, 256), "auto"))


def test_batch_size_changes_nothing_but_memory():
    sam = tiny_sam()
    embeddings = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = mixed_prompts((256, 256), 2)
    with torch.no_grad():
        one, many = (
            decode_prompts(
                sam, embeddings, prompts, [0, 1] * 5, size=(256, 256), batch_size=n, full_size=full
            )
            for n, full in ((1, True), (64, False))
        )
    assert many.logits is None
    assert torch.allclose(one.low_res, many.low_res, atol=1e-4)
    assert torch.allclose(one.iou, many.iou, atol=1e-4)


def test_half_precision_embeddings_and_gradient():
    sam = tiny_sam()
    embeddings = torch.randn(1, 32, 16, 16).to(torch.bfloat16).requires_grad_()
    decoded = decode_prompts(sam, embeddings, [prompt([[9, 9]], [1])], [0], size=(64, 64))
    assert decoded.low_res.dtype == torch.float32
    decoded.logits.sum().backward()
    assert embeddings.grad.abs().sum() > 0
    assert sam.mask_decoder.mask_tokens.weight.grad.abs().sum() > 0


def test_mask_of_picture_size_lands_where_the_picture_is():
    # A 128 x 256 picture fills the upper half of SAM's square frame; below it is padding.
    frame = torch.full((64, 64), -6.0)
    frame[8:20, 10:30] = 6.0
    picture = frame[:32].repeat_interleave(4, 0).repeat_interleave(4, 1)
    ours = mask_input(tiny_sam(), picture, (128, 256))[0]
    assert torch.equal(ours > 0, frame > 0)
    assert (ours[32:] == -6).all()
    assert ours[10:18, 12:28].min() == 6  # away from the edge, which antialiasing softens


def test_mask_of_sams_own_size_is_taken_as_it_is():
    previous = torch.randn(64, 64)
    assert torch.equal(mask_input(tiny_sam(), previous, (128, 256))[0], previous)


def test_no_prompts_give_empty_results():
    sam = tiny_sam()
    decoded = decode_prompts(sam, torch.zeros(1, 32, 16, 16), [], [], size=(50, 60))
    assert decoded.logits.shape == (0, 1, 50, 60)
    assert decoded.iou.shape == (0, 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (prompt(), "prompt 1 is empty"),
        (prompt([], []), "prompt 1"),
        (prompt([[1, 2]], [1, 0]), "prompt 1: points must be N x 2"),
        (prompt([[1, 2]]), "prompt 1: points must be N x 2"),
        (prompt([[1, 2]], [-1]), "prompt 1: labels must be 1"),
        (prompt([[1, float("nan")]], [1]), "prompt 1: points holds values that are not finite"),
        (prompt(box=[1, 2, 3]), "prompt 1: box must be"),
        (prompt(mask_logits=np.zeros((1, 4, 4))), "prompt 1: mask_logits must be h x w"),
    ],
)
def test_malformed_prompts_are_named(bad, message):
    good = prompt(box=[1, 2, 3, 4])
    with pytest.raises(ValueError, match=message):
        decode_prompts(tiny_sam(), torch.zeros(1, 32, 16, 16), [good, bad], [0, 0], size=(64, 64))


def test_malformed_arguments():
    sam, embeddings = tiny_sam(), torch.zeros(1, 32, 16, 16)
    box = [prompt(box=[1, 2, 3, 4])]
    with pytest.raises(ValueError, match="image_index has 1, but there are 1 embeddings"):
        decode_prompts(sam, embeddings, box, [1], size=(64, 64))
    with pytest.raises(ValueError, match="1 prompts but 2 entries"):
        decode_prompts(sam, embeddings, box, [0, 0], size=(64, 64))
    with pytest.raises(ValueError, match="do not fit this SAM"):
        decode_prompts(sam, torch.zeros(1, 32, 64, 64), box, [0], size=(64, 64))
    with pytest.raises(ValueError, match="multimask='best'"):
        decode_prompts(sam, embeddings, box, [0], size=(64, 64), multimask="best")


# --- the picture's way into SAM -------------------------------------------------------------


def predictor_embedding(sam, picture):
    predictor = SamPredictor(sam)
    predictor.set_image(picture)
    return predictor.features


@pytest.mark.parametrize("size", [(256, 256), (256, 190), (120, 256)])
def test_preprocessing_of_sam_sized_pictures_equals_predictor(size):
    sam = tiny_sam()
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        ours = sam.image_encoder(preprocess(sam, image))
    theirs = predictor_embedding(sam, picture)
    assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max())


@pytest.mark.parametrize("size", [(100, 130), (333, 500), (512, 512)])
def test_preprocessing_of_other_sizes_is_within_one_grey_level(size):
    sam = tiny_sam()
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    resized = SamPredictor(sam).transform.apply_image(picture)
    theirs = sam.preprocess(torch.from_numpy(resized).permute(2, 0, 1)[None].float())
    grey_level = 1 / sam.pixel_std.min()
    assert (preprocess(sam, image) - theirs).abs().max() <= 1.01 * grey_level


def test_images_outside_the_range_are_refused():
    sam = tiny_sam()
    for values in (torch.full((1, 3, 8, 8), 200.0), torch.full((1, 3, 8, 8), float("nan"))):
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
            preprocess(sam, values)
    for shape in ((3, 8, 8), (1, 1, 8, 8)):
        with pytest.raises(ValueError, match="B x 3 x H x W"):
            preprocess(sam, torch.zeros(shape))


def test_auto_never_takes_the_single_mask_for_points_alone():
    sam = tiny_sam()
    embeddings = torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias[0] += 100
        auto, three = (
            decode_prompts(
                sam, embeddings, [prompt([[40, 50]], [1])], [0], size=(256, 256), multimask=choice
            )
            for choice in ("auto", True)
        )
    best = three.iou[0].argmax()
    assert auto.iou[0, 0] == three.iou[0, best]
    assert torch.equal(auto.low_res[0, 0], three.low_res[0, best])
