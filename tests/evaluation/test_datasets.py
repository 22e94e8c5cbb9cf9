"""What DATASET means beside the known names: scenes, and files of a form."""

import json
import socket
from pathlib import Path

import pytest
from shard_server import serving_shards

from fiber_cli.data import remote_files
from fiber_cli.data.sources import open_source
from fiber_cli.data.sources.odvg_record import read_label_map
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


def test_a_json_that_is_not_there_is_told_by_its_path(tmp_path):
    path = tmp_path / "dataset_mine.json"
    (source,) = eval_data(str(path), "coarse").sources
    with pytest.raises(UserError, match=r"dataset_mine\.json: No such file or directory; give the path of a Karpathy"):
        open_source(source)
    with pytest.raises(UserError, match=r"dataset_mine\.json: No such file or directory; give the path of a JSON with"):
        eval_data(str(path), "detection")


@pytest.mark.parametrize(
    ("file", "task"), [("some.jsonl", "nlvr2"), ("some.jsonl", "fine"), ("some.json", "refexp"), ("a.yml", "detection")]
)
def test_files_without_splits_say_so(tmp_path, file, task):
    with pytest.raises(UserError, match=rf"{file} has no --split; name the file to evaluate"):
        eval_data(str(tmp_path / file), task, "val")


def test_a_label_map_beside_detection_records_is_found(tmp_path):
    lines = tmp_path / "records.jsonl"
    lines.touch()
    (source,) = eval_data(str(lines), "detection").sources
    assert (source.kind, source.images, source.label_map) == ("odvg", str(tmp_path), None)
    label_map = tmp_path / "label_map.json"
    label_map.touch()
    assert eval_data(str(lines), "detection").sources[0].label_map == str(label_map)
    (tmp_path / "0.tar").touch()
    for shards in (tmp_path, tmp_path / "0.tar"):
        (source,) = eval_data(str(shards), "detection").sources
        assert (source.kind, source.label_map) == ("region_shards", str(label_map))


@pytest.mark.parametrize("pattern", ["{00000..00003}.tar?token=1", "00000.tar", ""])
def test_a_label_map_beside_shards_at_an_address_is_passed_over(tmp_path, pattern):
    with serving_shards(tmp_path) as server:
        shards = f"{server.address}/det/{pattern}"
        data = eval_data(shards, "detection")
        assert data.sources[0].label_map is None
        assert data.name == ("00000" if pattern == "00000.tar" else "det")
        (tmp_path / "det").mkdir()
        (tmp_path / "det" / "label_map.json").write_text('{"7": "cat"}')
        (source,) = eval_data(shards, "detection").sources
        assert source.label_map == f"{server.address}/det/label_map.json{'?token=1' if 'token' in pattern else ''}"
        assert read_label_map(source.label_map).names == {"7": "cat"}


def test_a_page_in_the_place_of_a_label_map_ends_an_evaluation(tmp_path, capsys):
    (tmp_path / "label_map.json").write_text("<html>There is no such file.</html>")
    with serving_shards(tmp_path) as server:
        (source,) = eval_data(f"{server.address}/0.tar", "fine").sources
    assert source.label_map is None
    assert "label_map.json: not valid JSON" in capsys.readouterr().err


def test_a_server_that_hides_what_is_not_there_ends_an_evaluation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(remote_files, "WAITS_SECONDS", ())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/det/"
    assert eval_data(url, "fine").sources[0].label_map is None
    assert f"{url}label_map.json: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("vqa", {}, "a checkpoint of vqa cannot be evaluated on shards"),
        ("coarse", {"root": Path("x")}, "shards have no --split and no --root or --images"),
        ("fine", {"split": "val"}, "has no --split"),
        ("fine", {"root": Path("x")}, "shards hold their images; leave out --root"),
    ],
)
def test_what_shards_cannot_have_is_told(tmp_path, task, options, message):
    with pytest.raises(UserError, match=message):
        eval_data(str(tmp_path), task, **options)


def test_a_file_of_another_form_than_the_task_reads_is_refused():
    with pytest.raises(UserError, match=r"some\.json is for checkpoints of coarse, fine, retrieval.*, not of vqa"):
        eval_data("some.json", "vqa")
    with pytest.raises(UserError, match=r"some\.jsonl is for checkpoints of fine, nlvr2, .*, not of coarse"):
        eval_data("some.jsonl", "coarse")


def test_an_unknown_name_lists_those_of_the_task():
    with pytest.raises(UserError, match="unknown dataset 'flickr': give one of scenes, coco, flickr30k"):
        eval_data("flickr", "coarse")


def test_tasks_are_known_by_the_name_alone():
    assert tasks_for("vqav2") == ("vqa", "vqa_generated")
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
