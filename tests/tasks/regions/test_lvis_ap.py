"""LVIS's average precision against stored results, its package, and a reference written here."""

import json

import numpy as np
import pytest
from coco_detections import detections

from fiber_cli.tasks.regions.lvis_ap import best_per_group, lvis_ap


def test_fixed_ap_is_the_stored_one(cases):
    case = cases["lvis_fixed_ap"]
    rows = [
        (image, label, [x1, y1, x2 - x1, y2 - y1], score)
        for image, found in case["predictions"]
        for (x1, y1, x2, y2), score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True)
    ]
    for name, per_class in (("topk_10000", 10_000), ("topk_4", 4)):
        wanted = case["results"][name]
        found = detections(rows)
        result, _ = lvis_ap(case["gt"], found.take(best_per_group(found.categories, found.scores, per_class)))
        for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
            assert result[key.lower()] == pytest.approx(100 * wanted[key], abs=1e-9), (name, key)
        assert result["ar"] == pytest.approx(100 * wanted["AR@-1"], abs=1e-9)


def random_lvis(seed):
    rng = np.random.default_rng(seed)

    def random_box():
        return [*rng.integers(0, 60, 2).tolist(), *rng.integers(8, 130, 2).tolist()]

    images, annotations, rows = [], [], []
    for image in range(1, 8):
        negative = rng.choice([1, 2, 3, 4], rng.integers(0, 3), replace=False).tolist()
        present = [c for c in (1, 2, 3, 4) if c not in negative and rng.random() < 0.6]
        partial = [c for c in (1, 2, 3, 4) if rng.random() < 0.3]
        images.append({"id": image, "neg_category_ids": negative, "not_exhaustive_category_ids": partial})
        for category in present:
            for _ in range(rng.integers(1, 4)):
                x, y, w, h = random_box()
                area = w * h * float(rng.uniform(0.4, 1))
                annotation = {"image_id": image, "category_id": category, "bbox": [x, y, w, h], "area": area}
                annotations.append({"id": len(annotations) + 1, **annotation})
                for _ in range(rng.integers(0, 3)):
                    near = (np.array([x, y, w, h]) + rng.integers(-3, 4, 4)).tolist()
                    rows.append((image, category, near, round(float(rng.random()), 1)))
        rows += [(image, int(rng.integers(1, 5)), random_box(), round(float(rng.random()), 1)) for _ in range(8)]
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
    result, _ = lvis_ap(truth, found.take(best_per_group(found.images, found.scores, 4)))
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
        assert lvis_ap(truth, found.take(best_per_group(groups, found.scores, 1)))[0]["ap"] == 0
    assert lvis_ap(truth, detections([]))[0]["ap"] == 0


def test_the_best_of_each_group_are_kept():
    groups, scores = np.array([1, 2, 1, 1, 2]), np.array([0.5, 0.1, 0.5, 0.9, 0.2])
    assert best_per_group(groups, scores, 2).tolist() == [0, 1, 3, 4]
    assert best_per_group(groups[:0], scores[:0], 2).tolist() == []
