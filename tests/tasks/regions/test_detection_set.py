"""The evaluation sets of detection."""

import json

import numpy as np
import pytest
import torch
from region_files import coco_box, coco_file, write_image
from region_predictions import perfect

from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.data.sources.scenes import SceneDetection
from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.detection_set import DetectionSet, LvisSet


@pytest.mark.parametrize("data", ["bccd", "nlvr"])
def test_detection_set_on_real_data(data, shared, tokenizer):
    folder = shared / "data" / data
    source = CocoSource(folder / "instances_val.json", folder / "val")
    evalset = DetectionSet(source.first(5), tokenizer, 64, short=60)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=3, workers=0)))
    assert batch["pixels"].shape[:2] == (3, 3)
    assert batch["pixels"].dtype == torch.uint8
    width, height = source.image(0).size
    assert batch["original_sizes"].tolist() == [[height, width]] * 3
    assert batch["sizes"].amin(1).tolist() == [60] * 3
    prompts = len(batch["ids"])
    assert [tuple(pair) for pair in batch["pairs"].tolist()] == [(b, p) for b in range(3) for p in range(prompts)]
    assert batch["labels"].tolist() == list(range(len(source.names)))
    for name, row, prompt in zip(source.names, batch["positive_map"], batch["label_prompt"], strict=True):
        assert tokenizer.decode(batch["ids"][prompt][row]).strip() == name
    right = perfect(source, range(5), lambda i: source.regions(i).labels)
    score = evalset.score(right)
    assert score.metrics["detection/ap"] == pytest.approx(100)
    first = score.files["detections.json"][0]
    content = json.loads((folder / "instances_val.json").read_text())
    wanted = next(a for a in content["annotations"] if a["image_id"] == source.image_id(0))
    assert (first["image_id"], first["category_id"]) == (wanted["image_id"], wanted["category_id"])
    assert first["bbox"] == pytest.approx(wanted["bbox"], abs=1e-3)
    del right[0]
    assert evalset.score(right).metrics["detection/ap"] < 100
    assert evalset.score({}).metrics["detection/ap"] == 0


def test_ids_of_the_file_come_back(tokenizer, tmp_path):
    source = CocoSource(coco_file(tmp_path, [coco_box(5, 9, [1, 2, 20, 15]), coco_box(7, 3, [0, 0, 30, 30])]), tmp_path)
    score = DetectionSet(source, tokenizer, 64).score({1: np.array([[1, 2, 20, 16, 0.5, 1]])})
    found = {"image_id": 5, "category_id": 9, "bbox": [1.0, 2.0, 20.0, 15.0], "score": 0.5}
    assert score.files["detections.json"] == [found]
    table = score.files["per_class.json"]
    assert [row["name"] for row in table] == source.names
    assert [row["ap"] for row in table] == pytest.approx([0, 100])


def test_chunks_share_one_batch(tokenizer):
    evalset = DetectionSet(SceneDetection("val", 2), tokenizer, 64, chunk=10)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=2, workers=0)))
    assert batch["label_prompt"].bincount().max() <= 10
    assert batch["label_prompt"].max() == len(batch["ids"]) - 1
    assert batch["labels"].tolist() == list(range(64))
    assert len(batch["pairs"]) == 2 * len(batch["ids"])
    assert batch["truncated"] == 0
    assert batch["positive_map"].any(1).all()


def test_scene_detection_is_scored(tokenizer):
    source = SceneDetection("val", 4)
    evalset = DetectionSet(source, tokenizer, 64)
    score = evalset.score(perfect(source, range(4), lambda i: source.regions(i).labels))
    assert score.metrics["detection/ap"] == pytest.approx(100)


def test_copies_of_few_shots_are_evaluated_once(tokenizer, tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 9, [1, 1, 9, 9]), coco_box(5, 3, [1, 1, 9, 9])])
    evalset = DetectionSet(CocoSource(path, tmp_path, shots=1), tokenizer, 64, short=32)
    assert len(evalset.source) == 16
    assert sorted(evalset.image_ids) == [5, 7]
    assert len(evalset) == 2


def test_mixed_records_are_evaluated_apart(tokenizer, tmp_path):
    write_image(tmp_path / "a.png")
    caption = {"caption": "cat", "regions": [{"bbox": [1, 1, 9, 9], "phrase": "cat"}]}
    instances = [
        {"bbox": [1, 1, 9, 9], "label": 0, "category": "cat"},
        {"bbox": [1, 1, 1.5, 9], "label": 0, "category": "cat"},
    ]
    records = [{"grounding": caption}, {"detection": {"instances": instances}}]
    size = {"filename": "a.png", "height": 30, "width": 40}
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(size | record) for record in records))
    source = OdvgSource(tmp_path / "x.jsonl", tmp_path)
    assert source.dropped == 1
    with pytest.raises(UserError, match="captions beside category names"):
        DetectionSet(source, tokenizer, 64, short=32).score({})


def test_lvis_set(tokenizer, tmp_path):
    categories = [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 9, "name": "bow_(weapon)", "frequency": "f"}]
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    path = coco_file(
        tmp_path, [coco_box(7, 3, [1, 2, 20, 15], area=300), coco_box(5, 9, [0, 0, 30, 30], area=900)], categories
    )
    source = CocoSource(path, tmp_path)
    content = json.loads(path.read_text())
    content["images"] = [image | lists for image in content["images"]]
    path.write_text(json.dumps(content))
    evalset = LvisSet(source, tokenizer, 64, chunk=40)
    score = evalset.score({0: np.array([[1, 2, 21, 17, 0.9, 0], [0, 0, 9, 9, 0.95, 1]])})
    assert score.metrics["lvis/fixed_apr"] == score.metrics["lvis/apr"] == pytest.approx(100)
    assert score.metrics["lvis/fixed_apf"] == 0
    assert score.metrics["lvis/fixed_ap"] == pytest.approx(50)
    assert score.files["detections.json"][0]["bbox"] == [1, 2, 20, 15]
    cat, bow = score.files["per_class.json"]
    assert (cat["name"], cat["frequency"], bow["ap"], bow["fixed_ap"]) == ("cat", "r", 0, 0)
    assert cat["ap"] == cat["ap50"] == cat["fixed_ap"] == pytest.approx(100)
    assert [note.split() for note in score.notes] == [
        ["cat", "ap", "100.00", "ap50", "100.00", "fixed_ap", "100.00"],
        ["bow_(weapon)", "ap", "0.00", "ap50", "0.00", "fixed_ap", "0.00"],
    ]
    limited = LvisSet(source.first(1), tokenizer, 64).score({0: np.array([[1, 2, 21, 17, 0.9, 0]])})
    assert limited.metrics["lvis/fixed_ap"] == pytest.approx(100)
    assert "lvis/fixed_apf" not in limited.metrics
