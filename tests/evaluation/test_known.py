"""Where the files of the data sets that `fiber eval` knows lie."""

import pytest

from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSettings
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.evaluation.known import KNOWN
from fiber_cli.evaluation.names import DATASETS, SCENES


def test_every_known_name_is_told_in_the_help():
    assert set(DATASETS) == {SCENES, *KNOWN}


def test_karpathy_splits_are_found_in_either_layout(tmp_path):
    (tmp_path / "dataset_coco.json").touch()
    with pytest.raises(UserError, match="no images of coco there; wanted is val2014/ or images/val2014/"):
        eval_data("coco", "coarse", root=tmp_path)
    (tmp_path / "images/val2014").mkdir(parents=True)
    json, images = str(tmp_path / "dataset_coco.json"), str(tmp_path / "images")
    wanted = KarpathySettings(kind="karpathy", json=json, images=images, split="test")
    assert eval_data("coco", "coarse", root=tmp_path) == ("coco", "test", [wanted])
    (tmp_path / "val2014").mkdir()
    wanted = KarpathySettings(kind="karpathy", json=json, images=str(tmp_path), split="val")
    assert eval_data("coco", "coarse", "val", tmp_path).sources == [wanted]
    assert eval_data("coco_caption", "caption", "val", tmp_path) == ("coco_caption", "val", [wanted])
    with pytest.raises(UserError, match=r"dataset_flickr30k.json: no such file; --root names the folder"):
        eval_data("flickr30k", "coarse", root=tmp_path)


def test_known_region_datasets(tmp_path):
    (tmp_path / "annotations").mkdir()
    for name in (
        "annotations/instances_val2017.json",
        "lvis_v1_minival_inserted_image_name.json",
        "final_refcoco+_testA.json",
    ):
        (tmp_path / name).touch()
    json = str(tmp_path / "annotations/instances_val2017.json")
    wanted = CocoSettings(kind="coco", json=json, images=str(tmp_path / "val2017"))
    assert eval_data("coco", "detection", root=tmp_path) == ("coco", "val", [wanted])
    assert eval_data("lvis", "fine", "minival", tmp_path).sources[0].kind == "coco"
    (referring,) = eval_data("refcoco+", "refexp", "testA", tmp_path).sources
    assert (referring.kind, referring.refers) == ("mdetr", True)
    with pytest.raises(UserError, match="refcocog has val, test"):
        eval_data("refcocog", "refexp", "testA", tmp_path)
    folder, images = str(tmp_path), str(tmp_path / "flickr30k-images")
    entities = FlickrEntitiesSettings(kind="flickr_entities", folder=folder, images=images, split="test")
    assert eval_data("flickr30k_entities", "grounding", None, tmp_path).sources == [entities]
    (tmp_path / "odinw13.yaml").write_text("[{name: a, json: a.json, images: a}, {name: b, json: b.json, images: b}]")
    assert [source.name for source in eval_data("odinw13", "detection", None, tmp_path).sources] == ["a", "b"]


def test_a_data_set_of_another_task_is_refused():
    with pytest.raises(UserError, match="vqav2 is for checkpoints of vqa, not of detection"):
        eval_data("vqav2", "detection")
    with pytest.raises(UserError, match="coco_caption is for checkpoints of caption, not of coarse"):
        eval_data("coco_caption", "coarse")
