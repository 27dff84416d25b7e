"""The study of ESP-MedSAM: parts that do not mix, records found again, a leak that is one."""

import importlib.util
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_esp import NAMES, SHAPE, Tinted
from tiny_sam import tiny_sam

from lib.data.errors import DataError
from lib.data.frames import SimulatedSequences, split_frames
from lib.data.splits import load_split
from lib.display import show_outlined, show_self_prompts
from lib.evaluation.metrics import score_image
from lib.evaluation.records import Record, RecordError, read_records
from lib.training.esp_medsam import (
    ClassifierConfig,
    CommonConfig,
    ControllerConfig,
    EspConfig,
    EspRecipe,
    JointConfig,
    SegmentationConfig,
    study,
    transfer,
)
from lib.training.esp_medsam.study import (
    FLOOR,
    LONGER,
    TARGETS_ONLY,
    UPPER,
    EspStudy,
    filled_boxes,
    run_bounds,
    run_variant,
    variants,
)
from lib.training.esp_medsam.study_data import (
    ALL,
    Limits,
    Source,
    folder_sources,
    parse_source,
    prepare,
)
from lib.training.esp_medsam.study_tables import domain_table, seen_and_unseen
from lib.training.esp_medsam.transfer import (
    ALONE,
    CLEAN,
    LEAKY,
    NEW,
    ZERO_SHOT,
    TransferConfig,
    run_leak,
    run_left_out,
)
from lib.training.esp_medsam.views import StageLosses, answer

RECIPE = EspRecipe(
    model=EspConfig(shape=SHAPE),
    common=CommonConfig(batch=3, steps=2),
    teacher=SegmentationConfig(batch=3, steps=1),
    joint=JointConfig(batch=3, steps=3),
    controllers=ControllerConfig(batch=4, epochs=1),
    fine_tune=SegmentationConfig.fine_tune(batch=3, steps=4),
    classifier=ClassifierConfig(batch=3, steps=1),
)
TRANSFER = TransferConfig(
    images=3, masks=SegmentationConfig(batch=2, steps=1), sequences=4, frames=2, test_sequences=2
)


class Scanned(Tinted):
    """Images of two scanners in turn, every fifth without a target."""

    def __init__(self, count, channel):
        super().__init__(count, channel)
        self.domains = ["A" if i % 2 == 0 else "B" for i in range(count)]

    def _load_mask(self, index):
        return super()._load_mask(index) * (index % 5 != 0)


def sources(count=14):
    first, second, third = NAMES
    return [
        Source(first, Scanned(count, 0), unseen=("B",)),
        Source(second, Tinted(count, 1)),
        Source(third, Tinted(count, 2)),
        Source(third, Renamed(3, 2), unseen=ALL),
    ]


class Renamed(Tinted):
    """Images of another hospital, under names of their own."""

    def __init__(self, count, channel):
        super().__init__(count, channel)
        self.names = [f"other-{i}" for i in range(count)]
        self._index = {name: i for i, name in enumerate(self.names)}


@pytest.fixture(autouse=True)
def _no_git(monkeypatch):
    """A stage asks git for the commit; in tests of a second that is most of the time."""
    monkeypatch.setattr("lib.training.esp_medsam.stages.provenance", lambda: {"commit": "abc"})


LIMITS = Limits(train=5, val=2, test=2)


def make(folder, **changes):
    settings = {
        "data": prepare(sources(), limits=LIMITS),
        "recipe": RECIPE,
        "sam": tiny_sam(64),
        "seed": 0,
        "results": folder / "results",
        "directory": folder / "stages",
        "settings": {"device": "cpu", "progress": False},
        "origin": {},
    }
    return EspStudy(**{**settings, **changes})


# -- data ------------------------------------------------------------------------------------------


def test_unseen_domains_are_in_no_part_but_their_own():
    data = prepare(sources(), limits=LIMITS)
    parts = [set(data.train), set(data.val), *(set(test.indices) for test in data.tests)]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert [test.title for test in data.tests] == [
        "fundus, seen A",
        "fundus, unseen B",
        "xray, seen",
        "nuclei, seen",
        "nuclei, unseen",
    ]
    for index in (*data.train, *data.val):
        assert data.mixture.domains[index] != "B"
        assert "other" not in data.mixture.names[index]
    unseen = data.tests[1]
    assert {data.mixture.domains[index] for index in unseen.indices} == {"B"}
    counts = [sum(data.mixture.modality[i] == k for i in data.train) for k in range(3)]
    assert max(counts) == LIMITS.train
    assert all(len(test.indices) <= LIMITS.test for test in data.tests)


def test_a_study_of_fewer_modalities_keeps_the_parts():
    data = prepare(sources(), limits=LIMITS)
    fewer = data.only(["nuclei", "fundus"])
    assert fewer.mixture.modalities == ("fundus", "nuclei")

    def names(of, indices):
        return [of.mixture.names[i] for i in indices]

    wanted = [n for n in names(data, data.train) if not n.startswith("xray")]
    assert names(fewer, fewer.train) == wanted
    assert [t.title for t in fewer.tests] == [t.title for t in data.tests if t.modality != "xray"]
    assert names(fewer, fewer.tests[-1].indices) == names(data, data.tests[-1].indices)


def test_split_files_are_made_once_and_then_rule(tmp_path):
    first = prepare(sources(), limits=LIMITS, splits=tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3  # the unseen folder has nothing to split
    stored = load_split(tmp_path / "xray_tinted_1.json")
    assert first.tests[2].sha256 == stored.sha256
    again = prepare(sources(), limits=Limits(train=1, val=1, test=1), splits=tmp_path)
    assert (again.train, again.val) == (first.train, first.val)


def test_validation_images_can_be_scored_instead():
    data = prepare(sources(), limits=LIMITS, part="val")
    assert [i for test in data.tests for i in test.indices] == list(data.val)
    assert all(test.seen for test in data.tests)
    assert data.tests[1].title == "xray, seen, validation"  # a record of another name


def test_a_stored_split_does_not_train_on_a_domain_that_became_unseen(tmp_path):
    first = Source(NAMES[0], Scanned(14, 0))
    prepare([first], limits=LIMITS, splits=tmp_path)
    with pytest.raises(DataError, match=r"tinted_0\.json counts the domain B among the seen"):
        prepare([replace(first, unseen=("B",))], limits=LIMITS, splits=tmp_path)


def test_a_patient_of_an_unseen_scanner_is_not_trained_on():
    both = Scanned(14, 0)
    both.groups = [f"patient {i // 2}" if i < 10 else f"patient {i}" for i in range(14)]
    data = prepare([Source(NAMES[0], both, unseen=("B",))], limits=Limits(train=9, val=9, test=9))
    unseen = {both.groups[i] for i in data.tests[1].indices}
    assert not unseen & {both.groups[i] for i in (*data.train, *data.val)}


def test_two_sources_of_a_modality_have_a_title_each():
    other = Renamed(14, 0)
    other.title = "Another ward"
    pair = [Source("polyps", Tinted(14, 0)), Source("polyps", other)]
    titles = [test.title for test in prepare(pair, limits=LIMITS).tests]
    assert titles == ["polyps, seen Tinted 0", "polyps, seen Another ward"]
    other.title = pair[0].dataset.title
    with pytest.raises(DataError, match="two data sets would be called 'polyps, seen Tinted 0'"):
        prepare(pair, limits=LIMITS)


def test_what_cannot_be_prepared_is_named():
    wrong = [Source("fundus", Scanned(14, 0), unseen=("C",))]
    with pytest.raises(DataError, match=r"fundus: Tinted 0 has no domain C, it has A, B\."):
        prepare(wrong, limits=LIMITS)
    with pytest.raises(DataError, match="all domains are unseen"):
        prepare([Source("fundus", Scanned(14, 0), unseen=ALL)], limits=LIMITS)
    with pytest.raises(DataError, match=r"^xray: 2 images in 2 groups do not suffice"):
        prepare([*sources(), Source("xray", Renamed(2, 1))], limits=LIMITS)
    with pytest.raises(DataError, match="'data/lungs' describes no modality"):
        parse_source("data/lungs", size=64)


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_modality_of_unseen_images_only_is_refused(part):
    both = [Source("fundus", Tinted(14, 0)), Source("retina", Renamed(3, 0), unseen=ALL)]
    message = r"retina: no image is left to train on.*modality that they belong to \(fundus\)"
    with pytest.raises(DataError, match=message):
        prepare(both, limits=LIMITS, part=part)
    prepare([both[0], replace(both[1], modality="fundus")], limits=LIMITS, part=part)


def test_a_folder_is_one_modality_or_holds_one_in_each_sub_folder(tmp_path):
    for name in ("lungs", "skin"):
        for part in ("images", "masks"):
            (tmp_path / name / part).mkdir(parents=True)
            picture = np.tile(np.arange(32, dtype=np.uint8) % 2 * 255, (32, 1))
            for number in range(2):
                Image.fromarray(picture).save(tmp_path / name / part / f"{number}.png")
    rows = ["stem,domain", "0,A", "1,B"]
    (tmp_path / "skin" / "index.csv").write_text("\n".join(rows) + "\n")
    both = folder_sources(tmp_path, size=32, unseen=["B"])
    assert [(s.modality, s.unseen) for s in both] == [("lungs", ()), ("skin", ("B",))]
    (one,) = folder_sources(tmp_path / "skin", size=32)
    assert (one.modality, len(one.dataset)) == ("skin", 2)
    with pytest.raises(DataError, match="is of the domain C"):
        folder_sources(tmp_path, size=32, unseen=["B", "C"])
    with pytest.raises(DataError, match="data_root is empty"):
        folder_sources(None, size=32)


def test_each_sub_folder_that_is_a_data_set_is_a_modality_whatever_its_layout(tmp_path):
    def save(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) % 2 * 255, (32, 1))).save(path)

    for name in ("a", "b"):
        for part in ("Original", "Ground Truth"):
            save(tmp_path / "polyp" / part / f"{name}.png")
        for split in ("train", "test"):
            for part in ("Images", "Masks"):
                save(tmp_path / "fundus" / split / part / f"{name}{split}.png")
        for ending in ("", "_mask"):
            save(tmp_path / "ultrasound" / "benign" / f"benign ({ord(name)}){ending}.png")
    save(tmp_path / "screenshots" / "x.png")
    sources = folder_sources(tmp_path, size=32)
    assert {s.modality: len(s.dataset) for s in sources} == {
        "fundus": 4, "polyp": 2, "ultrasound": 2,
    }  # fmt: skip
    assert "not read: screenshots/, which is no data set by itself" in sources[0].dataset.notes
    (whole,) = folder_sources(tmp_path / "fundus", size=32)
    assert (whole.modality, len(whole.dataset)) == ("fundus", 4)


def test_classes_of_a_modality_are_taken_as_one_foreground(tmp_path):
    for part, top in (("images", 255), ("masks", 3)):
        (tmp_path / part).mkdir()
        picture = np.resize(np.arange(top + 1, dtype=np.uint8), (32, 32))
        Image.fromarray(picture).save(tmp_path / part / "a.png")
    (one,) = folder_sources(tmp_path, size=32)
    assert one.dataset.classes == 2
    assert one.dataset.mask(0)[0, :4].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "root", "unseen"),
    [
        ("xray=a/b", "a/b", ()),
        ("xray=a/b:unseen", "a/b", ALL),
        ("xray=c:/b:unseen=M,N", "c:/b", ("M", "N")),
    ],
)
def test_the_description_of_a_modality(monkeypatch, text, root, unseen):
    opened = []
    monkeypatch.setattr(
        "lib.training.esp_medsam.study_data.open_dataset",
        lambda name, **found: opened.append((name, found)),
    )
    assert parse_source(text, size=64) == Source("xray", None, unseen)
    assert opened == [("folder", {"root": root, "size": 64, "classes": 2})]


# -- runs ------------------------------------------------------------------------------------------


def test_variants_differ_in_what_their_names_say():
    found = variants(RECIPE)
    assert found[LONGER].fine_tune.steps == 2 + 3 + 4
    assert found[LONGER].teacher is found[LONGER].common is None
    models = {name: recipe.model for name, recipe in found.items()}
    assert (models["no self-prompts"].prompts, models["oracle patches"].prompts) == (
        "off",
        "oracle",
    )
    assert models["one query"].one_query
    assert replace(models["one query"], one_query=False) == models["both"] == RECIPE.model


def test_a_record_for_each_domain_and_evaluation_and_none_twice(tmp_path, monkeypatch):
    one = make(tmp_path)
    records = run_variant(one, "both")
    found = {(record.variant, record.dataset) for record in records}
    titles = [test.title for test in one.data.tests]
    kinds = ("given", "predicted", "wrong", "teacher")
    assert found == {(kind, title) for kind in kinds for title in titles}
    stored = read_records(one.results)
    assert len(stored) == len(records) == 20
    assert {record.labelled_count for record in stored} == {len(one.data.train)}
    names = [row["name"] for row in records[0].per_image["last"]]
    assert names == [one.data.mixture.names[i] for i in one.data.tests[0].indices]
    stages = [stage["stage"] for stage in records[0].history["stages"]]
    assert stages[:3] == ["common", "teacher", "joint"]
    (teacher,) = next(r for r in records if r.variant == "teacher").history["stages"]
    assert (teacher["stage"], teacher["commit"]) == ("teacher", "abc")

    def no_training(*_, **__):
        raise AssertionError("a finished variant was trained again")

    monkeypatch.setattr(study, "train_esp_medsam", no_training)
    assert [r.scores for r in run_variant(one, "both")] == [r.scores for r in stored_in(records)]
    with pytest.raises(RecordError, match="a run of another sam; choose another folder"):
        run_variant(replace(one, sam_name="vit_b"), "both")
    longer = replace(RECIPE, fine_tune=replace(RECIPE.fine_tune, steps=9))
    with pytest.raises(RecordError, match="a run of another recipe; choose another folder"):
        run_variant(replace(one, recipe=longer), "both")


def stored_in(records):
    """What the files hold: six decimals."""
    return [replace(r, scores=rounded(r.scores)) for r in records]


def rounded(scores):
    return {k: {n: round(v, 6) if v == v else v for n, v in s.items()} for k, s in scores.items()}


def test_the_committed_records_have_the_settings_that_stages_have_now():
    """Else a study would take them for records of other runs. No stage has a size: the data do."""
    now = asdict(EspRecipe.quick()) | {"masks": asdict(TransferConfig())["masks"]}
    assert not [name for name, stage in now.items() if "size" in stage]
    records = read_records(Path(__file__).parents[1] / "results" / "esp_medsam")
    for record in records:
        transfer = record.parameters.get("transfer", {})
        stages = {**record.parameters.get("recipe", {}), "masks": transfer.get("masks")}
        for name, stage in stages.items():
            assert stage is None or stage.keys() == now[name].keys(), (record.label, name)


def test_what_a_variant_cannot_be_asked_is_left_out(tmp_path):
    recipe = replace(RECIPE, classifier=None)
    records = run_variant(make(tmp_path, recipe=recipe), "masks alone")
    assert {record.variant for record in records} == {"given", "wrong"}
    with pytest.raises(ValueError, match="evaluation must be one of given, predicted"):
        run_variant(make(tmp_path), "both", evaluations=["guessed"])


def test_bounds_are_the_box_and_what_sam_makes_of_it(tmp_path):
    one = make(tmp_path)
    records = {(r.method, r.dataset): r for r in run_bounds(one)}
    assert {method for method, _ in records} == {UPPER, FLOOR}
    # The targets are squares: a filled box is the square itself.
    assert records[FLOOR, "xray, seen"].scores["last"]["dice"] == 1
    assert records[UPPER, "xray, seen"].scores["last"]["dice"] < 1
    assert records[FLOOR, "xray, seen"].labelled_count == 0


def test_images_without_a_target_are_also_left_out(tmp_path):
    limits = replace(LIMITS, test=7)
    one = make(tmp_path, data=prepare(sources(), limits=limits))
    by_title = {r.dataset: r for r in run_bounds(one) if r.method == UPPER}
    scores = by_title["fundus, unseen B"].scores
    assert (scores["last"]["images"], scores[TARGETS_ONLY]["images"]) == (7, 6)
    assert TARGETS_ONLY not in by_title["xray, seen"].scores


def test_a_filled_box_by_hand():
    mask = torch.zeros(6, 6, dtype=torch.int64)
    mask[1, 1] = mask[2, 2] = mask[5, 5] = 1  # a diagonal pair, which is one object, and a pixel
    expected = torch.zeros_like(mask)
    expected[1:3, 1:3] = 1
    expected[5, 5] = 1
    assert torch.equal(filled_boxes(mask), expected)
    assert score_image(filled_boxes(mask), mask)["dice"] == pytest.approx(2 * 3 / (3 + 5))


def test_a_modality_left_out_comes_back_without_touching_the_others(tmp_path):
    one = make(tmp_path)
    records = {(r.method, r.dataset): r for r in run_left_out(one, "nuclei", TRANSFER)}
    assert len(records) == 3 * 2
    for method, labelled in ((ZERO_SHOT, 0), (NEW, 3), (ALONE, 3)):
        record = records[method, "nuclei, unseen"]
        assert record.labelled_count == labelled
        assert record.history["trained on"] == ["fundus", "xray"]
        assert record.history["change of others' logits"] == 0.0
    ran = [s["stage"] for s in records[NEW, "nuclei, seen"].history["stages"]]
    assert ran[-1] == "left-out-new-controller"
    assert "controller-nuclei" not in ran


def test_the_leak_is_in_one_record_only(tmp_path):
    clean, leaky = run_leak(make(tmp_path), "xray", TRANSFER)
    assert (clean.method, leaky.method) == (CLEAN, LEAKY)
    assert clean.labelled_count == leaky.labelled_count
    assert clean.split_sha256 != leaky.split_sha256
    rows = [[row["name"] for row in r.per_image["last"]] for r in (clean, leaky)]
    assert rows[0] == rows[1]


def test_transfer_is_scored_on_the_device_of_the_study(tmp_path, monkeypatch):
    """Training brings its modules home, so whoever scores has to move them again."""
    asked, lend, score = [], transfer.moved, transfer.evaluate_modalities

    def lends(model, device):
        asked.append(str(device))
        return lend(model, device)

    def scores(*arguments, device=None):
        asked.append(device)
        return score(*arguments, device=device)

    monkeypatch.setattr(transfer, "moved", lends)
    monkeypatch.setattr(transfer, "evaluate_modalities", scores)
    one = make(tmp_path)
    run_left_out(one, "nuclei", TRANSFER)
    run_leak(one, "xray", TRANSFER)
    # Two test sets zero-shot, others' masks before and after, two models on two sets; two leaks.
    assert asked == ["cpu"] * (2 + 2 + 4 + 2)


def test_what_a_notebook_shows(tmp_path):
    losses = StageLosses()
    one = make(tmp_path, settings={"device": "cpu", "progress": losses})
    records = run_variant(one, "masks alone", evaluations=["given"])
    assert [len(stage) for stage in losses.stages] == [4, 1]  # fine-tuning, classifier
    trained = study.train(one, variants(RECIPE)["masks alone"])
    assert losses.stages[2:] == [[], []]  # loaded
    student = trained.student
    rows = sorted(row["dice"] for row in records[0].per_image["last"])
    for place, dice in ((0.0, rows[0]), (1.0, rows[-1])):
        title, image, truth, patches, mask = answer(student, one.data.mixture, records[0], place)
        assert title == f"fundus\nDice {dice:.2f}"
        assert score_image(mask, truth)["dice"] == pytest.approx(dice)
        with torch.no_grad():
            logits = student(image[None], torch.tensor([0])).patch_logits
        assert torch.equal(patches[::32, ::32] > 0, logits[0, 0] >= 0)
    show_self_prompts([(title, image, truth, patches, mask)])
    show_outlined({"a": [(image, truth)] * 2, "b": [(image, mask)]}, row_labels=["x", "y"])
    plt.close("all")


# -- frames ----------------------------------------------------------------------------------------


def test_frames_of_one_sequence_look_alike_and_their_masks_move_with_them():
    frames = SimulatedSequences(Tinted(3, 0), [0, 2], frames=4, shift=0.1, noise=0.0, light=0.0)
    assert len(frames) == 8
    assert frames.groups == ["image-0"] * 4 + ["image-2"] * 4
    base = Tinted(3, 0)
    for index in range(8):
        image, mask = frames.image(index), frames.mask(index)
        inside = image[:, mask == 1].mean() - image[:, mask == 0].mean()
        original = base.image(0)[:, base.mask(0) == 1].mean()
        assert inside > 0.3
        assert abs(image[:, mask == 1].mean() - original) < 0.1
    assert not torch.equal(frames.mask(0), frames.mask(1))
    assert torch.equal(frames.image(3), frames.image(3))


def test_frame_splits_by_hand():
    """Six sequences of four frames: 0 to 3, 4 to 7, and so on; the first two are tested."""
    split = split_frames(SimulatedSequences(Tinted(6, 0), range(6), frames=4), test=2)
    assert split.test == (0, 4)
    assert split.by_sequence == tuple(range(8, 24))
    # The six other frames of the tested sequences, then the third, the fourth and half the fifth.
    assert split.by_frame == (1, 5, 2, 6, 3, 7, *range(8, 18))


def test_leak_and_no_leak_differ_little_in_their_number_of_sequences():
    frames = SimulatedSequences(Tinted(30, 0), range(30), frames=6)
    split = split_frames(frames, test=10)
    assert len(split.by_sequence) == len(split.by_frame) == 120
    assert not set(split.by_frame) & set(split.test)
    numbers = [len({frames.groups[i] for i in s}) for s in (split.by_sequence, split.by_frame)]
    assert numbers == [20, 22]


def test_where_few_frames_can_leak_each_tested_sequence_leaks():
    split = split_frames(SimulatedSequences(Tinted(4, 0), range(4), frames=4), test=3)
    assert split.by_sequence == (12, 13, 14, 15)
    assert split.by_frame == (1, 5, 9, 2)


def test_frames_that_cannot_be_split_are_named():
    frames = SimulatedSequences(Tinted(9, 0), range(9), frames=4)
    with pytest.raises(DataError, match="test must be 1 to 8 sequences"):
        split_frames(frames, test=9)
    with pytest.raises(DataError, match="at least 2 frames"):
        SimulatedSequences(Tinted(9, 0), range(9), frames=1)
    with pytest.raises(DataError, match="every test sequence has one frame only"):
        split_frames(Tinted(4, 0), test=2)  # each image its own group


# -- command ---------------------------------------------------------------------------------------


def test_stages_of_the_command_change_what_they_name():
    path = Path(__file__).parents[1] / "workflow" / "esp_medsam.py"
    spec = importlib.util.spec_from_file_location("esp_medsam_command", path)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    steps = [("joint", 0.0), ("controllers", 7.0), ("teacher", 9.0), ("transfer", 3.0)]
    changed = command.with_stages(RECIPE, steps, [("teacher", 0.1)], 6)
    assert changed.joint is None
    assert (changed.controllers.epochs, changed.controllers.batch) == (7, 6)
    assert (changed.teacher.steps, changed.teacher.learning_rate) == (9, 0.1)
    assert changed.common == replace(RECIPE.common, batch=6)


def scored(method, title, seen, dice, seed=0):
    return Record(
        method=method,
        variant="given",
        dataset=title,
        dataset_fingerprint="",
        split_sha256="",
        labelled_fraction=1.0,
        labelled_count=1,
        seed=seed,
        scores={"last": {"dice": dice}},
        per_image={},
        parameters={"seen": seen},
    )


def test_tables_by_hand():
    records = [
        scored("both", "xray, seen", True, 0.8),
        scored("both", "skin, seen", True, 0.6),
        scored("both", "xray, seen", True, 0.9, seed=1),
        scored("both", "skin, seen", True, 0.7, seed=1),
        scored("both", "an unseen one", False, 0.4),
    ]
    rows = ["both (given)", "one query (given)"]
    means = seen_and_unseen(records, rows=rows)
    # seeds: (80 + 60) / 2 = 70 and 80; standard deviation 10 / sqrt(2)
    assert means.values.tolist() == [["75.0 ± 7.1 (2; 2)", "40.0 (1; 1)"], ["not run", "not run"]]
    domains = domain_table(records, columns=rows)
    assert list(domains.index) == ["skin, seen", "xray, seen", "an unseen one"]
    assert domains.values.tolist()[1:] == [["85.0 ± 7.1 (2)", "not run"], ["40.0 (1)", "not run"]]
    with pytest.raises(ValueError, match="different test sets"):
        seen_and_unseen(records[:3], rows=rows)
