"""The size of a picture is known before it is read, as its sample will have it; micro-batches are padded less."""

import json
import math
from itertools import chain

import numpy as np
import pytest
from PIL import Image
from region_files import coco_box, write_image

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.data.sources.region_shards import RegionShardsSource
from fiber_cli.data.sources.scenes import SceneDetection, SceneGrounding, SceneReferring
from fiber_cli.tasks.regions.data import RegionReader
from fiber_cli.tasks.regions.transforms import RegionTransform
from fiber_cli.training.work import work

SIDES = [(40, 30), (30, 40), (60, 20), (24, 64), (48, 48), (200, 20)]
WORDS = "a cat"


def boxes_of(form, width, height):
    """An object of a picture in each form of file."""
    box = [1, 2, width - 4, height - 4]
    if form == "coco":
        return coco_box(0, 3, box)
    return coco_box(0, 3, box, tokens_positive=[[2, 5]])


def annotated(folder, form, count=6):
    """A COCO or MDETR file of pictures of many shapes."""
    images, annotations = [], []
    for number in range(count):
        width, height = SIDES[number % len(SIDES)]
        write_image(folder / f"{number}.png", width, height)
        entry = {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        images.append(entry if form == "coco" else entry | {"caption": WORDS})
        annotations.append(boxes_of(form, width, height) | {"image_id": number, "id": number})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}
    path = folder / f"{form}.json"
    path.write_text(json.dumps(content))
    return path


def odvg(folder):
    lines = []
    for number, (width, height) in enumerate(SIDES):
        write_image(folder / f"{number}.png", width, height)
        detection = {"instances": [{"bbox": [1, 2, 15, 15], "label": 0, "category": "cat"}]}
        lines.append({"filename": f"{number}.png", "height": height, "width": width, "detection": detection})
    path = folder / "odvg.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


SOURCES = {
    "coco": lambda folder: CocoSource(annotated(folder, "coco"), folder),
    "mdetr": lambda folder: MdetrSource(annotated(folder, "mdetr"), folder),
    "odvg": lambda folder: OdvgSource(odvg(folder), folder),
    "scene_detection": lambda folder: SceneDetection("train", 4),
    "scene_grounding": lambda folder: SceneGrounding("train", 4),
    "scene_referring": lambda folder: SceneReferring("train", 4),
}


@pytest.mark.parametrize("form", SOURCES)
def test_a_picture_gets_another_size_than_foretold(tmp_path, tokenizer, form):
    source = SOURCES[form](tmp_path)
    transform = RegionTransform((32, 40, 64), 90, flip=0.5)
    reader = RegionReader(tokenizer, 64, transform, size_first=True)
    told = set()
    for i in range(len(source)):
        for seed in range(6):
            size = reader.picture_size(source, i, np.random.default_rng(seed))
            sample = reader(source, i, np.random.default_rng(seed))
            assert tuple(sample["pixels"].shape[1:]) == size
            told.add(size)
    assert len(told) > 1, "one size alone was tried"


def test_a_size_that_no_index_tells_is_made_up(tmp_path, tokenizer):
    source = CocoSource(annotated(tmp_path, "coco"), tmp_path)
    reader = RegionReader(tokenizer, 64, RegionTransform((32,), 90, 0), size_first=True)
    source.known_size = super(RegionShardsSource, RegionShardsSource).known_size.__get__(source)
    assert reader.picture_size(source, 0, np.random.default_rng(0)) is None


RECIPE = """
model: {{preset: tiny, image_size: 64, text_length: 40, depths: [1, 1, 1], text_layers: 2, fusion_layers: 1}}
task: {{name: detection, channels: 32, blocks: 1, short_sides: [32, 48, 64], longest_side: 160, group_by_shape: {by}}}
data: {{train: [{{kind: coco, json: {folder}/coco.json, images: {folder}}}], workers: 0}}
optim: {{lr: 1e-3, steps: 4}}
runtime: {{micro_batch: 2, global_batch: 12}}
"""


def test_micro_batches_are_padded_as_they_come(tmp_path):
    annotated(tmp_path, "coco", 24)
    areas, steps = [], []
    for by_shape in ("false", "true"):
        planned = work(parse_recipe(RECIPE.format(by=by_shape, folder=tmp_path), "test"))
        batches = list(planned.batches(0))
        assert len(batches) == 4 * 6
        areas.append(sum(math.prod(batch["pixels"].shape) for batch in batches))
        names = [batch["sample_ids"] for batch in batches]
        steps.append([sorted(chain.from_iterable(names[first : first + 6])) for first in range(0, 24, 6)])
    assert steps[0] == steps[1]
    assert areas[1] < 0.8 * areas[0]


def test_a_picture_of_another_size_than_its_file_says_ends_the_run(tmp_path):
    """It is left out where it is read, as without the order."""
    annotated(tmp_path, "coco", 24)
    Image.new("RGB", (7, 9)).save(tmp_path / "5.png")
    planned = work(parse_recipe(RECIPE.format(by="true", folder=tmp_path), "test"))
    bad = [each for batch in planned.batches(0) for each in batch["bad"]]
    assert bad
    assert all("5.png" in name for name, _ in bad)


def without_sizes(path):
    content = json.loads(path.read_text())
    for image in content["images"]:
        del image["width"], image["height"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("sized", "by", "told"), [(True, "true", 0), (False, "true", 1), (False, "false", 0)])
def test_files_that_tell_no_sizes_are_left_as_they_are_in_silence(tmp_path, capsys, sized, by, told):
    path = annotated(tmp_path, "coco", 24)
    if not sized:
        without_sizes(path)
    work(parse_recipe(RECIPE.format(by=by, folder=tmp_path), "test"))
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "coco does not say how large its pictures are" in line]
    assert len(lines) == told
