"""KnowSAM and MC-seg: the sum of the losses, who learns from what, what is never read."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from tiny_sam import tiny_sam
from torch import nn

from lib.data.augment import weak_batch
from lib.data.batches import BatchStream
from lib.data.patch_exchange import exchange_patches
from lib.losses.co_training import mutual_consistency
from lib.losses.distillation import distillation_loss
from lib.losses.segmentation import cross_entropy, dice_loss
from lib.models.hybrid_aggregation import entropy_map
from lib.training.co_training import build_students, consistency_loss, exchange_loss, views
from lib.training.errors import CheckpointError
from lib.training.knowsam import KnowSam, KnowSamConfig
from lib.training.loop import fit
from lib.training.mc_seg import McSeg, McSegConfig
from lib.training.method import Progress, inference

SIZE = 32
LABELLED, UNLABELLED = [0, 1, 2, 3], [4, 5, 6, 7]
TINY = {"widths": (4, 4, 6, 6, 8)}
MIDDLE = Progress(50, 100)
LAMBDA = math.exp(-5 * 0.5**2)


class Stripes:
    """Stripes of `classes` classes on noise; the masks of `poisoned` images raise when read."""

    size = SIZE

    def __init__(self, classes=2, poisoned=()):
        self.names = [f"stripes{i}" for i in range(8)]
        self.classes, self.poisoned = classes, poisoned

    def fingerprint(self):
        return f"stripes {self.classes}"

    def image(self, i):
        noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(i))
        return (0.3 * noise + 0.7 * self._mask(i) / self.classes).clamp(0, 1)

    def mask(self, i):
        if i in self.poisoned:
            raise AssertionError(f"the mask of unlabelled image {i} was read")
        return self._mask(i)

    def _mask(self, i):
        return (torch.arange(SIZE).expand(SIZE, SIZE) // 4 + i) % self.classes


def stream(classes=2, poisoned=(), unlabelled=2):
    return BatchStream(
        Stripes(classes, poisoned),
        labelled=LABELLED,
        unlabelled=UNLABELLED,
        labelled_batch=2,
        unlabelled_batch=unlabelled,
        seed=1,
    )


def knowsam(config=None, **changes):
    torch.manual_seed(0)  # SAM's position matrix is drawn too
    sam = tiny_sam(64)
    torch.manual_seed(0)
    return KnowSam(config or KnowSamConfig(**{**TINY, **changes}), sam=sam)


def mc_seg(**changes):
    torch.manual_seed(0)
    return McSeg(McSegConfig(**{**TINY, **changes}))


def without_dropout(method):
    """So that the same input gives the same output in training mode."""
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return method.train()


def gradients(module):
    return {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def names(module):
    return {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize("classes", [2, 4])
def test_total_is_equation_14(classes):
    method = without_dropout(knowsam(classes=classes, exchange=False))
    batch = stream(classes).batch(0)
    losses = method.step(batch, MIDDLE)

    images, masks = views(batch, method.config)
    first, second, fused = method.students(images)
    sam = method.teacher(images, fused)

    def l_seg(logits):
        return (cross_entropy(logits[:2], masks) + dice_loss(logits[:2], masks)).mean()

    supervised = l_seg(first) + l_seg(second) + l_seg(fused)
    distilled = distillation_loss(first, sam) + distillation_loss(second, sam)
    entropy = entropy_map(first).mean() + entropy_map(second).mean()
    mutual = mutual_consistency(first, second)
    total = supervised + distilled + 0.9 * entropy + LAMBDA * mutual + l_seg(sam)
    expected = {
        "total": total,
        "supervised": supervised,
        "sam": l_seg(sam),
        "distillation": distilled,
        "entropy": entropy,
        "consistency": mutual,
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
    assert losses["consistency_weight"] == pytest.approx(LAMBDA)
    assert losses.keys() == {*expected, "consistency_weight"}


@pytest.mark.parametrize("classes", [2, 4])
def test_mc_seg_is_the_same_without_sam(classes):
    batch = stream(classes).batch(0)
    whole = without_dropout(knowsam(classes=classes, exchange=False)).step(batch, MIDDLE)
    found = without_dropout(mc_seg(classes=classes, exchange=False)).step(batch, MIDDLE)
    for name in ("supervised", "entropy", "consistency", "consistency_weight"):
        torch.testing.assert_close(found[name], whole[name])
    torch.testing.assert_close(
        found.total, whole.total - whole["distillation"] - whole["sam"], rtol=1e-4, atol=1e-5
    )


def test_mixed_images_are_labelled_by_masks_and_by_sam_or_by_the_fusion():
    batch = stream(4).batch(0)
    method = without_dropout(knowsam(classes=4))
    losses = method.step(batch, MIDDLE)
    images, masks = views(batch, method.config)
    fused = method.students(images).fused
    settings = {"uncertain": fused, "consistency_weight": LAMBDA, "config": method.config}
    answers = {"sam": method.teacher(images, fused), "fusion": fused}
    found = {
        name: exchange_loss(
            method.students, images, masks, pseudo=logits[2:].argmax(dim=1), **settings
        )
        for name, logits in answers.items()
    }
    assert (found["sam"] - found["fusion"]).abs() > 1e-3
    torch.testing.assert_close(losses["exchange"], found["sam"], rtol=1e-4, atol=1e-5)
    parts = losses["supervised"] + losses["sam"] + losses["distillation"] + losses["exchange"]
    parts = parts + 0.9 * losses["entropy"] + LAMBDA * losses["consistency"]
    torch.testing.assert_close(losses.total, parts)

    alone = without_dropout(mc_seg(classes=4))
    torch.testing.assert_close(
        alone.step(batch, MIDDLE)["exchange"], found["fusion"], rtol=1e-4, atol=1e-5
    )


def test_fusion_does_not_learn_from_mixed_images_unless_released():
    students = build_students(McSegConfig(**TINY))
    images, masks = torch.rand(4, 3, SIZE, SIZE), torch.randint(0, 2, (2, SIZE, SIZE))
    pseudo, uncertain = torch.randint(0, 2, (2, SIZE, SIZE)), torch.randn(4, 2, SIZE, SIZE)
    learnt = {}
    for released in (False, True):
        students.zero_grad(set_to_none=True)
        config = McSegConfig(**TINY, exchange_all_losses=released)
        loss = exchange_loss(
            students,
            images,
            masks,
            uncertain=uncertain,
            pseudo=pseudo,
            consistency_weight=0.5,
            config=config,
        )
        loss.backward()
        learnt[released] = gradients(students.fusion)
        assert gradients(students.first)
        assert gradients(students.second)
    assert learnt[False] == set()
    assert learnt[True] == names(students.fusion)


def test_exchange_starts_when_it_is_told_to():
    batch = stream().batch(0)
    method = mc_seg(exchange_start=0.5)
    assert "exchange" not in method.step(batch, Progress(49, 100))
    assert "exchange" in method.step(batch, Progress(50, 100))


def test_sam_learns_from_its_own_loss_alone_and_the_students_not_from_it():
    # Without exchange: with it the losses are differentiated within the step already.
    method = knowsam(consistency_weight=0, exchange=False)
    batch = stream().batch(0)
    losses = method.step(batch, MIDDLE)
    losses["sam"].backward(retain_graph=True)
    assert gradients(method.students) == set()
    from_sam_loss = {n: p.grad.clone() for n, p in method.teacher.named_parameters()}
    assert any(g.any() for g in from_sam_loss.values())
    method.zero_grad(set_to_none=True)

    losses["distillation"].backward(retain_graph=True)
    assert all(p.grad is None for p in method.teacher.parameters())
    assert gradients(method.students.first)
    assert gradients(method.students.second)
    assert gradients(method.students.fusion) == set()
    method.zero_grad(set_to_none=True)

    losses.total.backward()
    for name, parameter in method.teacher.named_parameters():
        torch.testing.assert_close(parameter.grad, from_sam_loss[name])
    frozen = [p for n, p in method.teacher.sam.named_parameters() if ".adapter." not in n]
    assert not any(p.requires_grad for p in frozen)


@pytest.mark.parametrize("make", [knowsam, mc_seg])
def test_masks_of_unlabelled_images_change_nothing(make):
    runs = [make(), make()]
    for method, poisoned in zip(runs, ((), UNLABELLED), strict=True):
        fit(method, stream(poisoned=poisoned), steps=1, progress=False)
    for one, other in zip(*(run.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(AssertionError, match="was read"):  # the poison works
        Stripes(poisoned=UNLABELLED).mask(UNLABELLED[0])


def test_prediction_is_the_fusion_s_and_never_touches_sam():
    method = knowsam(classes=4)
    image = torch.rand(2, 3, SIZE, SIZE)
    with inference(method):
        asked = method.predict_with_sam(image)
        method.teacher = None
        found = method.predict(image)
        first, second, fused = method.students(image)
        torch.testing.assert_close(found, fused)
        torch.testing.assert_close(method.student_logits(image), [first, second])
    assert found.shape == asked.shape == (2, 4, SIZE, SIZE)


@pytest.mark.parametrize("make", [knowsam, mc_seg])
@pytest.mark.parametrize("classes", [2, 4])
def test_two_steps_move_every_trained_weight(make, classes):
    method = make(classes=classes)
    before = {name: p.clone() for name, p in method.named_parameters()}
    history = fit(method, stream(classes), steps=2, progress=False)
    assert all(math.isfinite(row["total"]) for row in history.steps)
    same = {n for n, p in method.named_parameters() if torch.equal(p, before[n])}
    assert same == set()


def test_a_step_in_bfloat16_is_the_same_to_its_precision():
    method = without_dropout(knowsam(classes=3, exchange=False))
    batch = stream(3).batch(0)
    exact = method.step(batch, MIDDLE)
    with torch.autocast("cpu", torch.bfloat16):
        rough = method.step(batch, MIDDLE)
    for name in ("total", "sam", "supervised"):
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], exact[name], rtol=0.1, atol=0.05)


def test_learning_rates_fall_in_a_straight_line():
    method = knowsam()
    method.schedule(Progress(0, 10))
    method.schedule(Progress(4, 10))
    rates = [o.param_groups[0]["lr"] for o in method.optimizers()]
    assert rates == [pytest.approx(0.01 * 0.6), pytest.approx(1e-4 * 0.6)]
    groups = [o.param_groups[0] for o in method.optimizers()]
    assert (groups[0]["momentum"], groups[0]["weight_decay"]) == (0.9, 1e-4)


def test_without_an_unlabelled_part_it_is_supervised():
    losses = knowsam().step(stream(unlabelled=0).batch(0), MIDDLE)
    assert "exchange" not in losses
    assert torch.isfinite(losses.total)


@pytest.mark.parametrize("prompts", ["learned", "box", "none"])
def test_without_batch_norm_sam_needs_no_gradient_for_unlabelled_images(prompts):
    """The same losses and gradients, with half of the images out of the graph."""
    changes = {"prompts": prompts, "prompt_norm": "group", "classes": 3}
    method = without_dropout(knowsam(**changes))
    batch = stream(3).batch(0)
    losses = method.step(batch, MIDDLE)
    losses.total.backward()
    split = {name: p.grad.clone() for name, p in method.named_parameters()}
    graded = []
    method.teacher.sam.image_encoder.register_forward_hook(
        lambda m, i, out: graded.append(out.requires_grad)
    )
    method.step(batch, MIDDLE)
    assert graded == [True, False]

    method.ask_sam = lambda images, fused, labelled: type(method).ask_sam(
        method, images, fused, len(images)
    )
    method.zero_grad()
    whole = method.step(batch, MIDDLE)
    whole.total.backward()
    torch.testing.assert_close(whole.total, losses.total)
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.grad, split[name], rtol=1e-4, atol=1e-6)


def test_prompts_and_adapters_can_be_switched_off():
    frozen = knowsam(prompts="box", encoder_adapters=False, decoder_adapters=False)
    assert len(frozen.optimizers()) == 1
    assert list(frozen.teacher.parameters()) == []
    losses = frozen.step(stream().batch(0), MIDDLE)
    losses.total.backward()
    assert gradients(frozen.students)
    encoder_alone = knowsam(prompts="none", decoder_adapters=False)
    assert len(encoder_alone.teacher.adapters) == 2 * 2  # two blocks


def test_released_configuration_changes_what_the_note_lists():
    paper, released = KnowSamConfig(), KnowSamConfig.released()
    changed = {
        f.name
        for f in dataclasses.fields(paper)
        if getattr(paper, f.name) != getattr(released, f.name)
    }
    assert changed == {
        "skips_before_convolutions",
        "inverted_maps",
        "activated_fusion",
        "pooled_dice",
        "entropy_in_bits",
        "last_class_consistency",
        "subnet_share",
        "paired_distillation",
        "exchange_highest",
        "exchange_start",
        "exchange_all_losses",
        "zero_adapters",
        "sam_normalisation",
        "random_decoder_mlps",
        "normalise_after_padding",
        "residual_self_attention",
    }
    method = knowsam(KnowSamConfig.released(**TINY))
    losses = method.step(stream().batch(0), MIDDLE)
    losses.total.backward()
    assert gradients(method.students) == names(method.students)


def test_in_the_released_consistency_the_v_net_learns_nothing():
    students = build_students(McSegConfig(**TINY))
    prediction = students(torch.rand(2, 3, SIZE, SIZE))
    method = mc_seg(last_class_consistency=True)
    consistency_loss(prediction, method.config).backward()
    assert gradients(students.first)
    assert gradients(students.second) == set()


def test_checkpoints_hold_no_frozen_weights_and_say_which_sam_it_was(tmp_path):
    one = knowsam()
    assert not any("image_encoder" in name for name in one.state_dict())
    fit(one, stream(), steps=2, directory=tmp_path, checkpoint_every=1, progress=False)
    (tmp_path / "checkpoint-00000002.pt").unlink()
    resumed = knowsam()
    fit(resumed, stream(), steps=2, directory=tmp_path, checkpoint_every=1, progress=False)
    image = torch.rand(1, 3, SIZE, SIZE)
    with inference(one), inference(resumed):
        assert torch.equal(one.predict_with_sam(image), resumed.predict_with_sam(image))
    other = KnowSam(KnowSamConfig(**TINY), sam=tiny_sam(64, seed=9))
    with pytest.raises(CheckpointError, match="sam"):
        fit(other, stream(), steps=2, directory=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "points"}, "prompts must be one of learned, box, none"),
        ({"prompt_norm": "layer"}, "prompt_norm must be one of batch, group"),
        ({"entropy_weight": -1}, "entropy_weight must be at least 0, not -1"),
        ({"distillation_weight": -1}, "distillation_weight must be at least 0"),
        ({"exchange_start": 12_000}, "exchange_start is a fraction of the run"),
        ({"exchange_grid": 0}, "exchange_grid must be at least 1, not 0"),
        ({"exchange_patches": 17}, "exchange_patches must be 0 to 16"),
        ({"momentum": -1}, "momentum must be at least 0"),
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"prompt_tokens": 0}, "prompt_tokens must be at least 1"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        KnowSamConfig(**changes)


# -- what the step is made of, by itself -----------------------------------------------------------


@pytest.mark.parametrize("highest", [True, False])
def test_each_image_gives_up_its_own_patches(highest):
    images = torch.zeros(2, 3, SIZE, SIZE)
    images[1] = 1
    unsure = torch.zeros(2, 2, SIZE, SIZE)
    unsure[:, 1] = 9.0
    unsure[0, 1, :8, :8] = unsure[1, 1, -8:, -8:] = 0.0
    seen = []

    def network(mixed):
        seen.append(mixed)
        return torch.zeros(len(mixed), 2, SIZE, SIZE)

    exchange_loss(
        SimpleNamespace(first=network, second=network),
        images,
        torch.zeros(1, SIZE, SIZE, dtype=torch.int64),
        uncertain=unsure,
        pseudo=torch.ones(1, SIZE, SIZE, dtype=torch.int64),
        consistency_weight=0.0,
        config=McSegConfig(exchange_patches=1, exchange_highest=highest),
    )
    mixed = seen[0]
    assert (mixed[0, :, :8, :8] == highest).all()
    assert mixed[0].mean() == 1 / 16
    assert (mixed[1, :, -8:, -8:] == (not highest)).all()
    assert mixed[1].mean() == 15 / 16


def test_unlabelled_images_alone_change_their_colours():
    batch = stream().batch(0)
    strong, _ = views(batch, McSegConfig())
    plain, _ = views(batch, McSegConfig(strong_unlabelled=False))
    given = batch.unlabelled
    weak, _ = weak_batch(given.image, seed=batch.seed, epoch=given.epoch, indices=given.index)
    assert torch.equal(strong[:2], plain[:2])
    assert torch.equal(plain[2:], weak)
    assert all(not torch.allclose(a, b) for a, b in zip(strong[2:], plain[2:], strict=True))


def test_knowsam_s_exchange_starts_when_it_is_told_to():
    batch, method = stream().batch(0), knowsam(exchange_start=0.5)
    assert "exchange" not in method.step(batch, Progress(49, 100))
    assert "exchange" in method.step(batch, Progress(50, 100))


def l_seg(logits, masks):
    return (cross_entropy(logits, masks) + dice_loss(logits, masks)).mean()


def test_the_share_is_the_subnets_alone():
    method = without_dropout(knowsam(subnet_share=0.5, exchange=False))
    batch = stream().batch(0)
    total = method.step(batch, MIDDLE).total
    images, masks = views(batch, method.config)
    a, b, fused = method.students(images)
    sam = method.teacher(images, fused)
    subnets = LAMBDA * mutual_consistency(a, b)
    for logits in (a, b):
        subnets = subnets + l_seg(logits[:2], masks) + distillation_loss(logits, sam)
        subnets = subnets + 0.9 * entropy_map(logits).mean()
    by_hand = 0.5 * subnets + l_seg(fused[:2], masks) + l_seg(sam[:2], masks)
    torch.testing.assert_close(total, by_hand, rtol=1e-4, atol=1e-5)


def test_all_losses_on_mixed_images_by_hand():
    torch.manual_seed(0)
    config = McSegConfig(**TINY, classes=3, exchange_all_losses=True, subnet_share=0.5)
    students = build_students(config).eval()
    images, masks = torch.rand(4, 3, SIZE, SIZE), torch.randint(0, 3, (2, SIZE, SIZE))
    pseudo, unsure = torch.randint(0, 3, (2, SIZE, SIZE)), torch.randn(4, 3, SIZE, SIZE)
    found = exchange_loss(
        students,
        images,
        masks,
        uncertain=unsure,
        pseudo=pseudo,
        consistency_weight=0.3,
        config=config,
    )
    doubt = entropy_map(unsure)
    mixed = exchange_patches((images[:2], masks), (images[2:], pseudo), (doubt[:2], doubt[2:]))
    a, b, fused = students(mixed.image)
    own = fused[2:].argmax(1)
    subnets = 0.3 * mutual_consistency(a, b)
    for logits in (a, b):
        subnets = subnets + l_seg(logits, mixed.mask) + 0.9 * entropy_map(logits).mean()
        subnets = subnets + 0.3 * l_seg(logits[2:], own)
    torch.testing.assert_close(found, 0.5 * subnets + l_seg(fused, mixed.mask))
