"""ESP-MedSAM's stages: what each loss is, what each stage trains and what it must not touch."""

import copy
import math

import pytest
import torch
from tiny_esp import NAMES, WIDTH, images, mixture, tiny_esp, tiny_teacher
from tiny_sam import tiny_sam
from tiny_training import same
from torch.nn import functional

from lib.data.batches import BatchStream
from lib.data.mixture import BalancedStream
from lib.losses.mask_and_patch import focal_like, mask_loss, patch_loss
from lib.models.esp_medsam import EspMedSam
from lib.prompts.self_patch import patch_targets
from lib.sam.embeddings import EmbeddingCache
from lib.sam.frozen import FrozenSam
from lib.training.esp_medsam import (
    ClassifierConfig,
    ClassifierTraining,
    CommonConfig,
    CommonDistillation,
    ControllerConfig,
    ControllerDistillation,
    EspSegmentation,
    JointConfig,
    JointDistillation,
    SegmentationConfig,
    StemFeatures,
    TeacherEmbeddings,
    copy_heads,
    embedding_scores,
    evaluate_modalities,
    modality_of,
)
from lib.training.esp_medsam.parts import flipped_views
from lib.training.loop import fit
from lib.training.method import Progress

DATA = mixture()


def stream(batch=3, kind=BalancedStream, labelled=range(12), seed=3, data=DATA, **changes):
    return kind(data, labelled=labelled, labelled_batch=batch, seed=seed, **changes)


def of(name, batch=2, **changes):
    return stream(batch, BatchStream, DATA.members(name), **changes)


def fitted(method, batches, **settings):
    return fit(method, batches, device="cpu", progress=False, **settings)


def train(method, batches, steps=2, **settings):
    fitted(method, batches, steps=steps, **settings)
    return method


def changed(before, after):
    """Names of the tensors that differ between two state dicts."""
    return {key for key in before if not torch.equal(before[key], after[key])}


def state(module):
    return copy.deepcopy(module.state_dict())


# -- losses ----------------------------------------------------------------------------------------


def test_mask_loss_by_hand():
    logit = math.log(3)  # probability 0.75
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[logit, logit], [-logit, logit]])
    mask = torch.tensor([[[1, 0], [0, 1]]])
    entropy = -(3 * math.log(0.75) + math.log(0.25)) / 4
    dice = (2 * 1.5 + 1) / (2.5 + 2 + 1)
    focal = 0.8 * (1 - math.exp(-entropy)) ** 2 * entropy
    assert focal_like(logits, mask).item() == pytest.approx(focal)
    assert mask_loss(logits, mask).item() == pytest.approx(0.8 * (1 - dice) + 0.2 * focal)


def test_mask_loss_is_a_mean_over_images():
    logits = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(48).view(3, 4, 4) % 3 == 0).long()
    alone = [mask_loss(logits[i : i + 1], mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(mask_loss(logits, mask), torch.stack(alone).mean())


def test_patch_loss_by_hand_and_its_shapes():
    logits = torch.tensor([[[[0.0, math.log(3)]]]])
    loss = patch_loss(logits, torch.tensor([[[[1.0, 0.0]]]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 2\) and targets \(1, 1, 2, 2\).*image size"):
        patch_loss(logits, torch.zeros(1, 1, 2, 2))


# -- views -----------------------------------------------------------------------------------------


def test_an_image_has_two_views_that_depend_on_seed_epoch_and_index():
    batches = stream(12, BatchStream, range(8), unlabelled=range(8, 12), unlabelled_batch=4)
    batch = batches.batch(0)
    views, index = flipped_views(batch, 0.5)
    assert index.tolist() == [*batch.labelled.index.tolist(), *batch.unlabelled.index.tolist()]
    mirrored = []
    for view, i in zip(views, index.tolist(), strict=True):
        image = DATA.image(i)
        mirrored.append(torch.equal(view, image.flip(-1)))
        assert mirrored[-1] or torch.equal(view, image)
    assert 0 < sum(mirrored) < len(mirrored)
    assert torch.equal(flipped_views(batches.batch(0), 0.5)[0], views)
    plain, _ = flipped_views(batch, 0.0)
    assert all(torch.equal(p, DATA.image(i)) for p, i in zip(plain, index.tolist(), strict=True))


# -- stage A ---------------------------------------------------------------------------------------


def common(cache=None, **config):
    sam = FrozenSam(tiny_sam(64), cache=cache)
    return CommonDistillation(CommonConfig(**config), encoder=tiny_esp().encoder, sam=sam)


def test_common_loss_is_the_squared_error_to_plain_sam():
    method, batch = common(), stream().batch(0)
    loss = method.step(batch, Progress(0, 10)).total
    views, _ = flipped_views(batch, 0.5)
    sam = tiny_sam(64)
    with torch.no_grad():
        target = sam.image_encoder(sam.preprocess(255 * views))
    difference = method.encoder(views) - target
    torch.testing.assert_close(loss, difference.square().mean(), rtol=1e-4, atol=1e-4)


def test_common_stage_trains_all_but_the_controllers():
    method = common()
    before = state(method)
    train(method, stream())
    parts = {".".join(key.split(".")[:2]) for key in changed(before, method.state_dict())}
    assert parts == {"encoder.backbone", "encoder.neck"}
    assert any("running_mean" in key for key in changed(before, method.state_dict()))
    assert {key.split(".")[0] for key in method.state_dict()} == {"encoder"}  # SAM is not saved


def test_common_stage_encodes_each_view_once(tmp_path):
    method = common(EmbeddingCache(tmp_path), flip=0.0)
    train(method, stream(4, BatchStream), steps=9)  # three epochs of 12 images
    assert (method._sam.calls.encoded, method._sam.calls.cached) == (12, 24)


def test_embeddings_of_other_shapes_are_refused():
    method = CommonDistillation(
        CommonConfig(), encoder=tiny_esp().encoder, sam=FrozenSam(tiny_sam())
    )
    with pytest.raises(ValueError, match=r"\(3, 32, 4, 4\), the teacher's \(3, 32, 16, 16\)"):
        method.step(stream().batch(0), Progress(0, 1))


# -- stage C ---------------------------------------------------------------------------------------


def controllers(name="xray", cache=None, config=None, model=None, stem_cache=None):
    model = model or tiny_esp()
    return ControllerDistillation(
        config or ControllerConfig(),
        model=model,
        name=name,
        modality=modality_of(model, DATA),
        teacher=TeacherEmbeddings(tiny_teacher().encoder, cache=cache),
        stem_cache=stem_cache,
    )


def test_controller_defaults_are_those_of_the_released_script():
    method = controllers()
    (optimizer,) = method.optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 5e-4
    config = ControllerConfig()
    assert (config.epochs, config.batch, config.flip) == (200, 4, 0.1)
    rates = [method.learning_rate(Progress(step, 2000)) for step in (0, 9, 10, 25, 1999)]
    assert rates == pytest.approx([1, 1, 0.98, 0.98**2, 0.98**199])
    borders = [method.learning_rate(Progress(25 * epoch, 5000)) for epoch in range(200)]
    assert borders == pytest.approx([0.98**epoch for epoch in range(200)])  # none is late


def test_controller_loss_is_the_squared_error_to_the_teacher_of_that_modality():
    method, batch = controllers(), of("xray").batch(0)
    loss = method.step(batch, Progress(0, 10)).total
    views, _ = flipped_views(batch, 0.1)
    xray = torch.tensor([1, 1])
    difference = tiny_esp().encoder(views, xray) - tiny_teacher().encoder(views, xray)
    torch.testing.assert_close(loss, difference.square().mean(), rtol=1e-4, atol=1e-4)


def test_controller_stage_leaves_everything_else_bit_identical():
    method, x = controllers(), images()
    before = state(method)
    mixed = torch.tensor([0, 2, 2, 0])
    with torch.no_grad():
        masks = method.model(x, mixed).logits
    train(method, of("xray"), steps=3)
    differing = changed(before, method.state_dict())
    own = {key for key in before if key.startswith("model.encoder.controllers.1.")}
    assert differing
    assert differing <= own
    assert {key.split(".")[6] for key in differing} >= {"key", "bias", "mlp"}
    assert any("running_var" in key for key in before)  # so BatchNorm was among what stayed
    with torch.no_grad():
        assert torch.equal(method.model(x, mixed).logits, masks)


def test_controller_stage_learns():
    config = ControllerConfig(learning_rate=5e-3, epochs=2, flip=0.0)
    losses = fitted(controllers(config=config), of("xray", batch=4), steps=10).steps
    assert losses[-1]["total"] < 0.9 * losses[0]["total"]


def test_controller_stage_is_the_same_with_the_stem_kept(tmp_path):
    """To the rounding of images one at a time, in place of a batch."""
    config = ControllerConfig(learning_rate=5e-3, epochs=3, flip=0.5)
    plain = controllers(config=config)
    kept = controllers(config=config, stem_cache=EmbeddingCache(tmp_path))
    before = state(kept)
    losses = [
        [row["total"] for row in fitted(method, of("xray"), steps=6).steps]
        for method in (plain, kept)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert changed(before, kept.state_dict()) == changed(before, plain.state_dict())
    torch.testing.assert_close(kept.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)
    assert kept._stem.computed + kept._stem.cached == plain._stem.computed == 12
    assert kept._stem.computed <= 8  # two views of each of four images
    again = controllers(config=config, stem_cache=EmbeddingCache(tmp_path))
    fitted(again, of("xray"), steps=6)
    assert again._stem.computed == 0
    assert same(again.state_dict(), kept.state_dict())


def test_stem_features_are_those_before_the_first_controller(tmp_path):
    encoder, x = tiny_esp().encoder, images(3)
    features = StemFeatures(encoder, cache=EmbeddingCache(tmp_path))
    first = features(x)
    torch.testing.assert_close(encoder.embed_one_from_stem(first, 1), encoder.embed_one(x, 1))
    assert torch.equal(features(x.flip(0)).flip(0), first)
    assert (features.computed, features.cached) == (3, 3)
    with torch.no_grad():
        encoder.controllers[1].blocks[0].bias += 1  # what trains leaves them as they are
        encoder.stem[-1].conv3.bn.running_mean += 1  # a stem loaded after the first call does not
    features(x[:2])
    assert (features.computed, features.cached) == (5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert features(x).dtype == torch.float32
    with pytest.raises(ValueError, match=r"dtype=torch.bfloat16, which rounds them: open it with"):
        StemFeatures(encoder, cache=EmbeddingCache(tmp_path, dtype=torch.bfloat16))


def test_images_of_another_modality_are_refused():
    with pytest.raises(ValueError, match=r"not xray: build it from dataset.members\('xray'\)"):
        controllers().step(of("fundus").batch(0), Progress(0, 1))
    with pytest.raises(ValueError, match="unknown modality mri"):
        controllers("mri")
    other = tiny_esp(modalities=("a", "b", "c"))
    with pytest.raises(ValueError, match="the student knows a, b, c, the teacher fundus, xray"):
        ControllerDistillation(
            ControllerConfig(),
            model=other,
            name="a",
            modality=torch.zeros(12, dtype=torch.int64),
            teacher=TeacherEmbeddings(tiny_teacher().encoder),
        )


def test_joint_stage_trains_the_whole_encoder_on_mixed_batches():
    model = tiny_esp()
    teacher = TeacherEmbeddings(tiny_teacher().encoder)
    table = modality_of(model, DATA)
    method = JointDistillation(JointConfig(), model=model, modality=table, teacher=teacher)
    batch = stream(6).batch(0)
    loss = method.eval().step(batch, Progress(0, 10)).total
    views, index = flipped_views(batch, 0.5)
    target = tiny_teacher().encoder(views, table[index])
    difference = tiny_esp().encoder(views, table[index]) - target
    torch.testing.assert_close(loss, difference.square().mean(), rtol=1e-4, atol=1e-4)
    before = state(method)
    train(method.train(), stream(6))
    parts = {".".join(key.split(".")[1:3]) for key in changed(before, method.state_dict())}
    assert parts == {"encoder.backbone", "encoder.neck", "encoder.controllers"}


def test_teacher_embeddings_are_kept_by_image_modality_and_weights(tmp_path):
    cache = EmbeddingCache(tmp_path)
    teacher = TeacherEmbeddings(tiny_teacher().encoder, cache=cache)
    x, modality = images(3), torch.tensor([0, 1, 1])
    first = teacher(x, modality)
    torch.testing.assert_close(first, TeacherEmbeddings(tiny_teacher().encoder)(x, modality))
    assert torch.equal(teacher(x, modality), first)
    assert (teacher.encoded, teacher.cached) == (3, 3)
    assert torch.equal(teacher(x.flip(0), modality.flip(0)).flip(0), first)
    teacher(x, torch.tensor([0, 1, 2]))
    assert (teacher.encoded, teacher.cached) == (4, 8)
    other = TeacherEmbeddings(tiny_teacher(seed=5).encoder, cache=cache)
    assert not torch.equal(other(x, modality), first)
    assert other.cached == 0
    assert not any(p.requires_grad for p in teacher.encoder.parameters())


def test_a_teacher_of_kept_embeddings_is_not_moved(tmp_path, monkeypatch):
    """To a GPU and back at every step, it would cost more than what the cache saves."""
    teacher = TeacherEmbeddings(tiny_teacher().encoder, cache=EmbeddingCache(tmp_path))
    x, modality = images(2), torch.tensor([0, 1])
    first = teacher(x, modality)

    def moves(*_):
        raise AssertionError("the teacher was moved")

    monkeypatch.setattr(teacher.encoder, "to", moves)
    assert torch.equal(teacher(x, modality), first)
    with pytest.raises(AssertionError, match="was moved"):
        teacher(x, modality.flip(0))


def test_a_teacher_stays_where_it_embeds(monkeypatch):
    encoder, places = tiny_teacher().encoder, []
    monkeypatch.setattr(encoder, "to", lambda place: places.append(str(place)) or encoder)
    TeacherEmbeddings(encoder)(images(2), torch.tensor([0, 1]))
    assert places == ["cpu"]  # there, and not back


@pytest.mark.parametrize("stage", ["common", "controllers"])
def test_masks_are_not_read_by_stages_that_learn_from_embeddings(stage):
    poisoned = mixture()
    for part in poisoned._parts:
        part._load_mask = lambda index: (_ for _ in ()).throw(AssertionError("a mask was read"))
    results = []
    for data in (DATA, poisoned):
        # The one image that must be labelled has its mask read by the stream; so give it one.
        if data is poisoned:
            for part in data._parts:
                part._masks[0] = DATA._parts[0].mask(1).to(torch.uint8).numpy()
        first = data.members("xray")[:1]
        rest = data.members("xray")[1:]
        batches = stream(1, BatchStream, first, data=data, unlabelled=rest, unlabelled_batch=2)
        method = common() if stage == "common" else controllers()
        results.append(train(method, batches, steps=2).state_dict())
    assert same(*results)


# -- stages B and D --------------------------------------------------------------------------------


def segmentation(model=None, **config):
    model = model or tiny_esp()
    table = modality_of(model, DATA)
    return EspSegmentation(SegmentationConfig(**config), model=model, modality=table)


def test_segmentation_loss_is_mask_and_patch_loss_on_the_augmented_mixture(monkeypatch):
    method, batch = segmentation(patch=0.5).eval(), stream(6).batch(1)
    seen = {}

    def no_augmentation(image, mask=None, **key):
        seen.update(key)
        return image, mask

    monkeypatch.setattr("lib.training.esp_medsam.segmentation.weak_batch", no_augmentation)
    losses = method.step(batch, Progress(0, 10))
    labelled = batch.labelled
    assert torch.equal(seen["indices"], labelled.index)
    assert (seen["seed"], seen["epoch"].tolist()) == (batch.seed, labelled.epoch.tolist())
    output = method.model(labelled.image, modality_of(method.model, DATA)[labelled.index])
    mask = mask_loss(output.logits, labelled.mask)
    patch = functional.binary_cross_entropy_with_logits(
        output.patch_logits, patch_targets(labelled.mask)
    )
    torch.testing.assert_close(losses.total, mask + 0.5 * patch)
    torch.testing.assert_close(losses["patch"], patch)


def test_segmentation_without_prompts_and_with_true_patches():
    batch = stream(6).batch(1)
    bare = segmentation(tiny_esp(prompts=False)).step(batch, Progress(0, 10))
    assert set(bare) == {"total", "mask"}
    oracle = segmentation(tiny_esp(oracle=True)).step(batch, Progress(0, 10))
    assert set(oracle) == {"total", "mask", "patch"}


def test_teacher_stage_trains_adaptation_prompts_and_decoder_but_not_sam():
    teacher = tiny_teacher()
    sam = state(teacher.encoder.sam)
    method = segmentation(teacher)
    before = state(method)
    train(method, stream(6))
    parts = {".".join(key.split(".")[1:3]) for key in changed(before, method.state_dict())}
    expected = {"encoder.blocks", "prompts.patch_head", "prompts.dense", "decoder.queries"}
    assert parts >= expected
    assert same(state(teacher.encoder.sam), sam)


def test_heads_alone_leave_the_encoder_bit_identical():
    method = segmentation(train="heads")
    before = state(method.model.encoder)
    train(method, stream(6))
    assert same(state(method.model.encoder), before)
    assert method.model.decoder.queries[0].grad is not None


def test_a_new_modality_is_trained_without_touching_the_old_ones():
    model, x, old = tiny_esp(), images(), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        masks = model(x, old).logits
    model.add_modality("dermoscopy")
    method = EspSegmentation(
        SegmentationConfig(train="new modality", learning_rate=1e-2),
        model=model,
        modality=torch.full((12,), 3),
    )
    before = state(method)
    train(method, stream(6), steps=3)
    differing = changed(before, method.state_dict())
    prefixes = ("model.encoder.controllers.3.", "model.decoder.queries.1")
    assert differing
    assert all(key.startswith(prefixes) for key in differing)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x, old).logits, masks)
    with pytest.raises(ValueError, match="nothing was added"):
        segmentation(train="new modality")
    with pytest.raises(ValueError, match="train must be one of all, heads, new modality"):
        SegmentationConfig(train="decoder")


def test_training_on_masks_learns_a_square(monkeypatch):
    monkeypatch.setattr(
        "lib.training.esp_medsam.segmentation.weak_batch", lambda image, mask, **key: (image, mask)
    )
    method = segmentation(tiny_esp(start=True), learning_rate=1e-2, warmup=0.0)
    rows = fitted(method, stream(1, labelled=[0]), steps=20).steps
    assert rows[-1]["mask"] < 0.5 * rows[0]["mask"]
    assert rows[-1]["patch"] < 0.5 * rows[0]["patch"]


@pytest.mark.parametrize("build", [segmentation, controllers])
def test_a_killed_stage_resumes_to_the_same_weights(build, tmp_path, monkeypatch):
    batches = of("xray", batch=1)
    whole = train(build(), batches, steps=3, directory=tmp_path / "whole")
    broken = build()
    step = broken.step

    def dies(batch, progress):
        if progress.step == 1:
            raise RuntimeError("killed")
        return step(batch, progress)

    monkeypatch.setattr(broken, "step", dies)
    settings = {"directory": tmp_path / "killed", "checkpoint_every": 1}
    with pytest.raises(RuntimeError, match="killed"):
        train(broken, batches, steps=3, **settings)
    resumed = train(build(), batches, steps=3, **settings)
    assert same(resumed.state_dict(), whole.state_dict())


def test_stages_run_in_mixed_precision():
    for method in (segmentation(tiny_teacher()), controllers(), common()):
        history = fitted(method, of("xray"), steps=1, precision="bf16-mixed")
        assert math.isfinite(history.steps[0]["total"])


# -- what joins the stages -------------------------------------------------------------------------


def test_the_student_takes_over_prompts_and_decoder():
    student, teacher, x = tiny_esp(), tiny_teacher(seed=7), images()
    copy_heads(student, teacher)
    with torch.no_grad():
        embedding, modality = torch.randn(4, WIDTH, 4, 4), torch.tensor([0, 1, 2, 0])
        one, other = (m.decode(embedding, modality, x.shape[-2:]) for m in (student, teacher))
    assert torch.equal(one.logits, other.logits)
    for wrong, message in [
        (tiny_esp(("a", "b")), "the student knows a, b, the teacher"),
        (tiny_esp(prompts=False), "same prompts"),
        (tiny_esp(own_hyper=True), "built alike"),
    ]:
        with pytest.raises(ValueError, match=message):
            copy_heads(wrong, teacher)


def test_classifier_learns_the_modality_and_nothing_else_changes():
    model = tiny_esp(start=True)
    table = modality_of(model, DATA)
    method = ClassifierTraining(ClassifierConfig(), model=model, modality=table)
    before = state(method)
    train(method, stream(6), steps=25)
    assert all("classifier" in key for key in changed(before, method.state_dict()))
    rows = evaluate_modalities(model, DATA, range(12), modality="predicted")
    assert sum(row["used"] == row["modality"] for row in rows) >= 10
    model.classifier = None
    with pytest.raises(ValueError, match="no modality classifier to train"):
        ClassifierTraining(ClassifierConfig(), model=model, modality=table)


def test_evaluation_with_the_modality_given_and_wrong():
    model = tiny_esp()
    rows = evaluate_modalities(model, DATA, [11, 0, 5], batch_size=2)
    assert [(row["name"], row["modality"], row["used"]) for row in rows] == [
        ("nuclei/image-3", "nuclei", "nuclei"),
        ("fundus/image-0", "fundus", "fundus"),
        ("xray/image-1", "xray", "xray"),
    ]
    with torch.no_grad():
        logits = model(DATA.image(5)[None], torch.tensor([1])).logits
    overlap = ((logits.argmax(1)[0] == 1) & (DATA.mask(5) == 1)).sum().item()
    assert rows[2]["intersection"] == overlap
    wrong = evaluate_modalities(model, DATA, [11, 0], modality="wrong")
    assert [row["used"] for row in wrong] == ["fundus", "xray"]
    with pytest.raises(ValueError, match="given, predicted, wrong, not 'guessed'"):
        evaluate_modalities(model, DATA, [0], modality="guessed")
    with pytest.raises(ValueError, match="indices is empty"):
        evaluate_modalities(model, DATA, [])


def test_evaluation_gives_oracle_prompts_the_true_patches():
    model = tiny_esp(oracle=True)
    (row,) = evaluate_modalities(model, DATA, [5])
    with torch.no_grad():
        patches = patch_targets(DATA.mask(5)[None])
        logits = model(DATA.image(5)[None], torch.tensor([1]), patches).logits
    assert row["predicted"] == (logits.argmax(1) == 1).sum().item()


def test_embedding_scores_are_the_mean_squared_error_over_all_images():
    model, teacher = tiny_esp(), TeacherEmbeddings(tiny_teacher().encoder)
    scores = embedding_scores(model, teacher, DATA, [0, 5, 11], batch_size=2)
    x = torch.stack([DATA.image(i) for i in (0, 5, 11)])
    modality = torch.tensor([0, 1, 2])
    with torch.no_grad():
        error = (model.encoder(x, modality) - teacher(x, modality)).square().mean().item()
    assert scores["error"] == pytest.approx(error, rel=1e-4)
    assert scores["closeness"] == -scores["error"]


def test_modalities_are_matched_by_name():
    model = tiny_esp(modalities=NAMES[::-1])
    assert modality_of(model, DATA).tolist() == [2] * 4 + [1] * 4 + [0] * 4
    assert isinstance(model, EspMedSam)


def test_the_predicted_modality_is_the_one_that_is_used(monkeypatch):
    model = tiny_esp()
    monkeypatch.setattr(model, "resolve", lambda images: torch.full((len(images),), 2))
    rows = evaluate_modalities(model, DATA, [0, 5], modality="predicted")
    assert {row["used"] for row in rows} == {NAMES[2]}
