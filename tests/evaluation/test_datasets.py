"""What DATASET means beside the known names: scenes, and files of a form."""

import json
from pathlib import Path

import pytest

from fiber_cli.data.sources import open_source
from fiber_cli.data.sources.webdataset import WebDatasetSettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.datasets import eval_data, tasks_for
from fiber_cli.evaluation.known import EvalData


def test_scenes_are_what_the_task_reads():
    assert [source.kind for source in eval_data("scenes", "fine").sources] == ["scene_detection", "scene_referring"]
    (source,) = eval_data("scenes", "coarse", "test").sources
    assert (source.kind, source.split) == ("scenes", "test")


def test_a_json_is_read_as_its_content_says(tmp_path):
    boxes, phrases = tmp_path / "boxes.json", tmp_path / "phrases.json"
    boxes.write_text('{"annotations": [{"bbox": [1, 2, 3, 4]}]}')
    phrases.write_text('{"annotations": [{"bbox": [1, 2, 3, 4], "tokens_positive": []}]}')
    assert [eval_data(str(file), "detection").sources[0].kind for file in (boxes, phrases)] == ["coco", "mdetr"]
    boxes.write_text("[]")
    with pytest.raises(UserError, match="a list; wanted is an object"):
        eval_data(str(boxes), "detection")


def test_karpathy_json_and_shards(tmp_path):
    file = tmp_path / "dataset_mine.json"
    file.touch()
    data = eval_data(str(file), "coarse")
    (source,) = data.sources
    assert (data.name, data.split, source.images) == ("mine", "test", str(tmp_path / "images"))
    assert eval_data(str(file), "coarse", "val", Path("elsewhere")).sources[0].images == "elsewhere"
    (tmp_path / "shards").mkdir()
    for shards in (tmp_path / "shards", tmp_path / "shards/*.tar", tmp_path / "shards/{00..03}.tar"):
        wanted = WebDatasetSettings(kind="webdataset", shards=str(shards))
        assert eval_data(str(shards), "coarse") == EvalData("shards", "all", [wanted])
    with pytest.raises(UserError, match="no --split"):
        eval_data(str(tmp_path / "shards"), "coarse", "val")


def test_a_file_has_no_image_folder_of_its_own(tmp_path):
    boxes, statements, sets = tmp_path / "boxes.json", tmp_path / "lines.jsonl", tmp_path / "sets.yaml"
    boxes.write_text('{"annotations": [{"bbox": [1, 2, 3, 4]}]}')
    statements.touch()
    sets.touch()
    for file, task in ((boxes, "detection"), (statements, "nlvr2")):
        assert eval_data(str(file), task, images=tmp_path).sources[0].images == str(tmp_path)
        assert eval_data(str(file), task, root=tmp_path).sources[0].images == str(tmp_path)
        with pytest.raises(UserError, match="of a file both name its images, give --images alone"):
            eval_data(str(file), task, root=tmp_path, images=tmp_path)
    with pytest.raises(UserError, match=r"--images .*nowhere: no such folder"):
        eval_data(str(boxes), "detection", images=tmp_path / "nowhere")
    with pytest.raises(UserError, match="names the images of its sets itself"):
        eval_data(str(sets), "detection", images=tmp_path)
    with pytest.raises(UserError, match="no --split and no --root or --images"):
        eval_data(str(tmp_path), "coarse", images=tmp_path)


def test_an_unknown_name_lists_those_of_the_task():
    with pytest.raises(UserError, match="unknown dataset 'flickr': give one of scenes, coco, flickr30k"):
        eval_data("flickr", "coarse")


def test_tasks_are_known_by_the_name_alone():
    assert tasks_for("vqav2") == ("vqa",)
    assert tasks_for("some.yaml") == ("fine", "detection", "grounding", "refexp")


def test_known_dataset_is_read(shared):
    folder = shared / "data/flickr8k-1k"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    (settings,) = eval_data("flickr8k", "coarse", "val", folder).sources
    source = open_source(settings)
    images = json.loads((folder / "dataset_flickr8k.json").read_text())["images"]
    assert len(source) == sum(image["split"] == "val" for image in images)
    assert source.image(0).mode == "RGB"
