"""What a recipe becomes before the first step: validation data are read and their scoring is tried."""

import json

import pytest
from region_files import coco_box, coco_file
from small_runs import RECIPE, TASKS, VAL

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.errors import UserError
from fiber_cli.tasks import declarations
from fiber_cli.training.work import work

SIZES = "channels: 32, blocks: 1, drop_block: 0, short_sides: [64], longest_side: 96"
#: Task → its section and the kind of scenes that it reads.
SECTIONS = {
    "coarse": ("{name: coarse}", "scenes"),
    **{name: (section, "scenes") for name, (section, _) in TASKS.items()},
    "fine": (f"{{name: fine, {SIZES}}}", "scene_detection"),
    "detection": (f"{{name: detection, {SIZES}}}", "scene_detection"),
    "grounding": (f"{{name: grounding, {SIZES}}}", "scene_grounding"),
    "refexp": (f"{{name: refexp, {SIZES}}}", "scene_referring"),
}
#: The detector needs strides up to 32.
VALIDATED = (
    "log.validate_every=2",
    "model.text_length=60",
    "model.depths=[1, 1, 1]",
    "model.image_heads=[2, 2, 2]",
)


def begin(task, *overrides, kind=None):
    section, scenes = SECTIONS[task]
    text = RECIPE.replace("{name: coarse}", section).replace("kind: scenes", f"kind: {kind or scenes}")
    return work(parse_recipe(text, "test", [*VALIDATED, *overrides]))


def validated_on(task, kind):
    return VAL.replace("kind: scenes", f"kind: {kind}")


def test_a_task_is_not_tried_here():
    assert SECTIONS.keys() == {declaration.name for declaration in declarations()}


@pytest.mark.parametrize("task", SECTIONS)
def test_no_predictions_cannot_be_scored(task):
    assert begin(task, validated_on(task, SECTIONS[task][1])).validate is not None


@pytest.mark.parametrize(
    ("task", "evalset"),
    [
        ("vqa", "fiber_cli.tasks.vqa.evaluation.VqaSet"),
        ("nlvr2", "fiber_cli.tasks.nlvr2.evaluation.StatementSet"),
        ("caption", "fiber_cli.tasks.caption.evaluation.CaptionSet"),
        ("detection", "fiber_cli.tasks.regions.detection_set.DetectionSet"),
        ("grounding", "fiber_cli.tasks.regions.phrase_set.PhraseSet"),
        ("refexp", "fiber_cli.tasks.regions.referring_set.ReferringSet"),
    ],
)
def test_a_truth_that_cannot_be_scored_is_known_at_the_first_validation(task, evalset, monkeypatch):
    def score(self, predictions):
        raise UserError("this truth has no score")

    monkeypatch.setattr(f"{evalset}.score", score)
    with pytest.raises(UserError, match="this truth has no score"):
        begin(task, validated_on(task, SECTIONS[task][1]))


def own_data(tmp_path, **change):
    boxes = [coco_box(7, 3, [1, 2, 20, 15], area=None), coco_box(5, 9, [5, 5, 0, 8], iscrowd=None)]
    path = coco_file(tmp_path, boxes)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return f"data.val=[{{kind: coco, json: {path}, images: {tmp_path}}}]"


def test_what_a_reader_makes_of_a_file_ends_the_run(tmp_path, capsys):
    begin("detection", own_data(tmp_path))
    said = capsys.readouterr().err
    assert "data.val: 1 boxes of instances without an area inside their image are not scored" in said


def test_a_validation_without_objects_is_not_told(tmp_path, capsys):
    begin("detection", own_data(tmp_path, annotations=[]))
    assert "data.val: no object in the truth of instances: predicted only" in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_known_at_the_first_validation(tmp_path):
    override = own_data(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no item could be read, such as instances/.*\.png: not a readable image"):
        begin("detection", override)


@pytest.mark.parametrize("task", ["coarse", "retrieval"])
def test_pictures_without_captions_are_known_at_the_first_validation(tmp_path, task):
    own_data(tmp_path)
    images = [{"filename": name, "split": "val", "sentences": []} for name in ("a.png", "b.png")]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    val = f"data.val=[{{kind: karpathy, json: {tmp_path}/dataset.json, images: {tmp_path}, split: val}}]"
    with pytest.raises(UserError, match=r"no image with a text could be read, such as .*a.png: no caption"):
        begin(task, val)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"annotations": None}, "no annotations: it can only be predicted"), ({"annotations": []}, "no box to train on")],
)
def test_a_file_without_boxes_is_trained_on(tmp_path, change, said):
    train = own_data(tmp_path, **change).replace("data.val", "data.train")
    with pytest.raises(UserError, match=rf"data.train: instances has {said}"):
        begin("detection", train, validated_on("detection", "scene_detection"))
