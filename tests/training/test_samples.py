"""How many samples a training goes through, without its data."""

import json

import pytest
from PIL import Image
from small_runs import RECIPE

from fiber_cli.config.resolve import parse_recipe, resolve_recipe
from fiber_cli.training.samples import length_of


def test_steps_of_the_recipe_need_no_data():
    length = length_of(resolve_recipe("4m"))
    assert (length.steps, length.samples) == (100_000, 409_600_000)


@pytest.mark.parametrize(
    ("recipe", "samples"),
    [("vqav2", 658_111), ("caption_mle", 566_747), ("flickr30k_itc", 145_000), ("refcoco", 120_624)],
)
def test_epochs_of_public_data_are_known_without_them(recipe, samples):
    resolved = resolve_recipe(recipe, ["data.root=/nowhere"])
    batch, epochs = resolved.runtime.global_batch, resolved.optim.epochs
    assert length_of(resolved).samples == samples // batch * batch * epochs


def test_epochs_of_data_of_one_s_own_are_known_when_these_are_there(tmp_path):
    folder = tmp_path / "labels"
    recipe = resolve_recipe("detection", [f"data.root={folder}", "optim.steps=null", "optim.epochs=3"])
    unknown = length_of(recipe)
    assert (unknown.steps, unknown.samples) == (None, None)
    assert str(folder) in unknown.basis
    (folder / "train").mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (9, 9)).save(folder / f"train/{number}.png")
    images = [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 9} for i in range(20)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "instances_train.json").write_text(json.dumps(content))
    length = length_of(recipe)
    assert length.samples == length.steps * 8
    assert 0 < length.steps <= 3 * 20 // 8


@pytest.mark.parametrize("kind", ["no labels", "half a file", "other split"])
def test_a_folder_that_has_no_labels_yet_ends_the_plan(tmp_path, kind):
    folder = tmp_path / "labels"
    (folder / "train").mkdir(parents=True)
    if kind == "half a file":
        (folder / "instances_train.json").write_text('{"images": [')
    if kind == "other split":
        (folder / "instances_val.json").write_text("{}")
    recipe = resolve_recipe("detection_small", [f"data.root={folder}", "optim.steps=null", "optim.epochs=3"])
    length = length_of(recipe)
    assert (length.steps, length.samples) == (None, None)
    assert length.basis.startswith(f"3 epochs of data that cannot be read yet: {folder}")


def test_built_in_scenes_are_counted():
    assert length_of(parse_recipe(RECIPE, "small", ["optim.steps=null", "optim.epochs=2"])).steps == 4
