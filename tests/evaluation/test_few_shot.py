"""Sets that are fine-tuned on: in which order, from which draws."""

from pathlib import Path

from region_files import coco_box, coco_file

from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.evaluation.few_shot import FewShotSet, drawn_by_seed, drawn_from_files, images_of_categories, tunings


def coco(split):
    return CocoSettings(kind="coco", json=f"{split}.json", images=split, name="a", prompts={"cat": {"prefix": "a "}})


def test_draws_lose_what_the_set_says_or_come_otherwise_than_asked():
    drawn = drawn_by_seed(coco("train"))(3, 30)
    assert (drawn.json, drawn.shots, drawn.seed, drawn.copies) == ("train.json", 3, 30, None)
    filed = drawn_from_files(coco("train"), lambda shots, seed: Path(f"{shots}-{seed}.json"))
    assert [(filed(n, 7).json, filed(n, 7).copies, filed(n, 7).shots) for n in (1, 10, 4)] == [
        ("1-7.json", 8, None),
        ("10-7.json", 1, None),
        ("4-7.json", 1, None),
    ]
    for each in (drawn, filed(1, 2)):
        assert (each.images, each.name, each.prompts) == ("train", "a", {"cat": {"prefix": "a "}})


def test_a_mean_over_all_sets_is_there_last():
    sets = []
    for name in ("a", "b"):
        train = coco("train")
        sets.append(FewShotSet(name, train, coco("valid"), coco("test"), drawn_by_seed(train)))
    planned = tunings(sets, (0, 2), (3, 30))
    assert [each.name for each in planned] == [
        "a/full",
        "b/full",
        "a/shot2-seed3",
        "b/shot2-seed3",
        "a/shot2-seed30",
        "b/shot2-seed30",
    ]
    assert [(each.train.shots, each.train.seed) for each in planned[:3]] == [(None, 0), (None, 0), (2, 3)]
    assert planned[0].valid.json == "valid.json"


def test_boxes_are_counted_for_images(tmp_path):
    file = coco_file(
        tmp_path, [coco_box(7, 3, [1, 2, 20, 15]), coco_box(7, 3, [2, 2, 9, 9]), coco_box(5, 9, [5, 5, 8, 8])]
    )
    counts = images_of_categories(str(file))
    assert sorted(counts.values()) == [1, 1]
