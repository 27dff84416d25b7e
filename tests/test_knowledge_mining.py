"""Knowledge Mining: schedules, controls, filters, and what must never be read or trained."""

from types import SimpleNamespace

import pytest
import torch
from tiny_sam import tiny_sam
from torch import nn

from lib.data.augment import weak_batch
from lib.data.batches import BatchStream
from lib.losses.segmentation import bce_dice
from lib.prompts.from_masks import PromptConfig
from lib.sam.frozen import FrozenSam
from lib.sam.small import build_small_sam
from lib.training.knowledge_mining import KnowledgeMining, KnowledgeMiningConfig, continuous
from lib.training.loop import fit
from lib.training.method import Progress
from lib.training.mining import Filter, mine, overlap, unite
from lib.training.pseudo_labels import PseudoLabels

SIZE = 32
LABELLED, UNLABELLED = [0, 1, 2, 3], [4, 5, 6, 7, 8, 9]


class Squares:
    """Bright squares on a dark ground; the masks of `poisoned` images raise when read."""

    def __init__(self, poisoned=()):
        self.names = [f"square{i}" for i in range(10)]
        self.poisoned = set(poisoned)

    size = SIZE

    def __len__(self):
        return len(self.names)

    def fingerprint(self):
        return "squares"

    def mask(self, i):
        if i in self.poisoned:
            raise AssertionError(f"the mask of unlabelled image {i} was read")
        mask = torch.zeros(SIZE, SIZE, dtype=torch.int64)
        mask[4 + i : 16 + i, 6:20] = 1
        return mask

    def image(self, i):
        noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(i))
        bright = torch.zeros(SIZE, SIZE)
        bright[4 + i : 16 + i, 6:20] = 0.6
        return (bright + 0.3 * noise).clamp(0, 1)


SAM = tiny_sam(64)  # whose weights name the run


def stub_sam():
    """A SAM that fills each prompt's box; its predicted IoU is 0.9."""

    def decode(embeddings, prompts, image_index, size, multimask="auto"):
        logits = torch.full((len(prompts), 1, *size), -5.0)
        for k, prompt in enumerate(prompts):
            x0, y0, x1, y1 = prompt.box.int().tolist()
            logits[k, 0, y0 : y1 + 1, x0 : x1 + 1] = 5.0
        return SimpleNamespace(logits=logits, iou=torch.full((len(prompts), 1), 0.9))

    return SimpleNamespace(encode=lambda images: images, decode=decode, sam=SAM)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )


def stream(dataset, unlabelled_batch=2):
    return BatchStream(
        dataset,
        labelled=LABELLED,
        unlabelled=UNLABELLED,
        labelled_batch=2,
        unlabelled_batch=unlabelled_batch,
        seed=3,
    )


def method(config, *, sam=None, net=None, **parts):
    return KnowledgeMining(
        config,
        network=net or network(),
        pseudo=PseudoLabels(UNLABELLED, (SIZE, SIZE)),
        sam=sam,
        **parts,
    )


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("source", ["sam", "network", "none"])
def test_masks_of_unlabelled_images_are_never_read(source):
    config = KnowledgeMiningConfig(source=source, rounds=2, learning_rate=1e-2)
    run = method(config, sam=stub_sam())
    fit(run, stream(Squares(poisoned=UNLABELLED)), steps=4, progress=False)
    with pytest.raises(AssertionError, match="was read"):  # the poison works
        Squares(poisoned=UNLABELLED).mask(UNLABELLED[0])


def test_the_upper_bound_reads_them_and_only_the_upper_bound_may():
    clean = Squares()
    run = method(KnowledgeMiningConfig(source="truth"), sam=stub_sam(), truth=clean.mask)
    fit(run, stream(clean), steps=1, progress=False)
    masks, valid = run.pseudo.get(UNLABELLED)
    assert valid.all()
    assert torch.equal(masks, torch.stack([clean.mask(i) for i in UNLABELLED]))  # box = square
    with pytest.raises(ValueError, match="upper bound"):
        method(KnowledgeMiningConfig(source="sam"), sam=stub_sam(), truth=clean.mask)
    with pytest.raises(ValueError, match="needs a SAM"):
        method(KnowledgeMiningConfig(source="sam"))


def test_sam_gets_no_gradient_and_does_not_change():
    torch.manual_seed(0)
    sam = build_small_sam()
    before = weights(sam).clone()
    net = network()
    with torch.no_grad():  # a network that always predicts an object, so that SAM is prompted
        net[3].bias.copy_(torch.tensor([-9.0, 9.0]))
    run = method(KnowledgeMiningConfig(), sam=FrozenSam(sam), net=net)
    fit(run, stream(Squares()), steps=1, progress=False)
    assert run.log[0]["prompts"] == len(UNLABELLED)
    assert all(p.grad is None and not p.requires_grad for p in sam.parameters())
    assert torch.equal(weights(sam), before)
    assert not any("sam" in name for name, _ in run.named_parameters())


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (KnowledgeMiningConfig(), [0]),
        (continuous(), [0, 2, 4, 6, 8]),
        (continuous(rounds=3), [0, 4, 7]),
    ],
)
def test_schedules_mine_at_the_start_of_each_part(config, steps):
    run = method(config, sam=stub_sam())
    fit(run, stream(Squares()), steps=10, progress=False)
    assert [entry["step"] for entry in run.log] == steps


def test_continuous_changes_nothing_but_the_rounds():
    assert continuous() == KnowledgeMiningConfig(rounds=5)


def test_without_a_source_it_is_plain_fine_tuning():
    run = method(KnowledgeMiningConfig(source="none", learning_rate=1e-2))
    batches = stream(Squares(), unlabelled_batch=0)
    before = weights(run).clone()
    losses = run.step(batches.batch(0), Progress(0, 1))
    assert losses["total"] is losses["supervised"]
    assert run.log == []
    fit(run, batches, steps=2, progress=False)
    assert not torch.equal(weights(run), before)


def test_total_is_supervised_plus_weighted_pseudo_loss():
    batch = stream(Squares()).batch(0)
    run = method(KnowledgeMiningConfig(pseudo_weight=0.25), sam=stub_sam())
    for index in UNLABELLED:
        run.pseudo.put(index, torch.ones(SIZE, SIZE))
    losses = run.step(batch, Progress(0, 1))
    expected = losses["supervised"] + 0.25 * losses["pseudo"]
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-6)
    assert losses["pseudo"] > 0


def test_images_without_a_pseudo_label_do_not_train():
    batch = stream(Squares()).batch(0)
    run = method(KnowledgeMiningConfig(), sam=stub_sam())
    assert run.step(batch, Progress(0, 1))["pseudo"].item() == 0.0


def test_labels_follow_the_image_through_augmentation():
    """A network that reads the mask off the image scores a small loss on augmented pairs."""
    data = Squares()
    net = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1] = 40.0
        net.bias.copy_(torch.tensor([0.0, -60.0]))
    run = method(KnowledgeMiningConfig(), sam=stub_sam(), net=net)
    for index in UNLABELLED:
        run.pseudo.put(index, data.mask(index))
    assert run.step(stream(data).batch(0), Progress(0, 1))["pseudo"] < 0.3
    for index in UNLABELLED:
        run.pseudo.put(index, data.mask(index).flip(0))
    assert run.step(stream(data).batch(0), Progress(0, 1))["pseudo"] > 0.6


def test_resumed_run_keeps_its_pseudo_labels(tmp_path):
    def run(directory, steps_before=None):
        trained = method(continuous(learning_rate=1e-2), sam=stub_sam())
        batches = stream(Squares())
        settings = {"directory": directory, "checkpoint_every": 1, "progress": False}
        if steps_before is not None:
            stop_at(trained, steps_before)
            with pytest.raises(KeyboardInterrupt):
                fit(trained, batches, steps=10, **settings)
            assert list(directory.iterdir())  # or it would start over
            trained = method(continuous(learning_rate=1e-2), sam=stub_sam())
        fit(trained, batches, steps=10, **settings)
        return trained

    whole, resumed = run(tmp_path / "whole"), run(tmp_path / "resumed", steps_before=5)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.log == resumed.log
    assert torch.equal(whole.pseudo.masks, resumed.pseudo.masks)


def stop_at(run, step):
    """Make `run` be interrupted as by Ctrl-C once `step` steps are done."""
    original = run.after_step

    def after_step(progress):
        original(progress)
        if progress.step + 1 == step:
            raise KeyboardInterrupt

    run.after_step = after_step


# -- one round of mining -----------------------------------------------------------------------


def two_probabilities():
    """An image with one 4 x 6 object, and one with nothing in it."""
    probabilities = torch.zeros(2, 2, SIZE, SIZE)
    probabilities[:, 0] = 1.0
    probabilities[0, 1, 8:12, 10:16] = 0.9
    probabilities[0, 0] = 1 - probabilities[0, 1]
    return probabilities


def mined(trust, sam=None):
    return mine(
        two_probabilities(),
        lambda positions: torch.zeros(len(positions), 1),
        sam or stub_sam(),
        prompts=PromptConfig(),
        trust=trust,
    )


def test_nothing_found_is_no_prompt_and_is_not_encoded():
    asked = []
    sam = stub_sam()

    def embeddings(positions):
        asked.extend(positions)
        return torch.zeros(len(positions), 1)

    first, second = mine(
        two_probabilities(), embeddings, sam, prompts=PromptConfig(), trust=Filter()
    )
    assert asked == [0]
    assert (first.outcome, second.outcome) == ("kept", "no prompt")
    assert int(first.mask.sum()) == 4 * 6
    assert second.mask is None


def test_of_several_classes_the_likeliest_is_prompted_even_below_one_half():
    """(0.3, 0.4, 0.3): the likeliest class is 1 there, as a self-trained label would say."""
    probabilities = torch.zeros(1, 3, SIZE, SIZE)
    probabilities[:, 0] = 1.0
    probabilities[0, :, 8:12, 10:16] = torch.tensor([0.3, 0.4, 0.3]).view(3, 1, 1)
    (result,) = mine(
        probabilities,
        lambda positions: torch.zeros(len(positions), 1),
        stub_sam(),
        prompts=PromptConfig(),
        trust=Filter(),
    )
    assert [prompt.box.tolist() for prompt in result.prompts] == [[10, 8, 15, 11]]
    assert torch.equal(result.mask.long(), probabilities[0].argmax(0))


@pytest.mark.parametrize(
    ("trust", "outcome"),
    [
        (Filter(predicted_iou=0.89), "kept"),
        (Filter(predicted_iou=0.91), "low predicted IoU"),
        (Filter(agreement=1.0), "kept"),
    ],
)
def test_filters_on_a_perfect_mask(trust, outcome):
    assert mined(trust)[0].outcome == outcome


def test_filter_on_agreement():
    """SAM answers with the left half of the box: IoU with the network's mask is 1/2."""

    def half(embeddings, prompts, image_index, size, multimask="auto"):
        decoded = stub_sam().decode(embeddings, prompts, image_index, size)
        decoded.logits[..., 13:] = -5.0
        return decoded

    sam = SimpleNamespace(decode=half)
    kept, refused = mined(Filter(agreement=0.5), sam)[0], mined(Filter(agreement=0.51), sam)[0]
    assert kept.agreement == pytest.approx(0.5)
    assert (kept.outcome, refused.outcome) == ("kept", "low agreement")
    assert refused.mask is None


def test_an_empty_answer_is_no_pseudo_label():
    def nothing(embeddings, prompts, image_index, size, multimask="auto"):
        decoded = stub_sam().decode(embeddings, prompts, image_index, size)
        decoded.logits.fill_(-1.0)
        return decoded

    result = mined(Filter(), SimpleNamespace(decode=nothing))[0]
    assert (result.outcome, result.mask) == ("empty", None)


def test_unite_takes_the_class_of_the_highest_logit():
    logits = torch.tensor([[[2.0, -1.0, 1.0]], [[-3.0, -2.0, 4.0]]])
    assert unite(logits, [1, 2]).tolist() == [[1, 0, 2]]


def test_overlap_by_hand():
    a = torch.tensor([[1, 1, 0, 2]])
    b = torch.tensor([[1, 0, 0, 2]])
    assert overlap(a, b) == pytest.approx((1 / 2 + 1) / 2)
    assert overlap(torch.zeros(2, 2), torch.zeros(2, 2)) == 1.0
    assert overlap(a, torch.zeros(1, 4, dtype=torch.int64)) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "oracle"},
        {"rounds": 0},
        {"learning_rate": 0.0},
        {"pseudo_weight": -1.0},
    ],
)
def test_bad_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KnowledgeMiningConfig(**wrong)


def test_bce_dice_is_the_same_loss_for_both_halves():
    """All pseudo labels equal to the truth: the pseudo loss is the supervised loss of that half."""
    batch = stream(Squares()).batch(0)
    run = method(KnowledgeMiningConfig(), sam=stub_sam())
    run.eval()  # BatchNorm must not couple the halves here
    for index in UNLABELLED:
        run.pseudo.put(index, torch.zeros(SIZE, SIZE))
    pseudo = run.step(batch, Progress(0, 1))["pseudo"]
    part = batch.unlabelled
    images, masks = weak_batch(
        part.image,
        torch.zeros(len(part.index), SIZE, SIZE, dtype=torch.int64),
        seed=batch.seed,
        epoch=part.epoch,
        indices=part.index,
    )
    assert pseudo.item() == pytest.approx(bce_dice(run.network(images), masks).item(), abs=1e-5)


# -- whose image, whose prompt ---------------------------------------------------------------------


def test_prompts_go_to_their_own_image():
    probabilities = torch.zeros(3, 2, SIZE, SIZE)
    probabilities[1, 1, 8:12, 10:16] = probabilities[2, 1, 20:24, 4:9] = 0.9
    probabilities[:, 0] = 1 - probabilities[:, 1]
    asked = []

    def decode(embeddings, prompts, index, size, multimask="auto"):
        asked.append((embeddings.flatten().tolist(), list(index)))
        return stub_sam().decode(embeddings, prompts, index, size)

    found = mine(
        probabilities,
        lambda places: torch.tensor(places)[:, None],
        SimpleNamespace(decode=decode),
        prompts=PromptConfig(),
        trust=Filter(),
    )
    assert asked == [([1, 2], [0, 1])]
    assert [mined.outcome for mined in found] == ["no prompt", "kept", "kept"]


def always(bias):
    """A network that sees the object everywhere (bias above 0) or nowhere."""
    net = nn.Sequential(nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([0.0, bias]))
    return net


def test_sam_sees_the_finer_picture_of_the_same_image():
    asked = []

    def finer(index):
        asked.append(index)
        return torch.zeros(3, 64, 64)

    config = KnowledgeMiningConfig(batch=4)
    run = method(config, sam=stub_sam(), net=always(9.0), sam_image=finer)
    run.mine_all(Squares(), UNLABELLED)
    assert asked == UNLABELLED


def test_self_training_without_an_object_has_no_label():
    run = method(KnowledgeMiningConfig(source="network"), net=always(-9.0))
    assert {mined.outcome for mined in run.mine_all(Squares(), UNLABELLED)} == {"no prompt"}
    assert not run.pseudo.get(UNLABELLED)[1].any()


def test_mining_is_inference():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    run = method(KnowledgeMiningConfig(source="network"), net=net)
    run.train().mine_all(Squares(), UNLABELLED)
    assert net[1].num_batches_tracked == 0
    assert net.training
