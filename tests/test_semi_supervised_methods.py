"""Each method's own equations, against values worked out apart from its step."""

import math

import pytest
import torch
from tiny_family import CLASSES, WIDTHS, build, stream, unet
from torch import nn
from torch.nn import functional

from lib.data.augment import copy_paste_box, cutmix
from lib.losses.segmentation import cross_entropy, dice_loss
from lib.models.multi_decoder import MultiDecoder
from lib.models.multi_scale import FeatureNoise, MultiScale
from lib.models.unet_2d import UNet2d
from lib.training.averaging import averaged_copy, early_decay, move_average
from lib.training.bcp import Bcp, BcpConfig, largest_components
from lib.training.cps import Cps, CpsConfig
from lib.training.fixmatch import FixMatch, FixMatchConfig
from lib.training.mc_net import McNet, McNetConfig
from lib.training.mean_teacher import MeanTeacher, MeanTeacherConfig, noisy
from lib.training.method import Progress, inference
from lib.training.semi_supervised import cutmix_view, labelled_view, strong_view, unlabelled_view
from lib.training.ua_mt import UaMt, UaMtConfig
from lib.training.unimatch import UniMatch, UniMatchConfig
from lib.training.urpc import Urpc, UrpcConfig

HALFWAY = Progress(50, 100)
RAMP = math.exp(-5 * 0.25)


class Pixelwise(nn.Module):
    """A network without normalisation or dropout: each pixel's logits depend on it alone."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, CLASSES, 1)
        nn.init.normal_(self.last.weight, std=3.0)

    def encode(self, image):
        return [self.first(image).tanh()]

    def decode(self, features):
        return self.last(features[0])

    def forward(self, image):
        return self.decode(self.encode(image))


@pytest.fixture
def batch():
    return stream().batch(1)


def supervised(logits, mask, entropy=0.5, dice=0.5):
    return (entropy * cross_entropy(logits, mask) + dice * dice_loss(logits, mask)).mean()


# -- the averaged teacher --------------------------------------------------------------------------


def test_the_average_moves_by_hand():
    student, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    teacher = averaged_copy(student)
    with torch.no_grad():
        other.weight.copy_(torch.tensor([3.0, 5.0]))
        other.running_mean.copy_(torch.tensor([10.0, -10.0]))
        other.num_batches_tracked.fill_(7)
    move_average(teacher, other, decay=0.9)
    assert teacher.weight.tolist() == pytest.approx([0.9 + 0.3, 0.9 + 0.5])
    assert teacher.running_mean.tolist() == pytest.approx([1.0, -1.0])
    assert teacher.num_batches_tracked == 7
    move_average(teacher, other, decay=0.9)
    assert teacher.weight[0].item() == pytest.approx(0.9 * 1.2 + 0.1 * 3)
    move_average(teacher, other, decay=0.0)
    assert torch.equal(teacher.weight, other.weight)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_the_teacher_keeps_no_statistics_of_its_own():
    network = unet()
    teacher = averaged_copy(network)
    before = {k: v.clone() for k, v in teacher.state_dict().items() if "running" in k}
    teacher.train()(torch.rand(2, 3, 16, 16))
    assert before
    assert all(torch.equal(teacher.state_dict()[k], v) for k, v in before.items())


def test_early_averages_are_plain_means():
    assert [early_decay(0.99, step) for step in (0, 1, 3)] == [0.0, 0.5, 0.75]
    assert early_decay(0.99, 98) == pytest.approx(1 - 1 / 99)
    assert early_decay(0.99, 1000) == 0.99


@pytest.mark.parametrize("name", ["Mean Teacher", "UA-MT"])
def test_the_teacher_follows_after_each_step(name):
    method = build(name)
    start = method.teacher.head if hasattr(method.teacher, "head") else method.teacher.decoder.head
    with torch.no_grad():
        method.network.decoder.head.bias.fill_(2.0)
    method.after_step(Progress(0, 1000))
    assert start.bias.tolist() == [2.0] * CLASSES
    with torch.no_grad():
        method.network.decoder.head.bias.fill_(3.0)
    method.after_step(Progress(500, 1000))
    assert start.bias.tolist() == pytest.approx([2.01] * CLASSES)


# -- Mean Teacher and UA-MT ------------------------------------------------------------------------


def test_mean_teacher_s_loss(batch):
    method = MeanTeacher(MeanTeacherConfig(noise=0.0), network=Pixelwise())
    method.teacher = Pixelwise(1).requires_grad_(False)
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    others = unlabelled_view(batch)
    labelled = supervised(method.network(images), masks)
    distance = (method.network(others).softmax(1) - method.teacher(others).softmax(1)) ** 2
    torch.testing.assert_close(losses.total, labelled + 0.1 * RAMP * distance.mean())


@pytest.mark.parametrize("kind", [(MeanTeacher, MeanTeacherConfig), (UaMt, UaMtConfig)])
def test_the_student_predicts_unless_the_teacher_is_asked_to(kind):
    method, config = kind
    image = torch.rand(1, 3, 4, 4)
    for asked in (False, True):
        built = method(config(predict_with_teacher=asked), network=Pixelwise())
        built.teacher = Pixelwise(1)
        assert torch.equal(built.predict(image), (built.teacher if asked else built.network)(image))
    assert not config().predict_with_teacher


def test_noise_is_cut_off_at_twice_its_deviation():
    image = torch.zeros(1, 3, 100, 100)
    noise = noisy(image, 0.1)
    assert noise.abs().max().item() == pytest.approx(0.2)
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(noisy(image, 0.0), image)


def test_ua_mt_leaves_out_what_the_teacher_is_unsure_of(batch):
    teacher = Pixelwise(1).requires_grad_(False)
    images, masks = labelled_view(batch)
    others = unlabelled_view(batch)
    target = teacher(others).softmax(1)
    entropy = -(target * target.log()).sum(1)
    middle = entropy.median().item() / math.log(CLASSES)
    config = UaMtConfig(noise=0.0, passes=2, first_threshold=middle, last_threshold=middle)
    method = UaMt(config, network=Pixelwise())
    method.teacher = teacher
    losses = method.step(batch, HALFWAY)
    keep = entropy < middle * math.log(CLASSES)
    assert 0.4 < keep.float().mean() < 0.6
    error = ((method.network(others).softmax(1) - target) ** 2).mean(1)[keep].mean()
    labelled = supervised(method.network(images), masks)
    torch.testing.assert_close(losses.total, labelled + 0.1 * RAMP * error)
    torch.testing.assert_close(losses["certain"], keep.float().mean())


def test_ua_mt_s_uncertainty_is_the_entropy_of_the_mean():
    class Alternating(nn.Module):
        calls = 0

        def forward(self, image):
            self.calls += 1
            certain = torch.full((len(image), 2, 1, 1), 30.0)
            certain[:, self.calls % 2] = -30.0
            return certain

    method = UaMt(UaMtConfig(passes=4), network=Pixelwise())
    method.teacher = Alternating()
    doubt = method.uncertainty(torch.rand(3, 3, 1, 1))
    torch.testing.assert_close(doubt, torch.full((3, 1, 1), math.log(2)))  # each pass is sure


def test_ua_mt_s_threshold_rises_to_the_largest_entropy():
    method = build("UA-MT")
    start, end = (method.threshold(Progress(s, 1000), classes=4) for s in (0, 999))
    assert start == pytest.approx((0.75 + 0.25 * math.exp(-5)) * math.log(4))
    assert end == pytest.approx(math.log(4), rel=1e-4)
    with pytest.raises(ValueError, match="passes must be at least 1"):
        UaMtConfig(passes=0)


# -- CPS -------------------------------------------------------------------------------------------


def test_cps_crosses_hard_labels_of_all_images(batch):
    method = Cps(CpsConfig(), network=Pixelwise(), second=Pixelwise(1))
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    everything = torch.cat([images, unlabelled_view(batch)])
    one, two = method.network(everything), method.second(everything)
    expected = supervised(one[: len(images)], masks) + supervised(two[: len(images)], masks)
    crossed = sum(
        -student.log_softmax(1).gather(1, teacher.argmax(1, keepdim=True)).mean()
        for student, teacher in ((one, two), (two, one))
    )
    torch.testing.assert_close(losses.total, expected + 1.5 * crossed)


def test_cps_ramp_up_and_equal_networks(batch):
    ramped = Cps(CpsConfig(cross_weight=0.1, ramp_up=1.0), network=Pixelwise(), second=Pixelwise(1))
    assert ramped.step(batch, HALFWAY)["cross_weight"] == pytest.approx(0.1 * RAMP)
    with pytest.raises(ValueError, match="equal weights: build them from two seeds"):
        Cps(CpsConfig(), network=Pixelwise(), second=Pixelwise())


# -- FixMatch and UniMatch -------------------------------------------------------------------------


def middle_confidence(network, batch):
    """A threshold that half of the weak view's pixels reach."""
    return network(unlabelled_view(batch)).softmax(1).amax(1).median().item()


def pseudo(network, weak, boxes, threshold):
    probability = cutmix(boxes, network(weak)).softmax(1)
    confidence, labels = probability.max(1)
    return labels, confidence >= threshold


def test_fixmatch_teaches_the_strong_view_by_the_weak_one(batch):
    threshold = middle_confidence(Pixelwise(), batch)
    method = FixMatch(FixMatchConfig(threshold=threshold), network=Pixelwise())
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    weak, boxes = unlabelled_view(batch), cutmix_view(batch)
    strong = cutmix(boxes, strong_view(weak, batch))
    labels, keep = pseudo(method.network, weak, boxes, threshold)
    assert 0 < keep.float().mean() < 1
    entropy = functional.cross_entropy(method.network(strong), labels, reduction="none")
    expected = supervised(method.network(images), masks) + (entropy * keep).mean()
    torch.testing.assert_close(losses.total, expected)


@pytest.mark.parametrize("form", ["cross_entropy", "dice"])
def test_unimatch_adds_half_the_features_and_half_the_mean_of_two_views(batch, form):
    threshold = middle_confidence(Pixelwise(), batch)
    config = UniMatchConfig(threshold=threshold, feature_dropout=0.0, unlabelled_loss=form)
    method = UniMatch(config, network=Pixelwise())
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    weak, parts = unlabelled_view(batch), []
    nowhere = torch.zeros(len(weak), 16, 16, dtype=torch.bool)
    views = [(weak, nowhere, 0.5)]  # without dropout the perturbed features are the weak view's
    for name in ("first", "second"):
        boxes = cutmix_view(batch, view=f"{name} cutmix")
        strong = strong_view(weak, batch, view=f"{name} strong")
        views.append((cutmix(boxes, strong), boxes, 0.25))
    for view, boxes, weight in views:
        labels, keep = pseudo(method.network, weak, boxes, threshold)
        logits = method.network(view)
        if form == "dice":
            p = (logits.softmax(1) * keep[:, None])[:, 1:]
            y = (functional.one_hot(labels, CLASSES).movedim(-1, 1) * keep[:, None])[:, 1:]
            ratio = (2 * (p * y).sum((0, 2, 3)) + 1) / ((p + y).sum((0, 2, 3)) + 1)
            parts.append(weight * (1 - ratio).mean())
        else:
            entropy = functional.cross_entropy(logits, labels, reduction="none")
            parts.append(weight * (entropy * keep).mean())
    expected = (supervised(method.network(images), masks) + sum(parts)) / 2
    torch.testing.assert_close(losses.total, expected)


def test_unimatch_drops_whole_channels_of_the_unlabelled_features(batch):
    network = Pixelwise()
    seen = []
    network.decode = lambda features: (seen.append(features[0]), network.last(features[0]))[1]
    UniMatch(UniMatchConfig(), network=network).step(batch, HALFWAY)
    images, weak, dropped = seen[0].detach().split(4)
    gone = (dropped == 0).flatten(2).all(2)
    assert 0 < gone.float().mean() < 1
    torch.testing.assert_close(dropped[~gone], 2 * weak[~gone])
    assert not (images == 0).any()


def test_unimatch_needs_features():
    with pytest.raises(ValueError, match="without encode and decode"):
        UniMatch(UniMatchConfig(), network=nn.Conv2d(3, 2, 1))
    with pytest.raises(ValueError, match="unlabelled_loss must be one of"):
        UniMatchConfig(unlabelled_loss="focal")


# -- URPC and MC-Net+ ------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Three predictions that are no U-Net's."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(Pixelwise(seed) for seed in range(3))

    def scales(self, image):
        return [part(image) for part in self.parts]

    answers = scales


def test_urpc_s_loss(batch):
    method = Urpc(UrpcConfig(), network=Scaled())
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    others = unlabelled_view(batch)
    labelled = sum(supervised(part(images), masks) for part in method.network.parts) / 3
    p = [part(others).softmax(1) for part in method.network.parts]
    mean = sum(p) / 3
    rectified = doubts = 0.0
    for one in p:
        doubt = (one * (one / mean).log()).sum(1)
        weight = (-doubt).exp()
        rectified = rectified + (((one - mean) ** 2).mean(1) * weight).sum() / weight.sum() / 3
        doubts = doubts + doubt.mean() / 3
    torch.testing.assert_close(losses.total, labelled + 0.1 * RAMP * (rectified + doubts))
    with pytest.raises(ValueError, match="MultiScale"):
        Urpc(UrpcConfig(), network=Pixelwise())


def test_mc_net_s_loss(batch):
    method = McNet(McNetConfig(), network=Scaled())
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    everything = torch.cat([images, unlabelled_view(batch)])
    labelled = sum(dice_loss(part(images), masks).mean() for part in method.network.parts)
    p = [part(everything).softmax(1) for part in method.network.parts]
    sharp = [one**10 / (one**10 + (1 - one) ** 10) for one in p]
    six = [((p[i] - sharp[j]) ** 2).mean() for i in range(3) for j in range(3) if i != j]
    assert len(six) == 6
    torch.testing.assert_close(losses.total, labelled + 0.1 * RAMP * sum(six))
    with pytest.raises(ValueError, match="MultiDecoder"):
        McNet(McNetConfig(), network=Pixelwise())
    with pytest.raises(ValueError, match="temperature must be above 0"):
        McNetConfig(temperature=0)


def test_multi_scale_network():
    torch.manual_seed(0)
    network = MultiScale(classes=3, widths=WIDTHS, dropouts=(0.0,) * 3).eval()
    image = torch.rand(2, 3, 16, 16)
    scales = network.scales(image)
    assert [one.shape for one in scales] == [(2, 3, 16, 16)] * 2  # three levels, two decoded
    assert torch.equal(scales[0], network(image))
    assert torch.equal(network.decode(network.encode(image)), network(image))
    coarse = network.heads[0][2](network.network.decoder.levels(network.encode(image))[0])
    assert coarse.shape == (2, 3, 8, 8)
    expected = functional.interpolate(coarse, (16, 16), mode="bilinear")
    torch.testing.assert_close(scales[1], expected)


def test_feature_noise_is_for_training_alone():
    torch.manual_seed(0)
    features, noise = torch.rand(2, 3, 8, 8) + 0.5, FeatureNoise(0.3)
    assert torch.equal(noise.eval()(features), features)
    ratio = noise.train()(features) / features
    assert 0.7 <= ratio.min() < 0.75
    assert 1.25 < ratio.max() <= 1.3
    torch.testing.assert_close(ratio[0], ratio[1])


def test_multi_decoder_network():
    torch.manual_seed(0)
    network = MultiDecoder(classes=3, widths=WIDTHS, dropouts=(0.0,) * 3).eval()
    image = torch.rand(2, 3, 16, 16)
    answers = network.answers(image)
    assert [one.shape for one in answers] == [(2, 3, 16, 16)] * 3
    assert torch.equal(answers[0], network(image))
    assert not torch.allclose(answers[1], answers[2])
    single = UNet2d(classes=3, widths=WIDTHS, dropouts=(0.0,) * 3).eval()
    single.encoder, single.decoder = network.encoder, network.decoders[0]
    assert torch.equal(single(image), answers[0])


# -- BCP -------------------------------------------------------------------------------------------


def region(logits, mask, keep):
    """Mean cross-entropy and pooled Dice of the kept pixels, halved."""
    entropy = functional.cross_entropy(logits, mask, reduction="none")[:, keep].mean()
    p = logits.softmax(1)[..., keep][:, 1:]
    y = functional.one_hot(mask[:, keep], CLASSES).movedim(-1, 1)[:, 1:]
    ratio = (2 * (p * y).sum((0, 2)) + 1) / ((p + y).sum((0, 2)) + 1)
    return (entropy + (1 - ratio).mean()) / 2


def bcp(**changes):
    method = Bcp(BcpConfig(largest_component=False, **changes), network=Pixelwise())
    method.teacher = Pixelwise(1).requires_grad_(False)
    return method


def test_bcp_pretrains_on_pairs_of_labelled_images(batch):
    method = bcp()
    losses = method.step(batch, Progress(24, 100))
    images, masks = labelled_view(batch)
    box = copy_paste_box((16, 16), key=(batch.seed, 0, batch.step, "box"))
    logits = method.network(torch.where(box, images[2:], images[:2]))
    expected = region(logits, masks[2:], box) + region(logits, masks[:2], ~box)
    torch.testing.assert_close(losses.total, expected)
    assert not method.pretrains(Progress(25, 100))


def test_bcp_pastes_both_ways(batch):
    method = bcp()
    losses = method.step(batch, HALFWAY)
    images, masks = labelled_view(batch)
    others = unlabelled_view(batch)
    guess = method.teacher(others).argmax(1)
    box = copy_paste_box((16, 16), key=(batch.seed, 0, batch.step, "box"))
    inward = method.network(torch.where(box, images[2:], others[:2]))
    outward = method.network(torch.where(box, others[2:], images[:2]))
    first = region(inward, masks[2:], box) + 0.5 * region(inward, guess[:2], ~box)
    second = 0.5 * region(outward, guess[2:], box) + region(outward, masks[:2], ~box)
    torch.testing.assert_close(losses["inward"], first)
    torch.testing.assert_close(losses["outward"], second)
    torch.testing.assert_close(losses.total, first + second)


def test_bcp_s_teacher_starts_where_pretraining_ends():
    method = bcp()
    method.after_step(Progress(24, 100))
    assert torch.equal(method.teacher.last.weight, method.network.last.weight)
    with torch.no_grad():
        method.network.last.bias += 1
    before = method.teacher.last.bias.clone()
    method.after_step(Progress(25, 100))
    torch.testing.assert_close(method.teacher.last.bias, before + 0.01)


def test_largest_component_of_each_class():
    labels = torch.zeros(2, 6, 6, dtype=torch.int64)
    labels[0, 0, 0] = labels[0, 3:5, 3:5] = 2
    labels[0, 5, 0:2] = 3
    kept = largest_components(labels)
    assert kept[0, 0, 0] == 0
    assert (kept[0, 3:5, 3:5] == 2).all()
    assert (kept[0, 5, 0:2] == 3).all()
    assert kept.sum() == 4 * 2 + 2 * 3
    method = Bcp(BcpConfig(), network=Pixelwise())
    images = torch.rand(2, 3, 8, 8)
    with inference(method):
        assert torch.equal(
            method.pseudo_labels(images), largest_components(method.network(images).argmax(1))
        )


def test_bcp_names_what_does_not_fit():
    for labelled, unlabelled in ((3, 3), (4, 2)):
        batch = stream(labelled_batch=labelled, unlabelled_batch=unlabelled).batch(0)
        with pytest.raises(ValueError, match="labelled_batch equal to unlabelled_batch and even"):
            bcp().step(batch, HALFWAY)
    with pytest.raises(ValueError, match=r"pretraining must be in \[0, 1\]"):
        BcpConfig(pretraining=1.5)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (MeanTeacherConfig, "ramp_up"),
        (CpsConfig, "ramp_up"),
        (MeanTeacherConfig, "decay"),
        (UniMatchConfig, "feature_dropout"),
        (BcpConfig, "pretraining"),
    ],
)
def test_shares_above_1_are_refused(config, name):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], not 1.5"):
        config(**{name: 1.5})


def test_without_a_ramp_the_weight_is_whole_from_the_first_step(batch):
    losses = build("Mean Teacher", ramp_up=0.0).step(batch, Progress(0, 10))
    assert losses["consistency_weight"] == MeanTeacherConfig().consistency_weight


@pytest.mark.parametrize(
    ("kind", "config", "asked"),
    [(MeanTeacher, MeanTeacherConfig(noise=0.1), 1), (UaMt, UaMtConfig(noise=0.1, passes=3), 4)],
)
def test_the_teacher_alone_sees_noise(batch, kind, config, asked):
    method, taught, learnt = kind(config, network=Pixelwise()), [], []
    method.teacher.register_forward_pre_hook(lambda _, given: taught.append(given[0]))
    method.network.register_forward_pre_hook(lambda _, given: learnt.append(given[0]))
    method.step(batch, HALFWAY)
    others = unlabelled_view(batch)
    assert torch.equal(learnt[0][-len(others) :], others)
    assert [(x - others).std().item() for x in taught] == pytest.approx([0.1] * asked, rel=0.2)
