"""Data sets told apart by the names of their files."""

import pytest
import yaml

from fiber_cli.checkpoints.trained_on import Seen, all_seen, data_of, trained_on
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
    assert data_of(entry(kind, trained)).name == data_of(entry(kind, evaluated)).name


@pytest.mark.parametrize(("kind", "trained", "evaluated"), DIFFERENT)
def test_two_data_sets_are_taken_for_one(kind, trained, evaluated):
    assert data_of(entry(kind, trained)).name != data_of(entry(kind, evaluated)).name


def test_built_in_scenes_of_another_kind_are_other_data():
    kinds = ("scenes", "scene_detection", "scene_grounding", "scene_referring")
    names = {data_of(source_format(kind).settings(kind=kind)).name for kind in kinds}
    assert len(names) == 1
    assert names.isdisjoint({data_of(entry("coco", "/data/scenes/train.json")).name})


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_has_not_seen_its_own_data(name, tmp_path):
    """As a run keeps it."""
    recipe: Recipe = resolve_recipe(name, ["data.root=/data"] if "tiny" not in name else [])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    data = [data_of(source) for source in recipe.data.train]
    assert list(trained_on(tmp_path)) == data
    assert all_seen(data, trained_on(tmp_path)) is Seen.BY_FILE


def test_all_of_several_sources_must_have_been_seen():
    pistols, packages = (data_of(entry("coco", f"/odinw/{name}/train.json")) for name in ("Pistols", "Packages"))
    assert all_seen([pistols, packages], [pistols]) is Seen.NOT
    assert all_seen([pistols, packages], [packages, pistols]) is Seen.BY_FILE
    tested = data_of(entry("coco", "/odinw/Packages/test.json"))
    assert all_seen([pistols, tested], [packages, pistols]) is Seen.BY_FOLDER
    assert all_seen([], [pistols]) is Seen.NOT
    assert all_seen([pistols], []) is Seen.NOT


HOW_SEEN = [
    ("/d/cars/annotations/instances_default.json", "/d/cars/annotations/instances_default.json", Seen.BY_FILE),
    ("/d/cars/annotations/instances_default.json", "/d/x/../cars/annotations/instances_default.json", Seen.BY_FILE),
    ("/d/cars/annotations/instances_default.json", "/d/blood/annotations/instances_default.json", Seen.NOT),
    ("/d/cars/annotations/instances_train.json", "/d/cars/annotations/instances_val.json", Seen.BY_FOLDER),
    ("/d/cars/train/_annotations.coco.json", "/d/cars/valid/_annotations.coco.json", Seen.BY_FOLDER),
    ("/d/cars/train.json", "/e/cars/train.json", Seen.BY_NAME),
    ("/d/lvis_v1_train.json", "/d/lvis_v1_val.json", Seen.BY_FOLDER),
    ("/d/lvis_v1_train.json", "/e/lvis_v1_val.json", Seen.BY_NAME),
    ("/d/result.json", "/d/result.json", Seen.BY_FILE),
]


@pytest.mark.parametrize(("trained", "evaluated", "seen"), HOW_SEEN)
def test_how_it_is_known_is_told_wrongly(trained, evaluated, seen):
    assert all_seen([data_of(entry("coco", evaluated))], [data_of(entry("coco", trained))]) is seen


def test_a_file_is_known_through_a_symbolic_link(tmp_path):
    (tmp_path / "cars").mkdir()
    (tmp_path / "today").symlink_to(tmp_path / "cars")
    real, linked = (data_of(entry("coco", str(tmp_path / name / "result.json"))) for name in ("cars", "today"))
    assert all_seen([linked], [real]) is Seen.BY_FILE


#: Names that tools give to every export, below the folders of two data sets.
EXPORTS = [
    "annotations/instances_default.json",
    "annotations/person_keypoints_default.json",
    "result.json",
    "results.json",
    "output.json",
    "outputs/output.json",
    "coco.json",
    "coco/result.json",
    "coco/annotations/instances_train.json",
    "data/coco/train.json",
    "dataset/labels_default.json",
    "project_1/task_2/annotations.json",
    "export/train/_annotations.coco.json",
]


@pytest.mark.parametrize("export", EXPORTS)
def test_the_name_of_an_export_is_no_data_set(export):
    cars, blood = (data_of(entry("coco", f"/d/{name}/{export}")) for name in ("cars", "blood"))
    assert (cars.name, blood.name) == ({"cars"}, {"blood"})
    assert all_seen([cars], [blood]) is Seen.NOT


@pytest.mark.parametrize("file", ["instances_train2017.json", "captions_val2014.json", "image_info_test-dev2017.json"])
def test_coco_is_a_data_set_where_its_own_files_are(file):
    assert data_of(entry("coco", f"/data/coco/annotations/{file}")).name == {"coco"}
    assert data_of(entry("coco", f"/data/cells/annotations/{file}")).name == {"cells"}


@pytest.mark.parametrize("content", [None, "", "data: 3", "data: {train: [{json: x}]}", ": : :", "\0"])
def test_a_recipe_that_cannot_be_read_names_no_data(tmp_path, content):
    if content is not None:
        (tmp_path / "recipe.yaml").write_text(content)
    assert trained_on(tmp_path) == ()


def test_an_entry_of_an_unknown_kind_hides_the_others(tmp_path):
    recipe = {"data": {"train": [{"kind": "lmdb", "file": "x"}, {"kind": "scenes"}]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert len(trained_on(tmp_path)) == 1


def test_a_set_in_several_forms_in_folders_side_by_side_is_one_place(tmp_path):
    folders = {}
    for form in ("coco", "yolo", "voc"):
        folder = tmp_path / "cells" / form
        folder.mkdir(parents=True)
        folders[form] = data_of(source_format("folder").settings(kind="folder", split="train", folder=str(folder)))
    assert all_seen([folders["yolo"]], [folders["yolo"]]) == Seen.BY_FILE
    assert all_seen([folders["yolo"]], [folders["coco"]]) == Seen.BY_NAME
    of_yaml = source_format("yolo").settings(kind="yolo", data=str(tmp_path / "cells/yolo/data.yaml"))
    assert all_seen([data_of(of_yaml)], [folders["yolo"]]) == Seen.BY_FOLDER
    assert all_seen([folders["yolo"]], [data_of(of_yaml)]) == Seen.BY_FOLDER
    assert all_seen([data_of(of_yaml)], [folders["coco"]]) == Seen.BY_NAME
