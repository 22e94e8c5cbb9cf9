"""Detection, phrase and referring metrics against stored results, reference code written here, and hand-made cases."""

import json

import numpy as np
import pytest

from fiber_cli.data.sources.grounding import FlickrEntities
from fiber_cli.tasks.regions.evaluation import PhraseSet
from fiber_cli.data.text import load_tokenizer
from fiber_cli.tasks.regions.average_precision import Detections, best_per_group, coco_ap, lvis_ap, odinw_ap
from fiber_cli.tasks.regions.metrics import overlaps, phrase_recall, ranked, referring_accuracy


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


def detections(rows):
    """(image, category, xywh, score) rows."""
    images, categories, boxes, scores = zip(*rows) if rows else ([], [], [], [])
    return Detections(
        np.array(images, int), np.array(categories, int), np.array(boxes, float).reshape(-1, 4), np.array(scores, float)
    )


def test_fixed_ap_of_the_stored_case(cases):
    case = cases["lvis_fixed_ap"]
    rows = [
        (image, label, [x1, y1, x2 - x1, y2 - y1], score)
        for image, found in case["predictions"]
        for (x1, y1, x2, y2), score, label in zip(found["boxes"], found["scores"], found["labels"])
    ]
    for name, per_class in (("topk_10000", 10_000), ("topk_4", 4)):
        wanted = case["results"][name]
        found = detections(rows)
        result, _ = lvis_ap(case["gt"], found[best_per_group(found.categories, found.scores, per_class)])
        for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
            assert result[key.lower()] == pytest.approx(100 * wanted[key], abs=1e-9), (name, key)
        assert result["ar"] == pytest.approx(100 * wanted["AR@-1"], abs=1e-9)


def random_lvis(seed):
    rng = np.random.default_rng(seed)

    def box():
        return [*rng.integers(0, 60, 2).tolist(), *rng.integers(8, 130, 2).tolist()]

    images, annotations, rows = [], [], []
    for image in range(1, 8):
        negative = rng.choice([1, 2, 3, 4], rng.integers(0, 3), replace=False).tolist()
        present = [c for c in (1, 2, 3, 4) if c not in negative and rng.random() < 0.6]
        partial = [c for c in (1, 2, 3, 4) if rng.random() < 0.3]
        images.append({"id": image, "neg_category_ids": negative, "not_exhaustive_category_ids": partial})
        for category in present:
            for _ in range(rng.integers(1, 4)):
                x, y, w, h = box()
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h],
                    "area": w * h * float(rng.uniform(0.4, 1)),
                })  # fmt: skip
                for _ in range(rng.integers(0, 3)):
                    near = (np.array([x, y, w, h]) + rng.integers(-3, 4, 4)).tolist()
                    rows.append((image, category, near, round(float(rng.random()), 1)))
        rows += [(image, int(rng.integers(1, 5)), box(), round(float(rng.random()), 1)) for _ in range(8)]
    categories = [{"id": c, "name": str(c), "frequency": f} for c, f in ((1, "r"), (2, "c"), (3, "f"), (4, "f"))]
    return {"images": images, "annotations": annotations, "categories": categories}, rows


def naive_lvis(truth, rows, low=0, high=1e10):
    """AP by class, rule by rule, one detection and one object at a time."""

    def iou(a, b):
        w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        return w * h / (a[2] * a[3] + b[2] * b[3] - w * h) if w > 0 and h > 0 else 0.0

    result = {}
    for category in (c["id"] for c in truth["categories"]):
        of_threshold = []
        for threshold in np.linspace(0.5, 0.95, 10):
            outcomes, total = [], 0
            for image in sorted(truth["images"], key=lambda image: image["id"]):
                objects = [
                    a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)
                ]
                if not objects and category not in image["neg_category_ids"]:
                    continue
                total += sum(low <= a["area"] <= high for a in objects)
                found = [(box, score) for i, c, box, score in rows if (i, c) == (image["id"], category)]
                taken = set()
                for box, score in sorted(found, key=lambda each: -each[1]):
                    options = [
                        (low <= a["area"] <= high, iou(box, a["bbox"]), n)
                        for n, a in enumerate(objects)
                        if n not in taken and iou(box, a["bbox"]) >= threshold
                    ]
                    if options:
                        counts, _, n = max(options)
                        taken.add(n)
                        outcomes.append((score, True, counts))
                    else:
                        inside = low <= box[2] * box[3] <= high
                        counts = inside and category not in image["not_exhaustive_category_ids"]
                        outcomes.append((score, False, counts))
            if not total:
                continue
            right = wrong = 0
            curve = []
            for _, good, counts in sorted(outcomes, key=lambda each: -each[0]):
                right += good and counts
                wrong += counts and not good
                curve.append((right / total, right / max(right + wrong, 1)))
            points = [max((p for r, p in curve if r >= level), default=0) for level in np.linspace(0, 1, 101)]
            of_threshold.append(np.mean(points))
        if of_threshold:
            result[category] = 100 * np.mean(of_threshold)
    return result


@pytest.mark.parametrize("seed", range(6))
def test_lvis_against_a_naive_reference(seed):
    truth, rows = random_lvis(seed)
    result, table = lvis_ap(truth, detections(rows))
    by_class = naive_lvis(truth, rows)
    names = {category["id"]: (category["name"], category["frequency"]) for category in truth["categories"]}
    assert {(row["name"], row["frequency"]): row["ap"] for row in table} == {
        names[category]: pytest.approx(ap) for category, ap in by_class.items()
    }
    assert all(row["ap"] <= row["ap50"] for row in table)
    assert result["ap"] == pytest.approx(np.mean(list(by_class.values())))
    for group, members in (("r", [1]), ("c", [2]), ("f", [3, 4])):
        wanted = [by_class[c] for c in members if c in by_class]
        assert result.get(f"ap{group}", -1) == pytest.approx(np.mean(wanted) if wanted else -1)
    for size, low, high in (("s", 0, 32**2), ("m", 32**2, 96**2), ("l", 96**2, 1e10)):
        wanted = list(naive_lvis(truth, rows, low, high).values())
        assert result.get(f"ap{size}", -1) == pytest.approx(np.mean(wanted) if wanted else -1)


def test_lvis_against_its_package(tmp_path):
    lvis = pytest.importorskip("lvis", reason="compared only where the lvis package is installed")
    truth, rows = random_lvis(11)
    for each in truth["annotations"]:
        each["iscrowd"] = 0
    (tmp_path / "lvis.json").write_text(json.dumps(truth))
    api = lvis.LVIS(str(tmp_path / "lvis.json"))
    results = [{"image_id": i, "category_id": c, "bbox": list(map(float, b)), "score": s} for i, c, b, s in rows]
    evaluation = lvis.LVISEval(api, lvis.LVISResults(api, results, max_dets=4), "bbox")
    evaluation.run()
    found = detections(rows)
    result, _ = lvis_ap(truth, found[best_per_group(found.images, found.scores, 4)])
    for name, value in evaluation.get_results().items():
        if name.startswith("AP"):
            assert result.get(name.lower(), -100) == pytest.approx(100 * value), name


def test_the_federated_rules():
    """One object; a wrong detection hurts only where the class is known to be absent or is exhaustively marked."""
    image = {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    other = {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth = {
        "images": [image, other],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100}],
        "categories": [{"id": 1, "name": "a", "frequency": "r"}],
    }
    right, missing = (1, 1, [0, 0, 10, 10], 0.5), (2, 1, [0, 0, 10, 10], 0.9)
    second = (1, 1, [40, 40, 10, 10], 0.9)
    assert lvis_ap(truth, detections([missing, right]))[0]["ap"] == pytest.approx(100)
    other["neg_category_ids"] = [1]
    assert lvis_ap(truth, detections([missing, right]))[0]["ap"] == pytest.approx(50)
    assert lvis_ap(truth, detections([second, right]))[0]["ap"] == pytest.approx(50)
    image["not_exhaustive_category_ids"] = [1]
    assert lvis_ap(truth, detections([second, right]))[0]["ap"] == pytest.approx(100)
    found = detections([second, right])
    for groups in (found.images, found.categories):
        assert lvis_ap(truth, found[best_per_group(groups, found.scores, 1)])[0]["ap"] == 0
    assert lvis_ap(truth, detections([]))[0]["ap"] == 0


def test_best_per_group():
    groups, scores = np.array([1, 2, 1, 1, 2]), np.array([0.5, 0.1, 0.5, 0.9, 0.2])
    assert best_per_group(groups, scores, 2).tolist() == [0, 1, 3, 4]
    assert best_per_group(groups[:0], scores[:0], 2).tolist() == []


def test_coco_ap_of_a_case_by_hand():
    """Two categories with ids that are not consecutive, an annotation numbered 0, no area and no iscrowd keys."""
    truth = {
        "images": [{"id": 4}, {"id": 9}],
        "annotations": [
            {"id": 0, "image_id": 4, "category_id": 3, "bbox": [0, 0, 20, 20]},
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [0, 0, 50, 50]},
        ],
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}, {"id": 8, "name": "c"}],
    }
    # The second overlaps by 36 / 50: right up to a threshold of 0.70, so at 5 of the 10.
    found = detections([(4, 3, [0, 0, 20, 20], 0.9), (9, 7, [0, 0, 36, 50], 0.8)])
    metrics, table = coco_ap(truth, found, [image["id"] for image in truth["images"]])
    assert metrics == pytest.approx(
        {"detection/ap": 75, "detection/ap50": 100, "detection/ap75": 50, "detection/ap_small": 100, "detection/ap_medium": 50}
    )  # fmt: skip
    assert [row["name"] for row in table] == ["a", "b"]
    assert [row["ap"] for row in table] == pytest.approx([100, 50])
    assert coco_ap(truth, found, [4])[0]["detection/ap"] == pytest.approx(100)
    assert coco_ap(truth, detections([]), [image["id"] for image in truth["images"]])[0]["detection/ap"] == 0


def test_odinw_is_a_plain_mean():
    assert odinw_ap({"a": 10, "b": 40}) == {"odinw/ap": 25, "odinw/ap/a": 10, "odinw/ap/b": 40}


@pytest.fixture
def flickr(cases, tmp_path):
    case = cases["flickr_recall"]
    for folder, files, ending in (("Annotations", "annotations_xml", "xml"), ("Sentences", "sentences", "txt")):
        (tmp_path / folder).mkdir()
        for name, content in case[files].items():
            (tmp_path / folder / f"{name}.{ending}").write_text(content)
    (tmp_path / "test.txt").write_text("111\n222\n")
    (tmp_path / "111.jpg").write_bytes(b"")
    return FlickrEntities(tmp_path, tmp_path, "test")


def test_phrase_recall_of_the_stored_case(cases, flickr):
    case = cases["flickr_recall"]
    evalset = PhraseSet(flickr, load_tokenizer("builtin"), 64)
    predictions = {}
    for index, sentence in enumerate(case["predictions"]):
        rows = [
            [*box, 1 - 0.01 * place, label]
            for label, boxes in enumerate(sentence["boxes"])
            for place, box in enumerate(boxes)
        ]
        predictions[index] = np.array(rows)
    score = evalset.score(predictions)
    for ours, theirs in (("any_box", "separate"), ("merged_box", "merged")):
        for k, stored in case["results_topk_-1_is_upper_bound"][theirs].items():
            for kind, value in stored.items():
                name = f"grounding/{ours}/{'upper_bound' if k == '-1' else f'r@{k}'}"
                name += "" if kind == "all" else f"/{kind}"
                assert score.metrics[name] == pytest.approx(100 * value), name
    assert [each["id"] for each in score.files["phrases.json"]] == ["111#0", "222#0"]
    assert evalset.score({0: predictions[0]}).metrics["grounding/any_box/upper_bound"] == pytest.approx(200 / 3)


def test_phrases_are_ranked_as_published(cases):
    case = cases["flickr_post_process"]
    factor = case["orig_hw"][1] / case["network_wh"][0]
    rows = ranked(np.c_[np.array(case["boxes"]) * factor, case["scores"], case["labels"]])
    for label, (boxes, scores) in enumerate(zip(case["out_boxes"], case["out_scores"]), 1):
        own = rows[rows[:, 5] == label]
        np.testing.assert_allclose(own[:, :4], np.reshape(boxes[:-1], (-1, 4)))
        np.testing.assert_allclose(own[:, 4], scores)


def test_referring_accuracy_of_the_stored_case(cases):
    case = cases["refexp"]
    for name in ("refcoco", "refcoco+"):
        expressions = []
        for key in (key for key, dataset in case["dataset_name"].items() if dataset == name):
            x, y, w, h = case["gt_xywh"][key]
            found = case["predictions"][key]
            rows = np.c_[found["boxes"], found["scores"], np.zeros(len(found["scores"]))]
            expressions.append((ranked(rows), np.array([x, y, x + w, y + h])))
        result = referring_accuracy(expressions)
        stored = [100 * value for value in case["result_precision_at_1_5_10_sorted"][name]]
        names = ("acc@giou50", "r@5@giou50", "r@10@giou50")
        assert [result[f"refexp/{each}"] for each in names] == pytest.approx(stored)
    assert result["refexp/acc@iou50"] == 100  # image 3: the first box has an IoU of 0.516, a GIoU of 0.472
    iou, giou = overlaps(rows[:, :4], expressions[0][1][None])
    np.testing.assert_allclose(giou[:, 0], case["note_image3_giou"], rtol=1e-6)
    np.testing.assert_allclose(iou[:, 0], case["note_image3_iou"], rtol=1e-6)


def test_equal_scores_are_ordered_by_box():
    rows = np.array([[1, 2, 3, 4, 0.5, 0], [1, 3, 0, 0, 0.5, 1], [0, 9, 9, 9, 0.5, 2], [0, 0, 0, 0, 0.7, 3]])
    assert ranked(rows)[:, 5].tolist() == [3, 1, 0, 2]


def test_nothing_found_is_a_miss():
    truth = np.array([0.0, 0, 10, 10])
    result = referring_accuracy([(np.empty((0, 6)), truth), (np.array([[0, 0, 10, 10, 0.1, 0]]), truth)])
    assert set(result.values()) == {50.0}
    assert phrase_recall([(np.empty((0, 4)), truth[None], ["people"])])["grounding/any_box/r@10/people"] == 0
