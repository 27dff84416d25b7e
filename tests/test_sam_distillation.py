"""SAM-induced distillation around any method, its two teachers, and what a frozen SAM answers."""

from types import SimpleNamespace

import pytest
import torch
from test_semi_supervised_methods import HALFWAY, Pixelwise
from tiny_family import CLASSES, FAMILY, build, stream
from tiny_sam import tiny_sam
from tiny_training import same

from lib.losses.segmentation import bce_dice
from lib.prompts.from_masks import PromptConfig
from lib.prompts.learnable import LearnablePrompts
from lib.sam.adapted import AdaptedSam
from lib.sam.adapters import add_adapters
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam
from lib.training.errors import CheckpointError
from lib.training.loop import fit
from lib.training.mean_teacher import MeanTeacher, MeanTeacherConfig
from lib.training.method import Progress
from lib.training.prompted_sam import ABSENT, PromptedSam
from lib.training.sam_distillation import SamDistillationConfig, sam_distillation
from lib.training.sam_teachers import AdaptedTeacher, FrozenTeacher, teacher_of
from lib.training.semi_supervised import labelled_view, unlabelled_view
from lib.training.supervised_baseline import SupervisedBaseline, SupervisedBaselineConfig


def box_sam(asked=None):
    """A SAM that fills each prompt's box with 5 - 0.5 k for the k-th prompt, and -5 around it."""

    def decode(embeddings, prompts, image_index, size, multimask="auto"):
        logits = torch.full((len(prompts), 1, *size), -5.0)
        for k, prompt in enumerate(prompts):
            x0, y0, x1, y1 = prompt.box.int().tolist()
            logits[k, 0, y0 : y1 + 1, x0 : x1 + 1] = 5.0 - 0.5 * k
        if asked is not None:
            asked.append(list(image_index))
        return SimpleNamespace(logits=logits)

    return SimpleNamespace(
        encode=lambda images: images, decode=decode, sam=tiny_sam(64), device=torch.device("cpu")
    )


def adapted(norm="batch", prompts=True, seed=0):
    torch.manual_seed(seed)
    sam = add_adapters(tiny_sam(64))
    network = LearnablePrompts(classes=CLASSES, channels=32, norm=norm) if prompts else None
    return AdaptedSam(sam, prompts=network)


def mean_teacher(**changes):
    return MeanTeacher(MeanTeacherConfig(noise=0.0, **changes), network=Pixelwise())


# -- a prompted SAM --------------------------------------------------------------------------------


def test_sam_answers_class_by_class_where_something_is_predicted():
    probabilities = torch.zeros(2, 3, 10, 10)
    probabilities[:, 0] = 1.0
    probabilities[1, :, 2:5, 2:5] = torch.tensor([0.1, 0.9, 0.0])[:, None, None]
    probabilities[1, :, 7:9, 6:9] = torch.tensor([0.2, 0.8, 0.0])[:, None, None]
    asked = []
    prompted = PromptedSam(box_sam(asked), PromptConfig(mode="box"))
    logits, answered = prompted.logits(torch.rand(2, 3, 10, 10), probabilities)
    assert answered.tolist() == [False, True]
    assert asked == [[0, 0]]  # only the second image was encoded; it is the first of those
    assert (logits[:, 0] == 0).all()
    assert (logits[:, 2] == ABSENT).all()
    assert (logits[1, 1, 2:5, 2:5] == 5.0).all()
    assert (logits[1, 1, 7:9, 6:9] == 4.5).all()
    assert (logits[1, 1] == -5.0).sum() == 100 - 9 - 6
    assert (logits[0, 1:] == ABSENT).all()


# -- the wrapper -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_with_weight_0_nothing_changes_bit_for_bit(name):
    alone, wrapped = build(name), build(name)
    kind = FrozenTeacher(box_sam()) if name != "CPS" else AdaptedTeacher(adapted())
    distilled = sam_distillation(wrapped, kind, weight=0.0)
    for method in (alone, distilled):
        fit(method, stream(), steps=2, device="cpu", progress=False)
    assert same(alone.state_dict(), wrapped.state_dict())
    image = torch.rand(1, 3, 16, 16)
    alone.eval(), distilled.eval()
    assert torch.equal(alone.predict(image), distilled.predict(image))


def test_weight_0_trains_in_float16_beside_a_teacher_without_gradients():
    """A loss scale finds nothing to unscale in an optimiser that was given no gradient."""
    distilled = sam_distillation(build("Mean Teacher"), AdaptedTeacher(adapted()), weight=0.0)
    fit(distilled, stream(), steps=1, device="cpu", precision="16-mixed", progress=False)
    assert distilled.optimizers() == distilled.method.optimizers()


def test_with_weight_1_something_does():
    alone, wrapped = build("Mean Teacher"), build("Mean Teacher")
    distilled = sam_distillation(wrapped, adapted())
    for method in (alone, distilled):
        fit(method, stream(), steps=1, device="cpu", progress=False)
    assert not same(alone.state_dict(), wrapped.state_dict())


def divergence(student, teacher, temperature):
    """T^2 KL(teacher || student), written out."""
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    return temperature**2 * (p * (p / q).log()).sum(1).mean()


@pytest.mark.parametrize("view", ["weak", "plain"])
def test_the_loss_is_the_method_s_and_weight_times_equation_10(view):
    batch = stream().batch(1)
    method = mean_teacher()
    distilled = sam_distillation(
        method, FrozenTeacher(box_sam()), weight=0.7, temperature=4.0, view=view
    )
    own = method.step(batch, HALFWAY).total
    losses = distilled.step(batch, HALFWAY)
    if view == "weak":
        images = torch.cat([labelled_view(batch)[0], unlabelled_view(batch)])
    else:
        images = torch.cat([batch.labelled.image, batch.unlabelled.image])
    student = method.network(images)
    lesson, answered = PromptedSam(box_sam()).logits(images, student.softmax(1))
    assert answered.any()
    # A mean over all images: those without an answer count 0.
    expected = divergence(student[answered], lesson[answered], 4.0) * answered.float().mean()
    torch.testing.assert_close(losses["sam_distillation"], expected)
    torch.testing.assert_close(losses.total, own + 0.7 * expected)


def test_two_students_are_both_taught_and_prompt_together():
    batch = stream().batch(1)
    method = build("CPS")
    method.network, method.second = Pixelwise(), Pixelwise(1)
    losses = sam_distillation(method, FrozenTeacher(box_sam())).step(batch, HALFWAY)
    images = torch.cat([labelled_view(batch)[0], unlabelled_view(batch)])
    one, two = method.network(images), method.second(images)
    lesson, answered = PromptedSam(box_sam()).logits(images, ((one + two) / 2).softmax(1))
    expected = sum(divergence(s[answered], lesson[answered], 10.0) for s in (one, two))
    expected = expected * answered.float().mean()
    torch.testing.assert_close(losses["sam_distillation"], expected)


def test_a_class_is_asked_for_where_it_is_the_likeliest_though_below_one_half():
    probabilities = torch.zeros(1, 4, 32, 32)
    probabilities[:, 0] = 1
    square = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    probabilities[square] = torch.tensor([0.25, 0.1, 0.45, 0.2])[:, None, None]
    logits, answered = PromptedSam(box_sam()).logits(torch.rand(1, 3, 32, 32), probabilities)
    assert answered.all()
    assert (logits[0, [1, 3]] == ABSENT).all()
    assert (logits[0, 2] != ABSENT).any()


def test_without_an_answer_the_method_s_loss_is_left():
    method = mean_teacher()
    with torch.no_grad():  # a network that never predicts an object
        method.network.last.bias.copy_(torch.tensor([90.0, 0, 0, 0]))
    batch = stream().batch(0)
    losses = sam_distillation(method, FrozenTeacher(box_sam())).step(batch, HALFWAY)
    torch.testing.assert_close(losses.total, method.step(batch, HALFWAY).total)
    assert losses["sam_answered"] == 0


def test_a_supervised_method_learns_from_unlabelled_images_through_sam():
    method = SupervisedBaseline(SupervisedBaselineConfig(), network=Pixelwise())
    distilled = sam_distillation(method, FrozenTeacher(box_sam()))
    with_them = distilled.step(stream().batch(0), HALFWAY)["sam_distillation"]
    without = distilled.step(stream(unlabelled_batch=0).batch(0), HALFWAY)["sam_distillation"]
    assert not torch.isclose(with_them, without)


def test_masks_of_unlabelled_images_are_never_read():
    """The stream's data set raises if they are."""
    distilled = sam_distillation(build("Mean Teacher"), adapted())
    history = fit(distilled, stream(), steps=2, device="cpu", progress=False)
    assert {"sam_distillation", "sam_loss", "sam_answered"} <= history.steps[-1].keys()


def test_a_frozen_sam_with_a_cache_encodes_each_plain_image_once(tmp_path):
    sam = FrozenSam(tiny_sam(64), cache=EmbeddingCache(tmp_path))
    method = mean_teacher()
    with torch.no_grad():  # one object as large as the image, so that SAM is always asked
        method.network.last.bias.copy_(torch.tensor([0.0, 90, 0, 0]))
    distilled = sam_distillation(method, sam, view="plain", weight=1e-6)
    fit(distilled, stream(), steps=4, device="cpu", progress=False)
    assert sam.calls.encoded == 10
    assert sam.calls.cached > 0


def test_schedules_are_each_one_s_own():
    method = build("Mean Teacher")
    method.learning_rate = lambda progress: 0.25
    distilled = sam_distillation(method, adapted())
    own, teacher = distilled.optimizers()
    for step in (0, 5):
        distilled.schedule(Progress(step, 10))
        assert own.param_groups[0]["lr"] == pytest.approx(0.01 * 0.25)
        assert teacher.param_groups[0]["lr"] == pytest.approx(1e-4 * (1 - step / 10))


def test_hooks_and_students_are_passed_on():
    calls = []
    method = build("Mean Teacher")
    method.before_step = lambda progress, stream: calls.append("before")
    method.after_step = lambda progress: calls.append("after")
    distilled = sam_distillation(method, FrozenTeacher(box_sam()))
    fit(distilled, stream(), steps=1, device="cpu", progress=False)
    assert calls == ["before", "after"]
    distilled.eval()
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(distilled.student_logits(image)[0], method.network(image))


def test_a_checkpoint_holds_method_and_adapters_but_no_frozen_sam():
    first = sam_distillation(build("Mean Teacher"), adapted())
    second = sam_distillation(build("Mean Teacher"), adapted(seed=5))
    second.load_state_dict(first.state_dict())
    assert same(first.state_dict(), second.state_dict())
    assert not any("image_encoder" in key for key in first.state_dict())
    frozen = sam_distillation(build("Mean Teacher"), FrozenSam(tiny_sam(64)))
    assert all(key.startswith("method.") for key in frozen.state_dict())


def test_runs_are_told_apart_by_method_settings_and_sam():
    def record(**changes):
        sam = changes.pop("sam", None) or FrozenSam(tiny_sam(64))
        method = build("Mean Teacher", **changes.pop("method", {}))
        return sam_distillation(method, sam, **changes).hyperparameters()

    assert record() == record()
    others = [
        record(weight=0.5),
        record(view="plain"),
        record(method={"decay": 0.5}),
        record(sam=FrozenSam(tiny_sam(64, seed=1))),
        record(sam=adapted()),
    ]
    assert all(other != record() for other in others)


def test_a_finished_run_is_found_again_and_another_is_not(tmp_path):
    def run(**changes):
        distilled = sam_distillation(build("FixMatch"), FrozenTeacher(box_sam()), **changes)
        fit(distilled, stream(), steps=1, directory=tmp_path, device="cpu", progress=False)
        return distilled.state_dict()

    assert same(run(), run())
    with pytest.raises(CheckpointError, match="weight"):
        run(weight=0.5)


def test_bad_settings_are_named():
    for name, value in {"weight": -1.0, "temperature": 0.0, "view": "strong"}.items():
        with pytest.raises(ValueError, match=name):
            SamDistillationConfig(**{name: value})
    with pytest.raises(TypeError, match="sam is a Sam: pass a FrozenSam"):
        teacher_of(tiny_sam(64))
    with pytest.raises(ValueError, match="neither adapters nor learnable prompts"):
        AdaptedTeacher(AdaptedSam(tiny_sam(64).requires_grad_(False)))


# -- the adapted teacher ---------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [True, False])
def test_sam_learns_from_masks_alone_and_students_from_sam_alone(prompts):
    method, teacher = mean_teacher(), AdaptedTeacher(adapted(prompts=prompts))
    losses = sam_distillation(method, teacher).step(stream().batch(0), HALFWAY)
    ours, theirs = list(method.network.parameters()), list(teacher.parameters())

    def reached(loss, parameters):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return [g is not None and bool(g.abs().sum() > 0) for g in gradients]

    assert all(reached(losses["sam_distillation"], ours))
    assert not any(reached(losses["sam_distillation"], theirs))
    assert any(reached(losses["sam_loss"], theirs))
    assert not any(reached(losses["sam_loss"], ours))


def test_sam_s_loss_is_that_of_the_labelled_images():
    teacher = AdaptedTeacher(adapted(prompts=False), cross_entropy=0.3, dice=0.6)
    images, student = torch.rand(4, 3, 16, 16), torch.randn(4, CLASSES, 16, 16)
    masks = torch.randint(0, CLASSES, (2, 16, 16))
    lesson = teacher.teach(images, student, masks)
    assert lesson.answered.all()
    expected = bce_dice(lesson.logits[:2], masks, bce=0.3, dice=0.6)
    torch.testing.assert_close(lesson.loss, expected)


def test_without_batch_norm_unlabelled_images_need_no_gradient():
    """The gradient of SAM's loss is the same as with a pass over all images."""
    teacher = AdaptedTeacher(adapted(norm="group")).eval()
    images, student = torch.rand(3, 3, 16, 16), torch.randn(3, CLASSES, 16, 16)

    def gradients(trained):
        logits = teacher.answer(images, student, trained=trained)
        loss = logits[:2].square().mean()
        return logits, torch.autograd.grad(loss, list(teacher.parameters()), allow_unused=True)

    (split, ours), (whole, theirs) = gradients(2), gradients(3)
    torch.testing.assert_close(split, whole)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_description_names_the_adapted_weights_whatever_the_adapters_start():
    def described(adapters_seed, change=None):
        torch.manual_seed(0)
        sam = tiny_sam(64)
        if change:
            change(sam)
        torch.manual_seed(adapters_seed)
        add_adapters(sam)
        return AdaptedTeacher(AdaptedSam(sam)).description()["sam"]

    def other_decoder(sam):
        sam.mask_decoder.iou_token.weight.data += 1

    assert described(0) == described(1)
    assert described(0, other_decoder) != described(0)


def test_batch_norm_sees_all_images_at_once():
    teacher, asked = AdaptedTeacher(adapted()), []
    teacher.sam.register_forward_hook(
        lambda _, given, out: asked.append((len(out), out.requires_grad))
    )
    teacher.answer(torch.rand(4, 3, 64, 64), torch.randn(4, CLASSES, 64, 64), trained=2)
    assert asked == [(4, True)]
