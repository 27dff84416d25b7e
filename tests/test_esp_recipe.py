"""All stages in a row: skipped, resumed, on record; what an ablation leaves out."""

import json
from dataclasses import replace
from threading import Thread

import pytest
import torch
from tiny_esp import NAMES, SHAPE, mixture, tiny_esp
from tiny_sam import tiny_sam
from tiny_training import same

from lib.data.mixture import BalancedStream
from lib.models.esp_medsam import EspMedSam
from lib.sam.embeddings import EmbeddingCache
from lib.training.esp_medsam import (
    ClassifierConfig,
    CommonConfig,
    ControllerConfig,
    EspConfig,
    EspRecipe,
    EspSegmentation,
    JointConfig,
    SegmentationConfig,
    build_student,
    build_teacher,
    modality_of,
    recipe,
    run_stage,
    train_esp_medsam,
)
from lib.training.esp_medsam.stages import RECORD, alone, weights_fingerprint
from lib.training.history import History

DATA = mixture()
QUIET = {"device": "cpu", "progress": False}


def stage(directory, *, seed=3, steps=2, model_seed=0, fails_at=None, **settings):
    model = tiny_esp(seed=model_seed)
    config = SegmentationConfig(train="heads")
    method = EspSegmentation(config, model=model, modality=modality_of(model, DATA))
    step, method.ran = method.step, []

    def counted(batch, progress):
        if progress.step == fails_at:
            raise RuntimeError("killed")
        method.ran.append(progress.step)
        return step(batch, progress)

    method.step = counted
    stream = BalancedStream(DATA, labelled=range(12), labelled_batch=3, seed=seed)
    settings = {"steps": steps, "directory": directory, **QUIET, **settings}
    return method, lambda: run_stage("heads", method, stream, **settings)


def test_a_stage_that_ran_is_loaded_and_not_run_again(tmp_path):
    first, run = stage(tmp_path)
    record = run()
    again, rerun = stage(tmp_path)
    assert rerun() == json.loads(json.dumps(record))
    assert (first.ran, again.ran) == ([0, 1], [])
    assert same(first.state_dict(), again.state_dict())


def test_a_stage_that_was_killed_goes_on(tmp_path):
    _, whole = stage(tmp_path / "whole", steps=3)
    expected = whole()["ended_at"]
    _, killed = stage(tmp_path / "killed", steps=3, checkpoint_every=1, fails_at=2)
    with pytest.raises(RuntimeError, match="killed"):
        killed()
    method, resumed = stage(tmp_path / "killed", steps=3, checkpoint_every=1)
    assert resumed()["ended_at"] == expected
    assert method.ran == [2]


def test_a_stage_waits_for_another_process_that_runs_it(tmp_path, capsys):
    order = []

    def second():
        with alone(tmp_path / "heads"):
            order.append("second")

    thread = Thread(target=second)
    with alone(tmp_path / "heads"):
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    assert "another process trains heads; waiting for it" in capsys.readouterr().out
    stage(tmp_path)[1]()
    assert len(list(tmp_path.glob("heads-*/.lock"))) == 1


def test_without_a_lock_nobody_waits(tmp_path, monkeypatch):
    """A folder that may only be read, and several devices of one run."""

    def refuse(self, timeout=None):
        raise PermissionError("read-only")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with alone(tmp_path):
        pass
    trained = History(steps=[{"step": 1, "total": 0.5, "seconds": 0.0}])
    monkeypatch.setattr("lib.training.esp_medsam.stages.alone", None)  # may not be called
    monkeypatch.setattr("lib.training.esp_medsam.stages.fit", lambda *_, **given: trained)
    with pytest.raises(TypeError, match="not callable"):
        stage(tmp_path)[1]()
    assert stage(tmp_path, devices=2)[1]()["last"]["total"] == 0.5


def test_any_change_makes_it_another_stage(tmp_path):
    changes = [{}, {"seed": 4}, {"model_seed": 1}, {"teacher": "x"}, {"precision": "bf16-mixed"}]
    for number, change in enumerate(changes, start=1):
        method, run = stage(tmp_path, steps=1, **change)
        run()
        assert method.ran, change
        assert len(list(tmp_path.glob("heads-*"))) == number


def test_the_record_says_what_ran_from_where_to_where(tmp_path):
    method, run = stage(tmp_path, teacher="of that teacher")
    start = weights_fingerprint(method)
    record = run()
    (written,) = tmp_path.glob(f"heads-*/{RECORD}")
    assert json.loads(written.read_text())["ended_at"] == record["ended_at"]
    assert (record["stage"], record["method"]) == ("heads", "EspSegmentation")
    assert record["started_from"] == start
    assert record["ended_at"] == weights_fingerprint(method) != start
    assert record["teacher"] == "of that teacher"
    assert record["parameters"]["train"] == "heads"
    assert (record["first"]["step"], record["last"]["step"]) == (1, 2)
    assert record["last"]["total"] > 0
    assert {"commit", "packages", "hardware", "seconds"} <= set(record)


# -- the recipe ------------------------------------------------------------------------------------

TINY = EspRecipe(
    model=EspConfig(shape=SHAPE),
    common=CommonConfig(batch=3, steps=1),
    teacher=SegmentationConfig(batch=3, steps=1),
    joint=JointConfig(batch=3, steps=1),
    controllers=ControllerConfig(batch=2, epochs=1),
    fine_tune=SegmentationConfig.fine_tune(batch=3, steps=1),
    classifier=ClassifierConfig(batch=3, steps=1),
)
STAGES = ["common", "teacher", "joint", *(f"controller-{n}" for n in NAMES), "fine-tune"]


def trained(directory, recipe=TINY, **changes):
    settings = {"sam": tiny_sam(64), "dataset": DATA, "labelled": [0, 1, 4, 5, 8, 9], "seed": 0}
    return train_esp_medsam(recipe, directory=directory, **{**settings, **QUIET, **changes})


def test_all_stages_run_in_their_order_and_only_once(tmp_path):
    cache = EmbeddingCache(tmp_path / "cache")
    one = trained(tmp_path, cache=cache, unlabelled=[2, 6, 10])
    assert [record["stage"] for record in one.records] == [*STAGES, "classifier"]
    # controllers: three images of a modality, two a step, one epoch
    assert [record["steps"] for record in one.records] == [1, 1, 1, 2, 2, 2, 1, 1]
    assert one.student.modalities == one.teacher.modalities == NAMES
    again = trained(tmp_path, cache=cache, unlabelled=[2, 6, 10])
    assert again.records == json.loads(json.dumps(one.records))  # seconds included: nothing ran
    assert same(again.student.state_dict(), one.student.state_dict())
    with torch.no_grad():
        logits = one.student(DATA.image(0)[None], torch.tensor([0])).logits
    assert logits.shape == (1, 2, 64, 64)


@pytest.mark.parametrize(
    "switch", [{"prompts": "oracle"}, {"isolated": True}], ids=["oracle patches", "isolated"]
)
def test_a_switch_without_weights_is_another_training(tmp_path, switch):
    """Both start from the weights of the default, whose stages lie in the same folder."""
    trained(tmp_path)
    trained(tmp_path, replace(TINY, model=replace(TINY.model, **switch)))
    for stage, runs in {"common": 1, "teacher": 2, "fine-tune": 2}.items():
        assert len(list(tmp_path.glob(f"{stage}-*"))) == runs, stage


def test_without_fine_tuning_the_student_decodes_with_the_teachers_heads(tmp_path):
    left_out = {"common": None, "joint": None, "fine_tune": None, "classifier": None}
    models = trained(tmp_path, replace(TINY, **left_out))
    assert same(models.student.decoder.state_dict(), models.teacher.decoder.state_dict())
    assert same(models.student.prompts.state_dict(), models.teacher.prompts.state_dict())


def test_a_teacher_that_embedded_elsewhere_comes_home(tmp_path, monkeypatch):
    brought = []
    monkeypatch.setattr(EspMedSam, "cpu", lambda model: brought.append(model))
    models = trained(tmp_path, replace(TINY, common=None, controllers=None, fine_tune=None))
    assert brought == [models.teacher]


def test_ablations_leave_out_what_they_say(tmp_path):
    ablations = TINY.ablations()
    assert list(ablations) == ["masks alone", "common only", "medical only", "both"]
    ran = {}
    for name in ("masks alone", "common only"):
        student = tiny_esp()
        models = trained(tmp_path, ablations[name], student=student)
        assert models.student is student  # such as one with pretrained weights
        ran[name] = [record["stage"] for record in models.records]
        assert models.teacher is None
    assert ran["masks alone"] == ["fine-tune", "classifier"]
    assert ran["common only"] == ["common", "fine-tune", "classifier"]
    medical = ablations["medical only"]
    assert (medical.common, medical.teacher) == (None, TINY.teacher)
    assert ablations["both"] == TINY
    with pytest.raises(ValueError, match="an ablation needs fine_tune"):
        EspRecipe().ablations()


def test_defaults_are_the_papers_stages_and_quick_has_all():
    paper, quick = EspRecipe(), EspRecipe.quick()
    assert [name for name, part in vars(paper).items() if part is None] == ["joint", "fine_tune"]
    assert None not in vars(quick).values()
    assert quick.fine_tune.learning_rate == SegmentationConfig.fine_tune().learning_rate


def test_what_does_not_fit_together_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the data are 64 px, this SAM's images 256 px"):
        trained(tmp_path, sam=tiny_sam())
    with pytest.raises(ValueError, match="joint and controllers learn from the teacher"):
        EspRecipe(teacher=None)
    with pytest.raises(ValueError, match="unknown modality nuclei"):
        trained(tmp_path, student=tiny_esp(modalities=NAMES[:2]))


@pytest.mark.parametrize(("device", "kept"), [("cpu", True), ("cuda", False)])
def test_the_stem_is_kept_where_computing_it_takes_longer(tmp_path, monkeypatch, device, kept):
    monkeypatch.setattr(recipe, "find_device", lambda name: torch.device(device))
    short = replace(TINY, common=None, joint=None, fine_tune=None, classifier=None)
    cache = EmbeddingCache(tmp_path / "cache")
    trained(tmp_path / "stages", short, cache=cache)
    assert (cache.directory / "stem").exists() == kept
    assert cache.entries()


def test_a_modality_without_masks_is_refused_before_the_first_stage(tmp_path):
    with pytest.raises(ValueError, match="labelled has no image of nuclei: add some"):
        trained(tmp_path, labelled=[0, 4], unlabelled=[8])
    assert not list(tmp_path.iterdir())
    common = {"teacher": None, "joint": None, "controllers": None, "classifier": None}
    models = trained(tmp_path, replace(TINY, **common, fine_tune=None), labelled=[0, 4])
    assert [record["stage"] for record in models.records] == ["common"]  # which needs no mask


@pytest.mark.parametrize(("prompts", "kind"), [("off", None), ("self", False), ("oracle", True)])
def test_student_and_teacher_are_built_of_the_same_parts(prompts, kind):
    config = EspConfig(shape=SHAPE, prompts=prompts, isolated=True, separate_tokens=True)
    student = build_student(config, modalities=NAMES, width=32)
    teacher = build_teacher(config, sam=tiny_sam(64), modalities=NAMES)
    for model in (student, teacher):
        assert (model.prompts is None) == (kind is None)
        assert kind is None or model.prompts.oracle == kind
        assert model.decoder.isolated
        assert model.decoder.width == model.encoder.width == 32
    assert student.encoder.separate_tokens
    assert (student.classifier is None, teacher.classifier is None) == (False, True)


def test_unknown_prompts_are_refused():
    with pytest.raises(ValueError, match="prompts must be one of self, off, oracle, not 'box'"):
        EspConfig(prompts="box")
