"""Data sets told apart by the names of their files."""

import pytest
import yaml

from fiber_cli.checkpoints.trained_on import all_seen, data_name, trained_on
from fiber_cli.config.recipe import Recipe
from fiber_cli.config.resolve import resolve_recipe, shipped_recipes
from fiber_cli.data.sources import source_format


def entry(kind, file, **more):
    """An entry of a recipe by its first file."""
    first = {"vqa": "questions", "statements": "jsonl", "flickr_entities": "folder", "webdataset": "shards"}
    images = {} if kind == "webdataset" else {"images": "images"}
    return source_format(kind).settings(**{"kind": kind, first.get(kind, "json"): file} | images | more)


SAME = [
    ("karpathy", "/data/flickr30k/dataset_flickr30k.json", "elsewhere/dataset_flickr30k.json"),
    ("coco", "/data/coco/annotations/instances_train2017.json", "coco/annotations/instances_val2017.json"),
    ("coco", "/data/lvis/lvis_v1_train.json", "lvis_v1_minival_inserted_image_name.json"),
    ("coco", "/cells/instances_train.json", "/cells/instances_val.json"),
    ("coco", "/odinw/pistols/export/train_annotations.json", "/odinw/pistols/export/test_annotations.json"),
    (
        "coco",
        "/odinw/Aquarium/Aquarium Combined.v2-raw-1024.coco/train/labels.json",
        "Aquarium Combined/test/labels.json",
    ),
    ("coco", "/odinw/Packages/Raw/fewshot_train_shot3_seed30.json", "/odinw/Packages/Raw/test/annotations.json"),
    ("coco", "/data/rabbits/train/_annotations.coco.json", "/data/rabbits/valid/_annotations.coco.json"),
    ("mdetr", "/data/mdetr/finetune_refcocog_train.json", "finetune_refcocog_test_corrected.json"),
    ("mdetr", "/data/mdetr/final_refcoco+_train.json", "/data/mdetr/finetune_refcoco+_testA.json"),
    ("vqa", "/data/v2_OpenEnded_mscoco_train2014_questions.json", "v2_OpenEnded_mscoco_test-dev2015_questions.json"),
    ("statements", "/data/nlvr2/train.json", "/data/nlvr2/test1.json"),
    ("webdataset", "/data/shops/train-{00000..00331}.tar", "/data/shops/val-{00000..00002}.tar"),
    ("webdataset", "/data/shops", "/data/shops/00001.tar"),
]
DIFFERENT = [
    ("karpathy", "/data/dataset_flickr30k.json", "/data/dataset_flickr8k.json"),
    ("coco", "/data/coco/annotations/instances_train2017.json", "/data/cells/annotations/instances_val2017.json"),
    ("coco", "/data/coco/annotations/instances_train2017.json", "/data/lvis/lvis_v1_val.json"),
    ("coco", "/odinw/pistols/export/train_annotations.json", "/odinw/Packages/Raw/test/annotations.json"),
    (
        "coco",
        "/odinw/VehiclesOpenImages/416x416/train/annotations.json",
        "/odinw/ShellfishOpenImages/raw/test/annotations.json",
    ),
    ("coco", "/data/rabbits/train/_annotations.coco.json", "/data/coco/annotations/instances_val2017.json"),
    ("mdetr", "/data/mdetr/finetune_refcoco_train.json", "/data/mdetr/finetune_refcocog_val.json"),
    ("mdetr", "/data/mdetr/finetune_refcoco_train.json", "/data/mdetr/finetune_refcoco+_val.json"),
]


@pytest.mark.parametrize(("kind", "trained", "evaluated"), SAME)
def test_splits_of_one_data_set_are_taken_for_two(kind, trained, evaluated):
    assert data_name(entry(kind, trained)) == data_name(entry(kind, evaluated))


@pytest.mark.parametrize(("kind", "trained", "evaluated"), DIFFERENT)
def test_two_data_sets_are_taken_for_one(kind, trained, evaluated):
    assert data_name(entry(kind, trained)) != data_name(entry(kind, evaluated))


def test_built_in_scenes_of_another_kind_are_other_data():
    kinds = ("scenes", "scene_detection", "scene_grounding", "scene_referring")
    names = {data_name(source_format(kind).settings(kind=kind)) for kind in kinds}
    assert len(names) == 1
    assert names.isdisjoint({data_name(entry("coco", "/data/scenes/train.json"))})


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_has_not_seen_its_own_data(name, tmp_path):
    """As a run keeps it."""
    recipe: Recipe = resolve_recipe(name, ["data.root=/data"] if "tiny" not in name else [])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    names = trained_on(tmp_path)
    assert list(names) == [data_name(source) for source in recipe.data.train]
    assert all_seen(recipe.data.train, names)


def test_all_of_several_sources_must_have_been_seen():
    pistols, packages = entry("coco", "/odinw/Pistols/train.json"), entry("coco", "/odinw/Packages/train.json")
    assert not all_seen([pistols, packages], [data_name(pistols)])
    assert all_seen([pistols, packages], [data_name(packages), data_name(pistols)])


@pytest.mark.parametrize("content", [None, "", "data: 3", "data: {train: [{json: x}]}", ": : :", "\0"])
def test_a_recipe_that_cannot_be_read_names_no_data(tmp_path, content):
    if content is not None:
        (tmp_path / "recipe.yaml").write_text(content)
    assert trained_on(tmp_path) == ()


def test_an_entry_of_an_unknown_kind_hides_the_others(tmp_path):
    recipe = {"data": {"train": [{"kind": "lmdb", "file": "x"}, {"kind": "scenes"}]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert len(trained_on(tmp_path)) == 1
