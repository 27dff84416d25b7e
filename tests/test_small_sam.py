"""The small SAM: its recipe, its shipped weights and their card."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_sam import tiny_sam

from lib.data.generated import GeneratedStream, ImagePool
from lib.evaluation.records import read_records
from lib.prompts.corrections import boxes_of, correction_clicks, noisy_boxes, random_clicks
from lib.sam.checkpoint_files import WeightsError
from lib.sam.checkpoints import load_sam
from lib.sam.small import WEIGHTS, build_small_sam, load_small_sam, parameter_count
from lib.training.loop import fit
from lib.training.method import Progress
from lib.training.small_sam import (
    SmallSamConfig,
    SmallSamPretraining,
    _first_boxes,
    _to_correct,
    choose_objects,
    decode_prompted,
    focal_dice,
    hard_iou,
)
from lib.training.small_sam_card import render_card, save_small_sam
from lib.training.small_sam_evaluation import (
    correction,
    ellipses,
    evaluate_prompts,
    middle,
    summarise_prompts,
)
from lib.training.small_sam_objects import generated_objects
from lib.training.small_sam_records import main


@pytest.fixture(scope="module")
def scores():
    """Every prompt on 32 generated images that the shipped weights never saw."""
    images, masks, _ = generated_objects(32)
    return evaluate_prompts(load_sam("small"), images, masks)


def test_file_card_and_readme_agree():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    content = WEIGHTS.read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert len(content) == card["bytes"] <= 16_000_000
    sam = load_small_sam()
    assert parameter_count(sam) == card["parameters"]
    assert parameter_count(sam.image_encoder) == card["encoder_parameters"]
    assert (WEIGHTS.parent / "README.md").read_text() == render_card(card)


def test_shipped_weights_follow_boxes_and_clicks(scores):
    means = summarise_prompts(scores)
    assert means["tight_box"] > 0.6
    assert means["jittered_box"] > means["ellipse_jittered"]
    assert means["clicks_1"] > 0.4
    assert means["clicks_1_oracle"] >= means["clicks_1"]
    assert means["clicks_3"] > means["clicks_1"]
    assert means["box_click"] > means["jittered_box"]


def test_the_head_knows_good_masks_from_bad_ones(scores):
    prompts = ("tight_box", "jittered_box", "clicks_1")
    estimate = np.concatenate([scores[f"quality_{prompt}"] for prompt in prompts])
    iou = np.concatenate([scores[prompt] for prompt in prompts])
    assert np.corrcoef(estimate, iou)[0, 1] > 0.2


@pytest.fixture(scope="module")
def embedded():
    """SAM, embeddings and largest objects of 32 held-out images, with a click in each middle."""
    sam = load_small_sam()
    images, target, _ = generated_objects(32)
    clicks = torch.tensor([[middle(mask.numpy())] for mask in target])
    with torch.no_grad():
        return sam, sam.image_encoder(sam.preprocess(images.float())), target, clicks


def prompted(embedded, points, labels, logits):
    """All masks of click prompts at low resolution, and the single one's IoU at 256 px."""
    sam, embeddings, target, _ = embedded
    no_boxes = torch.zeros(0, 4)
    with torch.no_grad():
        low, quality = decode_prompted(sam, embeddings, points, labels, no_boxes, logits)
    full = torch.nn.functional.interpolate(low[:, :1], (256, 256), mode="bilinear")
    return low, quality, hard_iou(full, target)[:, 0].mean()


def test_the_previous_mask_helps_a_correction(embedded):
    """The same two clicks, with and without the logits that the first one gave."""
    target, first_click = embedded[2:]
    everyone, label = torch.arange(len(target)), torch.ones(len(target), 1)
    low, quality, _ = prompted(embedded, first_click, label, None)
    chosen = low[everyone, 1 + quality[:, 1:].argmax(1)][:, None]
    now = torch.nn.functional.interpolate(chosen, (256, 256), mode="bilinear")[:, 0] > 0
    pairs = [correction(p.numpy(), t.numpy()) for p, t in zip(now, target, strict=True)]
    points = torch.cat([first_click, torch.tensor([[point] for point, _ in pairs])], 1)
    labels = torch.cat([label, torch.tensor([[sign] for _, sign in pairs])], 1)
    assert (
        prompted(embedded, points, labels, chosen)[2]
        > prompted(embedded, points, labels, None)[2] + 0.01
    )


def test_a_coarse_mask_says_more_than_a_click(embedded):
    target, click = embedded[2:]
    share = torch.nn.functional.avg_pool2d(target[:, None].float(), 4)
    coarse = 8 * (torch.nn.functional.avg_pool2d(share, 9, 1, 4) - 0.5)
    label = torch.ones(len(target), 1)
    assert prompted(embedded, click, label, coarse)[2] > 0.7
    assert prompted(embedded, click, label, None)[2] < 0.6


def test_a_prompt_decides_which_object_is_meant():
    """One image, boxes around two objects: each mask fits its own box better."""
    sam = load_small_sam()
    image = torch.full((3, 256, 256), 0.3)
    image[:, 40:100, 30:110], image[:, 150:220, 140:230] = 0.8, 0.7
    boxes = torch.tensor([[30.0, 40, 109, 99], [140, 150, 229, 219]])
    target = ellipses(boxes) * 0
    target[0, 40:100, 30:110], target[1, 150:220, 140:230] = 1, 1
    with torch.no_grad():
        embedding = sam.image_encoder(sam.preprocess(255 * image[None])).repeat(2, 1, 1, 1)
        unused = torch.zeros(2, 1, 2), torch.ones(2, 1)
        masks, _ = decode_prompted(sam, embedding, *unused, boxes, None)
    masks = torch.nn.functional.interpolate(masks[:, :1], (256, 256), mode="bilinear")
    own, other = hard_iou(masks, target > 0), hard_iou(masks, target.flip(0) > 0)
    assert (own > 0.6).all()
    assert (other < 0.1).all()


@pytest.mark.parametrize("shipped", [True, False])
@pytest.mark.parametrize("change", ["content", "missing"])
def test_other_weights_are_refused(tmp_path, monkeypatch, change, shipped):
    """Only the file of the repository is restored by git."""
    path = tmp_path / "small_sam.safetensors"
    path.with_suffix(".json").write_text(WEIGHTS.with_suffix(".json").read_text())
    if change == "content":
        path.write_bytes(WEIGHTS.read_bytes()[:-1] + b"\0")
    if shipped:
        monkeypatch.setattr("lib.sam.small.WEIGHTS", path)
    with pytest.raises(WeightsError, match=r"small_sam\.json") as error:
        load_small_sam(path)
    assert ("git checkout" in str(error.value)) == shipped


def test_the_card_is_made_from_the_facts(tmp_path):
    sam = build_small_sam()
    path = save_small_sam(sam, tmp_path, {"training": {"Steps": 3}, "limits": ["It is random."]})
    text = (tmp_path / "README.md").read_text()
    assert "| Steps | 3 |" in text
    assert "- It is random." in text
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    loaded, expected = load_small_sam(path).state_dict(), sam.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


def random_regions(count=40):
    noise = torch.randn(count, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (32, 32), mode="bilinear")[:, 0] > 0.2


def test_correction_clicks_land_in_the_error_region():
    target, prediction = random_regions(), random_regions().roll(1, 0)
    points, labels = correction_clicks(prediction, target, torch.Generator().manual_seed(1))
    x, y = points.long().unbind(1)
    rows = torch.arange(len(target))
    assert ((prediction ^ target)[rows, y, x]).all()
    assert torch.equal(labels, target[rows, y, x].float())


def test_where_nothing_is_wrong_the_click_confirms():
    target = random_regions()
    target = target[target.flatten(1).any(1)]
    points, labels = correction_clicks(target, target)
    assert (labels == 1).all()
    x, y = points.long().unbind(1)
    assert target[torch.arange(len(target)), y, x].all()


def test_random_clicks_prefer_the_inside():
    region = torch.zeros(1, 21, 21, dtype=torch.bool)
    region[:, 5:16, 5:16] = True
    points = random_clicks(region.expand(2000, -1, -1), torch.Generator().manual_seed(0))
    edge = ((points == 5) | (points == 15)).any(1).float().mean()
    assert edge < 40 / 121 * 0.6  # 40 of the 121 pixels lie on the edge


def test_the_middle_of_the_largest_error():
    target, prediction = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    target[2:7, 2:7] = True  # missed: 25 pixels
    prediction[15:17, 15:17] = True  # invented: 4
    assert correction(prediction, target) == ((4.0, 4.0), 1.0)
    prediction |= target
    (x, y), label = correction(prediction, target)
    assert prediction[int(y), int(x)]
    assert label == 0.0


def test_tight_boxes_and_their_ellipse():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:20, 30:50] = True
    assert boxes_of(mask).tolist() == [[30, 10, 49, 19]]
    assert boxes_of(torch.ones(1, 3, 5, dtype=torch.bool)).tolist() == [[0, 0, 4, 2]]
    assert boxes_of(torch.eye(6, dtype=torch.bool)[None, 2:3]).tolist() == [[2, 0, 2, 0]]
    assert boxes_of(mask[:0]).shape == (0, 4)
    area = ellipses(boxes_of(mask), 64).sum()
    assert area == pytest.approx(np.pi / 4 * 200, rel=0.05)


def test_box_errors_have_their_size_and_stay_inside():
    boxes = torch.tensor([[100.0, 110, 139, 189]]).repeat(4000, 1)
    moved = noisy_boxes(boxes, 0.1, (256, 256), torch.Generator().manual_seed(0))
    deviation = (moved - boxes).std(0)
    assert deviation.tolist() == pytest.approx([4, 8, 4, 8], rel=0.06)
    wild = noisy_boxes(boxes, 5.0, (256, 256), torch.Generator().manual_seed(0))
    assert (wild >= 0).all()
    assert (wild <= 255).all()
    assert (wild[:, 2:] > wild[:, :2]).all()


def test_the_loss_by_hand():
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[1.0, 1], [0, 0]]])
    # probability 1/2 everywhere: entropy ln 2, modulation 1/4; overlap 1, sums 2 + 2
    expected = 20 * np.log(2) / 4 + 1 - (2 * 1 + 1) / (2 + 2 + 1)
    assert focal_dice(logits, target, focal=20, dice=1).item() == pytest.approx(expected)


def test_objects_are_drawn_from_what_is_there():
    bits = torch.zeros(2, 8, 8, dtype=torch.int64)
    bits[0, :4] |= 1 << 3  # one object
    bits[1, :2] |= 1
    bits[1, 4:] |= 1 << 7  # two objects
    drawn = choose_objects(bits, 4, 4).unflatten(0, (4, 2))
    assert (drawn[:, 0].mean((1, 2)) == 0.5).all()
    assert sorted(drawn[:, 1].mean((1, 2)).tolist()) == [0.25, 0.25, 0.5, 0.5]


def test_the_classics_are_floors_on_the_first_images():
    """One of two images has them; means leave the other out."""
    images, masks, _ = generated_objects(2)
    scores = evaluate_prompts(_tiny(), images, masks, classical=1, batch_size=1)
    names = ("grab_cut_tight", "grab_cut_jittered", "random_walk_1", "random_walk_3")
    for name in names:
        assert np.isnan(scores[name]).tolist() == [False, True]
        assert summarise_prompts(scores)[name] == pytest.approx(scores[name][0])


def test_the_walker_is_corrected_where_it_errs_itself(monkeypatch):
    """It always paints the left half: the second click takes away what is wrong there."""
    asked = []

    def left_half(picture, points, labels):
        asked.append((points.clone(), labels.clone()))
        return np.arange(256)[None] < np.full((256, 1), 128)

    monkeypatch.setattr("lib.training.small_sam_evaluation.random_walk", left_half)
    images, masks, _ = generated_objects(1)
    evaluate_prompts(_tiny(), images, masks, classical=1)
    assert [len(points) for points, _ in asked] == [1, 2, 3]
    wrong = left_half(None, *asked[-1]) != masks[0].numpy()
    for x, y in asked[2][0][1:].int().tolist():
        assert wrong[y, x]


def test_records_of_other_weights_go_into_their_card(tmp_path):
    """One generated image; the card beside the weights gets the means."""
    weights = save_small_sam(load_small_sam(), tmp_path / "weights", {"training": {"Data": "none"}})
    main([
        "--weights", str(weights), "--variant", "other", "--images", "2", "--classical", "1",
        "--results", str(tmp_path / "records"), "--card",
    ])  # fmt: skip
    (record,) = read_records(tmp_path / "records")
    assert record.variant == "other"
    assert [row["grab_cut_tight"] >= 0 for row in record.per_image["last"]] == [True, False]
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["accuracy"]["generated"] == pytest.approx(record.scores["last"], abs=1e-5)
    assert card["training"] == {"Data": "none"}
    text = (tmp_path / "weights/README.md").read_text()
    assert "| *GrabCut, tight box* |" in text
    assert "of the first 1 images of each set" in text
    assert "(n=2)" in text
    main(
        [
            "--weights",
            str(weights),
            "--results",
            str(tmp_path / "records"),
            "--card",
            "--no-generated",
        ]
    )
    assert "generated" in json.loads(weights.with_suffix(".json").read_text())["accuracy"]


def test_some_first_boxes_are_exact_and_the_others_are_not():
    """A cell is 4 px; the object covers cells 2 to 5, so its box spans 7.5 to 23.5 px."""
    target = torch.zeros(400, 16, 16, dtype=torch.bool)
    target[:, 2:6, 2:6] = True
    exact = torch.tensor([7.5, 7.5, 23.5, 23.5])
    for share in (0.0, 0.3, 1.0):
        boxes = _first_boxes(target, 4, SmallSamConfig(exact_box=share))
        assert (boxes == exact).all(1).float().mean() == pytest.approx(share, abs=0.08)


def test_one_prompt_is_refused():
    with pytest.raises(ValueError, match="prompts must be at least 2"):
        SmallSamConfig(prompts=1)


def test_a_few_steps_on_the_project_s_loop(tmp_path):
    """The recipe runs, moves the weights and their average; a finished run is read back."""
    pool = ImagePool(tmp_path, seed=5, count=4).fill(workers=1, progress=False)
    config = SmallSamConfig(prompts=2, rounds=2, batch=2)

    def run(directory, steps):
        torch.manual_seed(0)
        method = SmallSamPretraining(config, sam=_tiny())
        stream = GeneratedStream(pool, batch=config.batch, seed=0)
        history = fit(method, stream, steps=steps, directory=directory, progress=False)
        return method, history

    method, history = run(tmp_path / "a", 2)
    assert all(np.isfinite(row["total"]) for row in history.steps)
    fresh = _tiny()
    moved = [not torch.equal(a, b) for a, b in zip(
        method.average.parameters(), fresh.parameters(), strict=True)]  # fmt: skip
    assert np.mean(moved) > 0.9
    again, _ = run(tmp_path / "a", 2)
    assert torch.equal(again.average.mask_decoder.iou_token.weight,
                       method.average.mask_decoder.iou_token.weight)  # fmt: skip


def _tiny():
    torch.manual_seed(0)
    return build_small_sam(width=24, depth=1, heads=2, prompt_width=32)


# -- the training step by hand ---------------------------------------------------------------------


def stubbed(monkeypatch, seen):
    """Masks and estimates that `decode_prompted` gives whatever it is asked; batch; true masks."""
    generator = torch.Generator().manual_seed(0)
    answer = torch.randn(4, 4, 64, 64, generator=generator), torch.rand(4, 4, generator=generator)

    def decode(*asked):
        seen.append(asked)
        return answer

    monkeypatch.setattr("lib.training.small_sam.decode_prompted", decode)
    bits = torch.zeros(2, 256, 256, dtype=torch.int64)
    bits[0, 40:120, 60:200] = 1
    bits[1, 100:200, 20:88] = 1
    batch = SimpleNamespace(labelled=SimpleNamespace(image=torch.rand(2, 3, 256, 256), mask=bits))
    return *answer, batch, (bits[:, ::4, ::4] == 1).repeat(2, 1, 1)


def recipe(**changes):
    config = SmallSamConfig(prompts=2, coarse_mask=0.0, **changes)
    return SmallSamPretraining(config, sam=tiny_sam())


def test_the_step_by_hand(monkeypatch):
    """The single mask's loss, the least of the three, and the error of all estimates of IoU."""
    masks, quality, batch, target = stubbed(monkeypatch, [])
    total = recipe(rounds=1).step(batch, Progress(0, 10)).total
    each = focal_dice(masks, target.float(), focal=20, dice=1)
    error = ((quality - hard_iou(masks, target)) ** 2).mean()
    by_hand = each[:, 0].mean() + each[:, 1:].min(1).values.mean() + error
    torch.testing.assert_close(total, by_hand)


def test_which_mask_is_corrected(monkeypatch):
    masks = torch.arange(4.0)[None, :, None, None].expand(3, 4, 2, 2)
    quality = torch.tensor([[0, 9, 0, 0], [9, 0, 1, 0], [9, 0, 0, 1.0]])
    assert _to_correct(masks, quality, single=1)[:, 0, 0, 0].tolist() == [0, 2, 3]
    singles, seen = [], []
    *_, batch, _ = stubbed(monkeypatch, seen)

    def noted(masks, quality, *, single):
        singles.append(single)
        return _to_correct(masks, quality, single=single)

    monkeypatch.setattr("lib.training.small_sam._to_correct", noted)
    recipe(rounds=3, forget_mask=0.0).step(batch, Progress(0, 10))
    assert singles == [2, 4, 4]  # at first one click leaves open what is meant
    assert [asked[2].shape[1] for asked in seen] == [1, 2, 3]


def test_the_average_follows_fast_at_first():
    method = recipe()
    with torch.no_grad():
        for parameter in method.sam.parameters():
            parameter.fill_(1.0)
        for parameter in method.average.parameters():
            parameter.fill_(0.0)
    first = next(method.average.parameters())
    method.after_step(Progress(0, 100_000))
    assert first.flatten()[0].item() == pytest.approx(0.9)
    method.after_step(Progress(90_000, 100_000))
    assert first.flatten()[0].item() == pytest.approx(0.9001)
