"""The evaluation sets of detection."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from region_files import coco_box, coco_file, write_image
from region_predictions import perfect

from fiber_cli.data.source import BadSample
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
    prompts = len(evalset.prompts)
    pairs = [tuple(pair) for pair in batch["pairs"].tolist()]
    assert pairs[: 3 * prompts] == [(b, p) for b in range(3) for p in range(prompts)]
    names = len(source.names)
    assert batch["labels"][:names].tolist() == list(range(names))
    for number, row, prompt in zip(batch["labels"], batch["positive_map"], batch["label_prompt"], strict=True):
        assert tokenizer.decode(batch["ids"][prompt][row]).strip() == source.names[number % names]
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
    assert batch["labels"][:56].tolist() == list(range(56))
    assert len(batch["pairs"]) == 2 * len(evalset.prompts) + 2
    assert batch["truncated"] == 0
    assert batch["positive_map"].any(1).all()


def test_few_names_are_asked_of_each_image_by_themselves(tokenizer):
    source = SceneDetection("val", 12)
    evalset = DetectionSet(source, tokenizer, 64)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=12, workers=0)))
    own = [(image, prompt) for image, prompt in batch["pairs"].tolist() if prompt >= len(evalset.prompts)]
    assert [image for image, _ in own] == list(range(12))
    for image, prompt in own:
        asked = (batch["labels"][batch["label_prompt"] == prompt] - 56).tolist()
        present = set(source.regions(image).labels.tolist())
        assert len(set(asked)) == 5
        assert 1 <= len(present.intersection(asked)) <= 2
    assert not DetectionSet(SceneDetection("val", 3).first(3), tokenizer, 64).few_labels.keys() - {0, 1, 2}


def test_what_few_names_found_counts_for_the_threshold_alone(tokenizer):
    source = SceneDetection("val", 3)
    evalset = DetectionSet(source, tokenizer, 64)
    right = perfect(source, range(3), lambda i: source.regions(i).labels)
    alone = evalset.score(right)
    with_few = {}
    for index, rows in right.items():
        of_few = [[*row[:4], 0.8, 56 + row[5]] for row in rows if row[5] in evalset.few_labels[index]]
        absent = [label for label in evalset.few_labels[index] if label not in rows[:, 5]]
        of_few.append([0, 0, 5, 5, 0.4, 56 + absent[0]])
        with_few[index] = np.concatenate([rows, np.array(of_few, rows.dtype)])
    score = evalset.score(with_few)
    assert score.files == alone.files
    assert score.metrics["detection/ap"] == alone.metrics["detection/ap"]
    assert score.metrics["detection/present@0.5"] == alone.metrics["detection/present@0.5"]
    assert 0.4 < score.metrics["detection/threshold"] <= 0.8
    assert score.metrics["detection/present@best"] == 100
    assert score.metrics["detection/absent@best"] == 0


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


def rewritten(path, change):
    """The file's source, after a change of each annotation."""
    content = json.loads(path.read_text())
    content["annotations"] = [change(dict(annotation)) for annotation in content["annotations"]]
    path.write_text(json.dumps(content))
    return CocoSource(path, path.parent)


def without(*keys):
    return lambda annotation: {key: value for key, value in annotation.items() if key not in keys}


def as_text(annotation):
    return {key: [str(side) for side in value] if key == "bbox" else str(value) for key, value in annotation.items()}


def as_mask(annotation):
    x, y, width, height = annotation.pop("bbox")
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return annotation | {"segmentation": [corners]}


FORMS = {
    "as it is": dict,
    "area null": lambda annotation: annotation | {"area": None},
    "no area": without("area"),
    "iscrowd null": lambda annotation: annotation | {"iscrowd": None},
    "iscrowd text": lambda annotation: annotation | {"iscrowd": "0"},
    "iscrowd false": lambda annotation: annotation | {"iscrowd": False},
    "bare": without("area", "iscrowd", "id"),
    "all text": as_text,
    "masks": as_mask,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_truth_in_another_form_ends_the_evaluation_or_scores_otherwise(tokenizer, tmp_path, form):
    boxes = [
        coco_box(7, 9, [1, 2, 20, 15], area=300, iscrowd=0, id=1),
        coco_box(5, 3, [0, 0, 30, 30], area=900, iscrowd=0, id=2),
        coco_box(5, 9, [5, 5, 8, 8], area=64, iscrowd=0, id=3),
    ]
    source = rewritten(coco_file(tmp_path, boxes), FORMS[form])
    evalset = DetectionSet(source, tokenizer, 64)
    predictions = perfect(source, range(2), lambda i: source.regions(i).labels)
    del predictions[1]
    metrics = evalset.score(predictions).metrics
    assert metrics["detection/ap"] == pytest.approx(100 * (0 + 51 / 101) / 2)
    assert metrics["detection/ap_small"] == pytest.approx(100 * (0 + 51 / 101) / 2)
    assert evalset.remarks() == []


def reference(path, found):
    """The numbers of pycocotools on the file itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6]


def test_crowds_and_thin_boxes_are_scored_otherwise_than_by_the_reference(tokenizer, tmp_path):
    rng = np.random.default_rng(0)
    boxes = []
    for number in range(40):
        x, y = rng.uniform(0, 20, 2).round(2)
        width, height = rng.uniform(0.3, 18, 2).round(2)
        area, crowd = round(width * height * 0.7, 2), int(number % 5 == 0)
        one = coco_box((7, 5)[number % 2], (3, 9)[number % 3 == 0], [x, y, width, height])
        boxes.append({**one, "id": number + 1, "area": area, "iscrowd": crowd})
    path = coco_file(tmp_path, boxes)
    path.write_text(json.dumps({"info": {}, **json.loads(path.read_text())}))
    source = CocoSource(path, tmp_path)
    assert 0 < source.scored_all_the_same == source.dropped < 10
    predictions = {}
    for i in range(2):
        edges = source.regions(i).boxes + rng.normal(0, 0.5, source.regions(i).boxes.shape)
        crowds = np.c_[rng.uniform(0, 12, (9, 2)), rng.uniform(13, 30, (9, 2))]
        rows = np.concatenate([edges, crowds])
        predictions[i] = np.c_[rows, rng.uniform(0, 1, len(rows)), rng.integers(0, 2, len(rows))]
    score = DetectionSet(source, tokenizer, 64).score(predictions)
    expected = reference(path, score.files["detections.json"])
    names = ("ap", "ap50", "ap75", "ap_small")
    assert [score.metrics[f"detection/{name}"] for name in names] == pytest.approx(100 * expected[:4])
    assert 1 < 100 * expected[0] < 95


def test_a_truth_without_objects_says_nothing(tokenizer, tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9], iscrowd=1), coco_box(5, 3, [5, 5, 0, 8])])
    evalset = DetectionSet(CocoSource(path, tmp_path), tokenizer, 64)
    assert evalset.remarks() == [
        "1 boxes of instances without an area inside their image are not scored",
        "no object in the truth of instances: predicted only",
    ]
    assert evalset.score({0: np.array([[1, 1, 9, 9, 0.5, 0]])}).metrics == {}
    # Of the first image alone there is none, of both there is one.
    half = CocoSource(coco_file(tmp_path, [coco_box(5, 3, [1, 1, 9, 9])]), tmp_path)
    assert DetectionSet(half.first(1), tokenizer, 64).remarks() == [
        "no object in the truth of instances: predicted only"
    ]
    assert DetectionSet(half, tokenizer, 64).remarks() == []


def test_a_file_without_annotations_cannot_be_predicted(tokenizer, tmp_path):
    path = coco_file(tmp_path, [])
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    evalset = DetectionSet(CocoSource(path, tmp_path), tokenizer, 64)
    evalset.check()
    score = evalset.score({1: np.array([[1, 2, 20, 16, 0.5, 1]])})
    assert score.metrics == {}
    assert score.files["detections.json"][0]["image_id"] == 5
    assert evalset.remarks() == ["instances has no annotations: predicted only"]


def test_boxes_that_are_none_are_scored_without_a_word(tokenizer, tmp_path):
    instances = [{"bbox": box, "label": 0, "category": "cat"} for box in ([1, 1, 9, 9], [5, 5, 5, 9], [], [3, 3, 4, 9])]
    write_image(tmp_path / "a.png")
    record = {"filename": "a.png", "height": 30, "width": 40, "detection": {"instances": instances}}
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    evalset = DetectionSet(OdvgSource(tmp_path / "x.jsonl", tmp_path), tokenizer, 64)
    assert [annotation["bbox"] for annotation in evalset.truth()["annotations"]] == [[1, 1, 8, 8], [3, 3, 1, 6]]
    assert evalset.remarks() == [
        "2 boxes of x without an area inside their image are not scored",
        "1 boxes of x at most a pixel wide or high are scored, though not trained on",
    ]


def test_a_record_that_cannot_be_read_ends_the_evaluation(tokenizer):
    class Spoilt(SceneDetection):
        def regions(self, i):
            if i == 1:
                raise BadSample("no record")
            return super().regions(i)

    source = Spoilt("val", 3)
    evalset = DetectionSet(source, tokenizer, 64)
    score = evalset.score(perfect(SceneDetection("val", 3), [0], lambda i: source.regions(i).labels))
    assert 0 < score.metrics["detection/ap"] < 100
    assert {annotation["image_id"] for annotation in evalset.truth()["annotations"]} == {0, 2}


@pytest.mark.parametrize("form", ["no area", "area null", "all text", "masks"])
def test_an_lvis_file_needs_areas(tokenizer, tmp_path, form):
    categories = [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 9, "name": "bow", "frequency": "f"}]
    boxes = [coco_box(7, 3, [1, 2, 20, 15], area=300), coco_box(5, 9, [0, 0, 30, 30], area=900)]
    path = coco_file(tmp_path, boxes, categories)
    content = json.loads(path.read_text())
    content["images"] = [
        image | {"neg_category_ids": [], "not_exhaustive_category_ids": []} for image in content["images"]
    ]
    path.write_text(json.dumps(content))
    evalset = LvisSet(rewritten(path, FORMS[form]), tokenizer, 64)
    metrics = evalset.score({0: np.array([[1, 2, 21, 17, 0.9, 0]])}).metrics
    assert (metrics["lvis/apr"], metrics["lvis/apf"], metrics["lvis/aps"]) == pytest.approx((100, 0, 50))
    assert evalset.score({}).metrics["lvis/ap"] == 0


def test_lvis_set(tokenizer, tmp_path):
    categories = [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 9, "name": "bow_(weapon)", "frequency": "f"}]
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    path = coco_file(
        tmp_path, [coco_box(7, 3, [1, 2, 20, 15], area=300), coco_box(5, 9, [0, 0, 30, 30], area=900)], categories
    )
    content = json.loads(path.read_text())
    content["images"] = [image | lists for image in content["images"]]
    path.write_text(json.dumps(content))
    source = CocoSource(path, tmp_path)
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


#: Hashes as ids: some are too large for int64, some for uint64 and for a float.
HASHES = [2**63 + 1, 2**64 - 1, 2**70, -1, 2**63 + 2]


def hashed(tmp_path, frequency=None):
    """A file whose ids are `HASHES`, and its five images with a box each of two categories in turn."""
    categories = [{"id": number, "name": name} for number, name in ((2**64 - 5, "cat"), (2**64 - 6, "dog"))]
    path = coco_file(tmp_path, [], categories)
    images = [{"id": own, "file_name": f"{own}.png", "width": 40, "height": 30} for own in HASHES]
    for image in images:
        write_image(tmp_path / image["file_name"])
    boxes = [coco_box(own, 2**64 - 5 - n % 2, [n, 2, 20 - n, 15], area=300) for n, own in enumerate(HASHES)]
    if frequency:
        images = [image | {"neg_category_ids": [], "not_exhaustive_category_ids": []} for image in images]
        categories = [category | {"frequency": frequency} for category in categories]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return CocoSource(path, tmp_path)


def test_ids_that_are_hashes_are_rounded(tokenizer, tmp_path):
    source = hashed(tmp_path)
    right = perfect(source, range(5), lambda i: source.regions(i).labels)
    score = DetectionSet(source, tokenizer, 64).score(right)
    assert score.metrics["detection/ap"] == pytest.approx(100)
    assert [found["image_id"] for found in score.files["detections.json"]] == HASHES
    assert {found["category_id"] for found in score.files["detections.json"]} == {2**64 - 5, 2**64 - 6}
    assert [(row["name"], row["ap"]) for row in score.files["per_class.json"]] == [("dog", 100), ("cat", 100)]
    # The one whose neighbour has nearly its id.
    del right[4]
    assert DetectionSet(source, tokenizer, 64).score(right).metrics["detection/ap"] == pytest.approx(
        100 * (1 + 67 / 101) / 2
    )


def test_ids_that_are_hashes_are_rounded_in_lvis(tokenizer, tmp_path):
    source = hashed(tmp_path, "f")
    right = {
        n: np.add(rows, [0, 0, 1, 1, 0, 0])
        for n, rows in perfect(source, range(5), lambda i: source.regions(i).labels).items()
    }
    metrics = LvisSet(source, tokenizer, 64).score(right).metrics
    assert (metrics["lvis/ap"], metrics["lvis/fixed_ap"]) == pytest.approx((100, 100))
    del right[4]
    metrics = LvisSet(source, tokenizer, 64).score(right).metrics
    assert (metrics["lvis/ap"], metrics["lvis/fixed_ap"]) == pytest.approx((100 * (1 + 67 / 101) / 2,) * 2)
