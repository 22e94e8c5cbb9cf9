"""Results in COCO's form, as COCO's own code and our evaluation read them."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from small_detector import LENGTH, LONGEST, MOST, SHORT, detect

from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.inference.coco_results import CocoResults
from fiber_cli.inference.detections import Detection
from fiber_cli.inference.video import Shot
from fiber_cli.tasks.prediction import PredictOptions, predict_all
from fiber_cli.tasks.regions.detection_set import DetectionSet


def test_ids_count_from_one_and_boxes_are_xywh(tmp_path):
    results = CocoResults(tmp_path / "found.json", ["cat", "dog"])
    results.add(Shot(tmp_path / "a.png", Image.new("RGB", (30, 20))), [])
    results.add(Shot(tmp_path / "b.mp4", Image.new("RGB", (8, 9)), 3), [Detection("dog", 1, 0.5, (1.0, 2.0, 4.0, 9.0))])
    results.close()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == [{"image_id": 2, "category_id": 2, "bbox": [1.0, 2.0, 3.0, 7.0], "score": 0.5}]
    truth = json.loads((tmp_path / "found-images.json").read_text())
    assert truth["images"] == [
        {"id": 1, "file_name": str(tmp_path / "a.png"), "width": 30, "height": 20},
        {"id": 2, "file_name": str(tmp_path / "b.mp4"), "frame": 3, "width": 8, "height": 9},
    ]
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert truth["annotations"] == []
    assert truth["info"] == {}  # which pycocotools 2.0.9 and 2.0.10 read


def test_coco_results_agree_with_the_evaluation(detector_run, detector, readable, capsys, tmp_path):
    labels = ["red circle", "Star", "dog"]  # which the cleaning of data sets' names leaves as they are
    code, _, _ = detect(capsys, detector_run, *readable, " . ".join(labels), "--coco", tmp_path / "found.json")
    truth = COCO(str(tmp_path / "found-images.json"))
    assert code == 0
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == labels
    read = truth.loadRes(str(tmp_path / "found.json"))
    images = {image["id"]: image for image in truth.loadImgs(truth.getImgIds())}
    assert [image["file_name"] for image in images.values()] == [str(path) for path in readable]
    content = {
        "images": list(images.values()),
        "categories": [{"id": number, "name": name} for number, name in enumerate(labels, 1)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    source = CocoSource(tmp_path / "truth.json", "/")
    evalset = DetectionSet(source, detector.context.tokenizer, LENGTH, short=SHORT, longest=LONGEST)
    predictions = predict_all(detector.task, evalset, PredictOptions(batch_size=2, workers=0))
    evaluated = evalset.detections(predictions.rows, extent=1).to_json()
    assert len(evaluated) == len(read.getAnnIds()) == 3 * MOST
    written = json.loads((tmp_path / "found.json").read_text())
    for rows in (written, evaluated):
        rows.sort(key=lambda row: (row["image_id"], -row["score"]))
    for one, other in zip(written, evaluated, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        (x, y, width, height), size = other["bbox"], images[other["image_id"]]
        inside = [x, y, min(width, size["width"] - x), min(height, size["height"] - y)]
        np.testing.assert_allclose(one["bbox"], inside, atol=2e-3)
