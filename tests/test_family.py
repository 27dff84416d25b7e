"""The SAM relatives of the family, and the whole family at one budget."""

import math
from functools import partial

import pytest
import torch
from test_sam_distillation import adapted, box_sam
from test_semi_supervised_methods import HALFWAY, RAMP, Pixelwise, supervised
from tiny_family import CLASSES, stream
from tiny_sam import tiny_sam
from tiny_training import same
from torch.nn import functional

from lib.sam.frozen import FrozenSam
from lib.training.family import BASELINES, NAMES, WITH_SAM, Budget, batches, build_method
from lib.training.loop import fit
from lib.training.method import Progress, inference
from lib.training.prompted_sam import PromptedSam
from lib.training.semi_sam import SemiSam, SemiSamConfig
from lib.training.semi_supervised import labelled_view, unlabelled_view
from lib.training.supervised_baseline import SupervisedBaseline, SupervisedBaselineConfig
from lib.training.two_way_sam import TwoWaySam, TwoWaySamConfig

BUDGET = Budget(widths=(4, 4, 4, 4, 6), labelled_batch=4, unlabelled_batch=4, steps=2, size=16)


def fresh_sam():
    return tiny_sam(64)


def tiny(name, **changes):
    return build_method(name, classes=CLASSES, budget=BUDGET, sam=fresh_sam, **changes)


# -- frozen SAM as a regulariser -------------------------------------------------------------------


def test_semi_sam_s_loss():
    batch = stream().batch(1)
    method = SemiSam(SemiSamConfig(noise=0.0), network=Pixelwise(), sam=box_sam())
    method.teacher = Pixelwise(1).requires_grad_(False)
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    others = unlabelled_view(batch)
    student = method.network(others).softmax(1)
    average = ((student - method.teacher(others).softmax(1)) ** 2).mean()
    logits, answered = PromptedSam(box_sam()).logits(others, student)
    sam = functional.one_hot(logits.argmax(1), CLASSES).movedim(-1, 1)
    assert answered.any()
    assisted = ((student - sam) ** 2)[answered].mean()
    expected = supervised(method.network(images), masks) + RAMP * (0.1 * average + 0.05 * assisted)
    torch.testing.assert_close(losses.total, expected)


def test_semi_sam_relies_on_sam_less_and_less():
    method = SemiSam(SemiSamConfig(), network=Pixelwise(), sam=box_sam())
    batch = stream().batch(0)
    weights = [method.step(batch, Progress(step, 100))["sam_weight"] for step in (0, 50, 99)]
    expected = [0.05 * math.exp(-5 * t * t) for t in (0, 0.5, 0.99)]
    assert weights == pytest.approx(expected)


# -- two ways --------------------------------------------------------------------------------------


def test_two_way_sam_s_loss_and_gradients():
    batch = stream(labelled_batch=2, unlabelled_batch=2).batch(1)
    config = TwoWaySamConfig(to_network=0.5, to_sam=0.25)
    method = TwoWaySam(config, network=Pixelwise(), sam=adapted(prompts=False))
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    together = torch.cat([images, unlabelled_view(batch)])
    network = method.network(together)
    sam = method.sam.answer(together, network.detach(), trained=4)
    own, other = network.argmax(1)[2:], sam.argmax(1)[2:]
    expected = supervised(network[:2], masks) + supervised(sam[:2], masks)
    exchange = 0.5 * supervised(network[2:], other) + 0.25 * supervised(sam[2:], own)
    torch.testing.assert_close(losses.total, expected + RAMP * exchange)

    def reaches(loss, module):
        parameters = list(module.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return any(gradient is not None for gradient in gradients)

    for name, network_learns in {"to_network": True, "supervised": True, "to_sam": False}.items():
        assert reaches(losses[name], method.network) == network_learns
        assert reaches(losses[name], method.sam) != network_learns
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(method.predict(image), method.network(image))
    assert method.predict_with_sam(image).shape == (1, CLASSES, 16, 16)


# -- the baseline ----------------------------------------------------------------------------------


def test_the_baseline_is_the_supervised_loss_alone():
    batch = stream().batch(1)
    method = SupervisedBaseline(SupervisedBaselineConfig(), network=Pixelwise())
    images, masks = labelled_view(batch)
    torch.testing.assert_close(
        method.step(batch, HALFWAY).total, supervised(method.network(images), masks)
    )
    assert SupervisedBaselineConfig().unlabelled_batch == 0
    assert SupervisedBaselineConfig.quick().unlabelled_batch == 0


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_method_trains_and_predicts_four_classes(name):
    method = tiny(name)
    history = fit(method, stream(**batches(method)), steps=1, device="cpu", progress=False)
    assert len(history.steps) == 1
    with inference(method):
        assert method.predict(torch.rand(2, 3, 16, 16)).shape == (2, CLASSES, 16, 16)


@pytest.mark.parametrize("name", ["supervised U-Net", "MC-seg"])
def test_distillation_is_one_word(name):
    method = tiny(name, distillation="adapted")
    assert batches(method) == {"labelled_batch": 4, "unlabelled_batch": 4}
    fit(method, stream(**batches(method)), steps=1, device="cpu", progress=False)
    frozen = tiny(name, distillation="frozen")
    assert same(frozen.method.state_dict(), tiny(name).state_dict())
    two = tiny(name, distillation="frozen", freeze=partial(FrozenSam, encode_at_once=2))
    assert two.teacher.prompted.sam.encode_at_once == 2


@pytest.mark.parametrize("name", ["SemiSAM", "BCP", "URPC", "MC-Net+", "CPS"])
def test_bfloat16(name):
    method = tiny(name, distillation="frozen")
    loose = {"device": "cpu", "progress": False, "precision": "bf16-mixed"}
    history = fit(method, stream(**batches(method)), steps=1, **loose)
    exact = tiny(name, distillation="frozen")
    whole = fit(exact, stream(**batches(exact)), steps=1, device="cpu", progress=False)
    # How many images the frozen SAM is asked about hangs on rounding here; what it says does not.
    for half, full in zip(_own_and_sam(history), _own_and_sam(whole), strict=True):
        assert half == pytest.approx(full, rel=0.05)


def _own_and_sam(history):
    """The method's own loss, and SAM's for each image that it was asked about."""
    row = history.steps[0]
    share = row["sam_distillation"] / row["sam_answered"] if row["sam_answered"] else 0.0
    return row["total"] - row["sam_distillation"], share


def test_u_nets_start_alike_and_the_global_generator_stays():
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    first = next(tiny("Mean Teacher").network.parameters())
    for name in ("supervised U-Net", "CPS", "URPC", "MC-Net+"):
        assert torch.equal(next(tiny(name).network.parameters()), first)
    assert not torch.equal(next(tiny("BCP", seed=1).network.parameters()), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sizes_are_knowsam_s():
    def parameters(name):
        method = build_method(name, classes=2)
        return sum(p.numel() for p in method.network.parameters())

    assert parameters("supervised U-Net") == 1_944_322
    assert parameters("supervised V-Net") == 3_265_986


def test_budgets_reach_the_configuration_and_changes_go_before():
    config = tiny("UA-MT", passes=3, steps=7).config
    assert (config.labelled_batch, config.size, config.passes, config.steps) == (4, 16, 3, 7)
    for name in BASELINES:
        assert batches(tiny(name)) == {"labelled_batch": 4, "unlabelled_batch": 0}
    quick, whole = Budget.quick(), Budget()
    assert quick.widths == whole.widths
    assert (whole.labelled_batch, whole.steps, whole.size) == (12, 50_000, 256)


def test_what_cannot_be_built_is_named():
    with pytest.raises(ValueError, match="no method is called 'MT'; there are supervised U-Net"):
        build_method("MT", classes=2)
    with pytest.raises(ValueError, match="distillation must be frozen, adapted or None"):
        tiny("BCP", distillation="big")
    for name in WITH_SAM:
        with pytest.raises(ValueError, match="needs a SAM"):
            build_method(name, classes=2, budget=BUDGET)


def test_the_students_of_both_co_trainings_start_equal():
    """A SAM that draws random numbers when it is built changes nothing for the students."""

    def random_sam():
        torch.rand(7)
        return fresh_sam()

    mc_seg, knowsam = (
        build_method(name, classes=CLASSES, budget=BUDGET, sam=random_sam)
        for name in ("MC-seg", "KnowSAM")
    )
    assert same(mc_seg.students.state_dict(), knowsam.students.state_dict())


def test_cps_with_ramp_up_differs_in_its_weight_alone():
    plain, gentle = (tiny(name).hyperparameters() for name in ("CPS", "CPS, ramp-up"))
    changed = {key: gentle[key] for key in plain if plain[key] != gentle[key]}
    assert changed == {"cross_weight": 0.1, "ramp_up": 1.0}
