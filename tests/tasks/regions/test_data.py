"""Region transforms, sources and evaluation sets, against stored results, files made here and real data."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fiber_cli.data.sources.coco import CocoDetection, few_shot, read_odinw
from fiber_cli.data.sources.grounding import (
    FlickrEntities,
    MdetrGrounding,
    OdvgSource,
    SceneDetection,
    SceneGrounding,
    SceneReferring,
    ShardRegions,
    entity_boxes,
    parse_entities,
    phrases_of,
)
from fiber_cli.data.images import normalize
from fiber_cli.tasks.regions.prompts import shown_names
from fiber_cli.tasks.regions.transforms import (
    RegionTransform,
    flip_boxes,
    inclusive,
    pad_batch,
    resized,
    scale_boxes,
    swap_sides,
)
from fiber_cli.tasks.regions.data import Detected, RegionReader, collate_regions
from fiber_cli.tasks.regions.evaluation import DetectionSet, LvisSet, PhraseSet, ReferringSet, region_sets
from fiber_cli.data.source import BadSample
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.evaluation.evaluate import First


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("builtin")


# transforms


def test_resize_rule(cases):
    for case in cases["resize_rule_800_1333"]:
        width, height = case["wh"]
        assert list(resized(height, width, 800, 1333)) == case["new_hw"], case
    case = cases["resize_rule_train_multi"]
    width, height = case["wh"]
    assert set(map(tuple, case["new_hw_sequence"])) <= {
        resized(height, width, short) for short in (480, 560, 640, 720, 800)
    }
    assert resized(1, 3000, 800) == (1, 3000)


def test_resize_and_flip_of_the_stored_picture(cases):
    case = cases["transform_example"]
    image = Image.fromarray(np.array(case["image_uint8_hwc_rgb"], np.uint8))
    short, longest = case["resize"]
    boxes = np.array(case["boxes_in"], np.float32)
    pixels, boxes, mirrored = RegionTransform((short,), longest, flip=1)(image, boxes, np.random.default_rng(0))
    assert mirrored and [pixels.shape[2], pixels.shape[1]] == case["out_wh"]
    np.testing.assert_allclose(boxes, case["boxes_out"])
    published = torch.tensor(case["out_chw"]).flip(0)  # BGR
    torch.testing.assert_close(normalize(pixels), published, atol=2e-4, rtol=0)


def test_box_operations(cases):
    case = cases["boxlist_ops"]
    box, (width, height) = np.array(case["in"]), case["wh"]
    np.testing.assert_allclose(flip_boxes(box, width), case["flip_lr"])
    np.testing.assert_allclose(scale_boxes(box, (height, width), (75, 200)), case["resize_200x75"])
    # Edges of the box, whose last pixels are x2 and y2.
    edges = box + [0, 0, 1, 1]
    assert (edges[:, 2:] - edges[:, :2]).tolist() == [case["to_xywh"][0][2:]]
    np.testing.assert_allclose(inclusive(edges, (height, width))[0], case["in"])
    boxes = np.array([[-10.0, -5, 150, 70], [120, 10, 140, 20]])
    clipped, kept = inclusive(boxes + [0, 0, 1, 1], (height, width))
    np.testing.assert_allclose(clipped, case["clip"])
    np.testing.assert_allclose(clipped[kept], case["clip_remove_empty"])


def test_swap_sides():
    text = "Left of the leftmost right-hand shoe, RIGHT there: leftovers, a bright copyright"
    words = ("leftmost", "shoe", "RIGHT", "leftovers")
    spans = [[(text.index(word), text.index(word) + len(word)) for word in words]]
    swapped, moved = swap_sides(text, spans)
    assert swapped == "Right of the rightmost left-hand shoe, LEFT there: leftovers, a bright copyright"
    assert [swapped[a:b] for a, b in moved[0]] == ["rightmost", "shoe", "LEFT", "leftovers"]
    assert swap_sides(swapped, moved) == (text, spans)


def test_padding(cases):
    case = cases["collate"]
    images = [torch.ones((3, h, w), dtype=torch.uint8) for h, w in case["image_sizes_hw"]]
    pixels, sizes = pad_batch(images)
    assert list(pixels.shape) == case["padded_shape"] and sizes.tolist() == case["image_sizes_hw"]
    assert pixels.flatten(1).sum(1).tolist() == case["nonzero_pixels_per_image"]
    for row, (height, width) in zip(pixels, sizes):
        assert row[:, :height, :width].all()


# files


def write_image(path, width=40, height=30, shade=120):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, 80, 40)).save(path)


def coco(tmp_path, annotations, categories=({"id": 3, "name": "cat"}, {"id": 9, "name": "traffic light"}), **image):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30, **image},
            {"id": 5, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "annotations": annotations,
        "categories": list(categories),
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path / "instances.json"


def box(image, category, bbox, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


def test_stored_conversion_of_annotations(cases, tmp_path):
    case = cases["annotation_conversion_xywh"]
    width, height = case["image_wh"]
    image = {"id": 1, "file_name": "a.png", "width": width, "height": height, "caption": "apple dog"}
    write_image(tmp_path / "a.png", width, height)
    annotations = [{"image_id": 1, **annotation} for annotation in case["annotations"]]
    (tmp_path / "x.json").write_text(json.dumps({"images": [image], "annotations": annotations}))
    regions = MdetrGrounding(tmp_path / "x.json", tmp_path).regions(0)
    boxes, kept = inclusive(regions.boxes, regions.size)
    np.testing.assert_allclose(boxes[kept], case["boxes_xyxy"])
    spans = [spans for spans, keep in zip(regions.spans, kept) if keep]
    assert [[list(span) for span in row] for row in spans] == case["tokens_positive"]


def test_coco(tmp_path):
    source = CocoDetection(coco(tmp_path, [
        box(7, 9, [1, 2, 10, 5]), box(7, 3, [30, 20, 30, 30], iscrowd=0), box(7, 3, [0, 0, 9, 9], iscrowd=1),
        box(7, 3, [5, 5, 0, 8]), box(7, 3, [50, 5, 8, 8]),
    ]), tmp_path)  # fmt: skip
    assert (source.names, source.category_ids, source.image_ids) == (["cat", "traffic light"], [3, 9], [7, 5])
    assert source.dropped == 2 and len(source) == 2
    boxes, labels, size = source.regions(0)
    assert boxes.tolist() == [[1, 2, 11, 7], [30, 20, 60, 50]] and labels.tolist() == [1, 0] and size == (30, 40)
    assert source.regions(1).boxes.shape == (0, 4)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.regions(0).labels.tolist() == [1, 0] and copy.image(0).size == (40, 30)


def test_the_background_of_exports_is_left_out(tmp_path):
    exported = [{"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "red", "supercategory": "cells"}]
    assert CocoDetection(coco(tmp_path, [box(7, 1, [1, 1, 9, 9])], exported), tmp_path).names == ["red"]
    assert CocoDetection(coco(tmp_path, [box(7, 0, [1, 1, 9, 9])], exported), tmp_path).names == ["cells", "red"]
    plain = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "dog", "supercategory": "none"}]
    assert CocoDetection(coco(tmp_path, [box(7, 1, [1, 1, 9, 9])], plain), tmp_path).names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (box(8, 3, [1, 1, 2, 2]), r"annotations\[1\]"),
        (box(7, 4, [1, 1, 2, 2]), "no category 4"),
        (box(7, 3, [1, 1, 2]), r"annotations\[1\]"),
        (box(7, 3, [1, 1, float("nan"), 2]), "not finite"),
        (box(7, 3, "abc"), r"annotations\[1\]"),
        ({"image_id": 7, "category_id": 3}, "bbox"),
    ],
)
def test_a_wrong_coco_file_is_told_with_its_place(tmp_path, annotation, place):
    path = coco(tmp_path, [box(7, 3, [1, 1, 9, 9]), annotation])
    with pytest.raises(UserError, match=place) as error:
        CocoDetection(path, tmp_path)
    assert str(path) in str(error.value)


def test_lvis_names_its_pictures_by_address(tmp_path):
    write_image(tmp_path / "val2017" / "9.png")
    path = coco(tmp_path, [], file_name=None, coco_url="http://images.cocodataset.org/val2017/9.png")
    assert CocoDetection(path, tmp_path).image(0).size == (40, 30)


def test_few_shots():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 4, rng.integers(0, 3)).tolist() for _ in range(200)]
    chosen = few_shot(labels, 3, seed=1)
    counts = [sum(label in labels[i] for i in chosen) for label in range(4)]
    assert min(counts) >= 3 and len(set(chosen)) == len(chosen) <= 12
    assert all(labels[i] for i in chosen)
    assert few_shot(labels, 3, seed=1) == chosen != few_shot(labels, 3, seed=2)


def test_shots_are_copied(tmp_path):
    path = coco(tmp_path, [box(7, 3, [1, 1, 9, 9]), box(7, 9, [1, 1, 9, 9])])
    assert len(CocoDetection(path, tmp_path, shots=1)) == 8
    assert len(CocoDetection(path, tmp_path, shots=10)) == 1
    source = CocoDetection(path, tmp_path, shots=3, copies=2)
    assert source.image_ids == [7, 7] and source.regions(1).labels.tolist() == [0, 1]


def mdetr(tmp_path, spans, **image):
    write_image(tmp_path / "images" / "a.png")
    image = {"id": 12, "file_name": "a.png", "width": 40, "height": 30, "caption": "a cat left of a dog", **image}
    annotations = [box(12, 1, [1, 2, 10, 5], tokens_positive=each) for each in spans]
    (tmp_path / "mixed.json").write_text(json.dumps({"images": [image], "annotations": annotations, "categories": []}))
    return tmp_path / "mixed.json"


def test_mdetr(tmp_path):
    path = mdetr(tmp_path, [[[0, 5]], [[0, 5], [14, 19]]], data_source="gqa")
    for images in (tmp_path / "images", {"gqa": tmp_path / "images", "coco": tmp_path / "other"}):
        source = MdetrGrounding(path, images)
        regions = source.regions(0)
        assert regions.caption == source.captions(0)[0] == "a cat left of a dog"
        assert regions.boxes.tolist() == [[1, 2, 11, 7]] * 2 and source.key(0) == "12"
        assert regions.spans == [[(0, 5)], [(0, 5), (14, 19)]]
        assert source.image(0).size == (40, 30)
    assert [(phrase.span, len(phrase.boxes)) for phrase in phrases_of(source, 0)[1]] == [((0, 5), 2), ((14, 19), 1)]
    with pytest.raises(UserError, match=r"images\[0\].*inside the caption"):
        MdetrGrounding(mdetr(tmp_path, [[[0, 50]]]), tmp_path)


GROUNDING = {
    "filename": "a.png",
    "height": 30,
    "width": 40,
    "grounding": {
        "caption": "a cat and a dog",
        "regions": [
            {"bbox": [1, 2, 11, 7], "phrase": "a dog"},
            {"bbox": [[0, 0, 4, 4], [5, 5, 9, 9]], "phrase": "a cat", "tokens_positive": [[2, 5]]},
        ],
    },
}
DETECTION = {
    "filename": "a.png",
    "height": 30,
    "width": 40,
    "detection": {"instances": [{"bbox": [1, 2, 11, 7], "label": 12, "category": "cat"}]},
}


def check_odvg(grounded, detected):
    assert grounded.caption == "a cat and a dog" and grounded.size == detected.size == (30, 40)
    assert grounded.boxes.tolist() == [[1, 2, 11, 7], [0, 0, 4, 4], [5, 5, 9, 9]]
    assert grounded.spans == [[(10, 15)], [(2, 5)], [(2, 5)]]
    assert detected.boxes.tolist() == [[1, 2, 11, 7]] and detected.labels.tolist() == [1]


def test_odvg(tmp_path):
    write_image(tmp_path / "a.png")
    other = {**DETECTION, "detection": {"instances": [{"bbox": [0, 0, 9, 9], "label": 2, "category": "person"}]}}
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, (GROUNDING, DETECTION, other))) + "\n\n")
    source = OdvgSource(path, tmp_path)
    assert source.names == ["person", "cat"] and len(source) == 3
    check_odvg(source.regions(0), source.regions(1))
    (tmp_path / "labels.json").write_text(json.dumps({"12": "kitten", "2": "human"}))
    assert OdvgSource(path, tmp_path, tmp_path / "labels.json").names == ["human", "kitten"]
    path.write_text(json.dumps(GROUNDING) + "\n" + json.dumps({"filename": "a.png"}))
    with pytest.raises(UserError, match="line 2"):
        OdvgSource(path, tmp_path)


def test_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_image(tmp_path / "a.png")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number, record in enumerate((GROUNDING, DETECTION, {"caption": "nothing"})):
            parts = {"png": (tmp_path / "a.png").read_bytes(), "json": json.dumps(record).encode()}
            for ending, content in parts.items():
                entry = tarfile.TarInfo(f"{number}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    (tmp_path / "labels.json").write_text(json.dumps({"2": "person", "12": "cat"}))
    source = ShardRegions(str(tmp_path / "0.tar"), tmp_path / "labels.json")
    check_odvg(source.regions(0), source.regions(1))
    assert source.image(0).size == (40, 30)
    with pytest.raises(BadSample, match="ODVG"):
        source.regions(2)


def test_entities(cases):
    case = cases["flickr_recall"]
    text, phrases = parse_entities(case["sentences"]["111"].splitlines()[0])
    assert text == "Two men hold a red bag near the sea ."
    assert [(name, types, text[a:b]) for name, types, (a, b) in phrases] == [
        ("1", ("people",), "Two men"),
        ("2", ("other", "clothing"), "a red bag"),
        ("3", ("scene",), "the sea"),
    ]
    size, boxes = entity_boxes(case["annotations_xml"]["111"])
    assert size == (150, 200) and {name: len(own) for name, own in boxes.items()} == {"1": 2, "2": 1}
    assert boxes["1"][0].tolist() == [9, 9, 59, 79]
    both = entity_boxes(case["annotations_xml"]["222"])[1]
    assert both["7"].tolist() == both["8"].tolist()


def test_flickr_entities(tmp_path):
    for folder in ("Annotations", "Sentences", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "Annotations" / "1.xml").write_text(
        "<annotation><size><width>40</width><height>30</height></size><object><name>5</name><name>6</name><bndbox>"
        "<xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )
    sentences = "[/EN#5/people A man] in [/EN#6/clothing a coat] .\n[/EN#0/notvisual Nothing] .\n"
    (tmp_path / "Sentences" / "1.txt").write_text(sentences)
    (tmp_path / "val.txt").write_text("1\n")
    write_image(tmp_path / "images" / "1.jpg")
    source = FlickrEntities(tmp_path, tmp_path / "images", "val")
    assert len(source) == 1 and source.captions(0) == ("A man in a coat .",)
    regions = source.regions(0)
    assert regions.boxes.tolist() == [[0, 0, 40, 30]] and regions.spans == [[(0, 5), (9, 15)]]
    with pytest.raises(UserError, match=r"test.txt"):
        FlickrEntities(tmp_path, tmp_path / "images", "test")


def test_odinw_list(tmp_path):
    entries = [{"name": "a", "json": "a/i.json", "images": "a"}, {"name": "b", "json": "/b.json", "images": "b"}]
    entries[1]["prompts"] = {"cat": {"prefix": "a "}}
    for ending, dump in (("yaml", yaml.safe_dump), ("json", json.dumps)):
        path = tmp_path / f"list.{ending}"
        path.write_text(dump(entries))
        first, second = read_odinw(path)
        assert first["json"] == tmp_path / "a" / "i.json" and first["prompts"] == {}
        assert str(second["json"]) == "/b.json" and second["prompts"] == entries[1]["prompts"]
    for wrong in ([{"name": "a"}], [{**entries[0], "promts": {}}], [entries[0]] * 2, "text"):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="entry"):
            read_odinw(path)


# training samples


def read_with(tokenizer, source, i, seed=0, short=(32,), flip=0.0, length=64, **options):
    reader = RegionReader(tokenizer, length, RegionTransform(short, 1000, flip), **options)
    return reader(source, i, np.random.default_rng(seed))


def words(tokenizer, sample):
    return [tokenizer.decode(sample["ids"][row]).strip() for row in sample["positive_map"]]


def test_every_box_keeps_its_own_words(tokenizer):
    """Whatever is drawn, the tokens of a box decode to the category of the object that is there."""
    source = SceneDetection("train", 20)
    for i in range(20):
        for options in ({"prompt": "sampled"}, {"prompt": "all", "length": 400}):
            sample = read_with(tokenizer, source, i, seed=i, short=(64, 192), flip=0.5, **options)
            factor = sample["pixels"].shape[1] / 96
            names = [f"{thing.colour} {thing.shape}" for thing in source[i].objects]
            assert words(tokenizer, sample) == names
            wanted = np.array([thing.box for thing in source[i].objects]) - [0, 0, 1, 1]
            heights = sample["boxes"][:, [1, 3]].numpy()
            np.testing.assert_allclose(heights, wanted.clip(0)[:, [1, 3]] * factor, rtol=1e-5)
            straight = np.allclose(sample["boxes"][:, 0], wanted.clip(0)[:, 0] * factor, rtol=1e-5)
            width = sample["pixels"].shape[2]
            assert straight or np.allclose(sample["boxes"][:, 2], width - 1 - wanted.clip(0)[:, 0] * factor, rtol=1e-5)
            assert sample["truncated"] == 0


def test_mirrored_captions_swap_sides(tokenizer):
    source = SceneReferring("train", 200)
    i = next(i for i in range(200) if "left of" in source.regions(i).caption)
    text = source.regions(i).caption
    for swap, wanted in ((True, swap_sides(text, [])[0]), (False, text)):
        sample = read_with(tokenizer, source, i, flip=1.0, swap_sides=swap)
        assert tokenizer.decode(sample["ids"][sample["mask"]], skip_special_tokens=True) == wanted
        assert words(tokenizer, sample) == [wanted]
    plain = read_with(tokenizer, source, i)
    assert torch.equal(sample["pixels"].flip(2), plain["pixels"])
    sides = plain["boxes"][:, [0, 2]]
    torch.testing.assert_close(sample["boxes"][:, [2, 0]], plain["pixels"].shape[2] - 1 - sides)


def test_pictures_under_names_of_sides_are_not_mirrored(tokenizer, tmp_path):
    path = coco(tmp_path, [box(7, 3, [1, 1, 9, 9])], [{"id": 3, "name": "left glove"}])
    sample = read_with(tokenizer, CocoDetection(path, tmp_path), 0, short=(30,), flip=1.0)
    assert sample["boxes"].tolist() == [[1, 1, 9, 9]]


def test_all_names_must_fit(tokenizer):
    with pytest.raises(UserError, match='choose prompt "sampled"'):
        read_with(tokenizer, SceneDetection("train", 1), 0, prompt="all")


def test_overrides_keep_the_order(tokenizer, tmp_path):
    path, prompts = coco(tmp_path, [box(7, 9, [1, 1, 9, 9])]), {"cat": {"prefix": "small ", "name": "ring"}}
    named = CocoDetection(path, tmp_path, prompts=prompts)
    samples = [read_with(tokenizer, named, 0, seed, prompt="all") for seed in range(6)]
    assert {tokenizer.decode(s["ids"][s["mask"]], skip_special_tokens=True) for s in samples} == {
        "small ring. traffic light"
    }
    source = CocoDetection(path, tmp_path)
    shuffled = [read_with(tokenizer, source, 0, seed, prompt="all") for seed in range(6)]
    assert len({tuple(s["ids"].tolist()) for s in shuffled}) == 2


def test_sources_of_one_name_keep_their_own_names(tokenizer, tmp_path):
    reader = RegionReader(tokenizer, 64, RegionTransform((32,), 1000, 0), control=(0, 1, 0))
    for name in ("cat", "star"):
        path = coco(tmp_path / name, [box(7, 3, [1, 1, 9, 9])], [{"id": 3, "name": name}])
        assert words(tokenizer, reader(CocoDetection(path, path.parent), 0, np.random.default_rng(0))) == [name]


def test_boxes_for_another_picture_are_bad_samples(tokenizer, tmp_path):
    source = CocoDetection(coco(tmp_path, [], width=400), tmp_path)
    with pytest.raises(BadSample, match="400 x 30 pixels, the upright picture has 40 x 30"):
        read_with(tokenizer, source, 0)


def test_batches(cases, tokenizer, tmp_path):
    source = CocoDetection(coco(tmp_path, [box(7, 9, [1, 1, 9, 9]), box(7, 3, [1, 1, 9, 9])]), tmp_path)
    samples = [read_with(tokenizer, source, i, i, short=(30 + 10 * i,)) | {"bad": []} for i in (0, 1, 0)]
    batch = collate_regions(samples)
    assert batch["pixels"].shape == (3, 3, 64, 64) and batch["sizes"].tolist() == [[30, 40], [40, 53], [30, 40]]
    assert batch["boxes"].shape == (4, 4) and batch["box_counts"].tolist() == [2, 0, 2]
    assert batch["positive_map"].shape == (4, 64) and batch["ids"].shape == (3, 64)
    assert batch["positive_map"].dtype == torch.bool and batch["boxes"].dtype == torch.float32
    assert batch["sample_ids"][0] == "instances/a.png" and batch["bad"] == [] and batch["truncated"] == 0
    rows = batch["positive_map"].split(batch["box_counts"].tolist())
    assert torch.equal(rows[2], samples[2]["positive_map"])


@pytest.mark.parametrize("kind", [SceneDetection, SceneGrounding, SceneReferring])
def test_scenes(kind, tokenizer):
    source = kind("val", 12)
    for i in range(12):
        regions = source.regions(i)
        truth = {tuple(np.float32(thing.box)) for thing in source[i].objects}
        assert {tuple(each) for each in regions.boxes} <= truth and len(regions.boxes)
        if not isinstance(regions, Detected):
            assert read_with(tokenizer, source, i)["positive_map"].any(1).all() or kind is SceneGrounding
            for spans, (x, *_) in zip(regions.spans, regions.boxes):
                thing = next(each for each in source[i].objects if np.float32(each.box[0]) == x)
                named = [regions.caption[a:b] for a, b in spans]
                assert kind is SceneReferring or any(thing.colour[:3] in text or "violet" in text for text in named)


# evaluation


def perfect(source, chosen, label):
    """Predictions that are right: boxes of first and last pixels, each with its label."""
    rows = {}
    for n, i in enumerate(chosen):
        boxes = source.regions(i).boxes - [0, 0, 1, 1]
        rows[n] = np.c_[boxes, np.linspace(0.9, 0.5, len(boxes)), label(i)]
    return rows


@pytest.mark.parametrize("data", ["bccd", "nlvr"])
def test_detection_set_on_real_data(data, shared, tokenizer):
    folder = shared / "data" / data
    source = CocoDetection(folder / "instances_val.json", folder / "val")
    evalset = DetectionSet(First(source, 5), tokenizer, 64, short=60)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=3, workers=0)))
    assert batch["pixels"].shape[:2] == (3, 3) and batch["pixels"].dtype == torch.uint8
    width, height = source.image(0).size
    assert batch["original_sizes"].tolist() == [[height, width]] * 3
    assert batch["sizes"].amin(1).tolist() == [60] * 3
    prompts = len(batch["ids"])
    assert [tuple(pair) for pair in batch["pairs"].tolist()] == [(b, p) for b in range(3) for p in range(prompts)]
    assert batch["labels"].tolist() == list(range(len(source.names)))
    for name, row, prompt in zip(source.names, batch["positive_map"], batch["label_prompt"]):
        assert tokenizer.decode(batch["ids"][prompt][row]).strip() == name
    right = perfect(source, range(5), lambda i: source.regions(i).labels)
    score = evalset.score(right)
    assert score.metrics["detection/ap"] == pytest.approx(100)
    first = score.files["detections.json"][0]
    content = json.loads((folder / "instances_val.json").read_text())
    wanted = next(a for a in content["annotations"] if a["image_id"] == source.image_ids[0])
    assert (first["image_id"], first["category_id"]) == (wanted["image_id"], wanted["category_id"])
    assert first["bbox"] == pytest.approx(wanted["bbox"], abs=1e-3)
    del right[0]
    assert evalset.score(right).metrics["detection/ap"] < 100
    assert evalset.score({}).metrics["detection/ap"] == 0


def test_ids_of_the_file_come_back(tokenizer, tmp_path):
    source = CocoDetection(coco(tmp_path, [box(5, 9, [1, 2, 20, 15]), box(7, 3, [0, 0, 30, 30])]), tmp_path)
    score = DetectionSet(source, tokenizer, 64).score({1: np.array([[1, 2, 20, 16, 0.5, 1]])})
    found = {"image_id": 5, "category_id": 9, "bbox": [1.0, 2.0, 20.0, 15.0], "score": 0.5}
    assert score.files["detections.json"] == [found]
    table = score.files["per_class.json"]
    assert [row["name"] for row in table] == source.names
    assert [row["ap"] for row in table] == pytest.approx([0, 100])


def test_chunks_share_one_batch(tokenizer):
    evalset = DetectionSet(SceneDetection("val", 2), tokenizer, 64, chunk=10)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=2, workers=0)))
    assert batch["label_prompt"].bincount().max() <= 10 and batch["label_prompt"].max() == len(batch["ids"]) - 1
    assert batch["labels"].tolist() == list(range(64)) and len(batch["pairs"]) == 2 * len(batch["ids"])
    assert batch["truncated"] == 0 and batch["positive_map"].any(1).all()


def test_a_picture_that_cannot_be_read_is_left_out(tokenizer, tmp_path):
    source = CocoDetection(coco(tmp_path, []), tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    batches = list(DetectionSet(source, tokenizer, 64).loader(rank=0, world=1, batch_size=1, workers=0))
    assert [batch["index"].tolist() for batch in batches] == [[], [1]]
    assert batches[0]["bad"][0][0] == "instances/a.png" and "pixels" not in batches[0]


def test_pictures_that_pad_to_one_size_share_batches(tokenizer, tmp_path):
    """Whatever their order in the file; every rank gets of each size, and together they look at each once."""
    shapes = [(40, 30), (30, 40), (40, 31), (30, 40), (40, 30), (31, 40), (40, 30), (30, 40)]
    for number, shape in enumerate(shapes):
        write_image(tmp_path / f"{number}.png", *shape)
    images = [{"id": n, "file_name": f"{n}.png", "width": w, "height": h} for n, (w, h) in enumerate(shapes)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    evalset = DetectionSet(CocoDetection(tmp_path / "instances.json", tmp_path), tokenizer, 64, short=32)
    seen = []
    for rank in (0, 1):
        batches = list(evalset.loader(rank=rank, world=2, batch_size=2, workers=0))
        assert {tuple(batch["pixels"].shape) for batch in batches} == {(2, 3, 32, 64), (2, 3, 64, 32)}
        seen += [index for batch in batches for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(8))


def test_scene_detection_is_scored(tokenizer):
    source = SceneDetection("val", 4)
    evalset = DetectionSet(source, tokenizer, 64)
    score = evalset.score(perfect(source, range(4), lambda i: source.regions(i).labels))
    assert score.metrics["detection/ap"] == pytest.approx(100)


def test_lvis_set(tokenizer, tmp_path):
    categories = [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 9, "name": "bow_(weapon)", "frequency": "f"}]
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    path = coco(tmp_path, [box(7, 3, [1, 2, 20, 15], area=300), box(5, 9, [0, 0, 30, 30], area=900)], categories)
    source = CocoDetection(path, tmp_path)
    content = json.loads(path.read_text())
    content["images"] = [image | lists for image in content["images"]]
    path.write_text(json.dumps(content))
    evalset = LvisSet(source, tokenizer, 64, chunk=40)
    score = evalset.score({0: np.array([[1, 2, 21, 17, 0.9, 0], [0, 0, 9, 9, 0.95, 1]])})
    assert score.metrics["lvis/fixed_apr"] == score.metrics["lvis/apr"] == pytest.approx(100)
    assert score.metrics["lvis/fixed_apf"] == 0 and score.metrics["lvis/fixed_ap"] == pytest.approx(50)
    assert score.files["detections.json"][0]["bbox"] == [1, 2, 20, 15]
    cat, bow = score.files["per_class.json"]
    assert (cat["name"], cat["frequency"], bow["ap"], bow["fixed_ap"]) == ("cat", "r", 0, 0)
    assert cat["ap"] == cat["ap50"] == cat["fixed_ap"] == pytest.approx(100)
    assert [note.split() for note in score.notes] == [
        ["cat", "ap", "100.00", "ap50", "100.00", "fixed_ap", "100.00"],
        ["bow_(weapon)", "ap", "0.00", "ap50", "0.00", "fixed_ap", "0.00"],
    ]
    limited = LvisSet(First(source, 1), tokenizer, 64).score({0: np.array([[1, 2, 21, 17, 0.9, 0]])})
    assert limited.metrics["lvis/fixed_ap"] == pytest.approx(100) and "lvis/fixed_apf" not in limited.metrics


def test_phrase_set(tokenizer):
    source = SceneGrounding("val", 6)
    evalset = PhraseSet(source, tokenizer, 64, short=64)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=6, workers=0)))
    assert batch["pairs"].tolist() == [[b, b] for b in range(6)] and len(batch["ids"]) == 6
    predictions = {}
    for n in range(6):
        text, phrases = phrases_of(source, n)
        mine = batch["label_prompt"] == n
        assert batch["labels"][mine].tolist() == list(range(len(phrases)))
        for phrase, row in zip(phrases, batch["positive_map"][mine]):
            assert tokenizer.decode(batch["ids"][n][row]).strip() == text[slice(*phrase.span)]
        predictions[n] = np.array([[*phrase.boxes[-1], 0.5, label] for label, phrase in enumerate(phrases)])
    metrics = evalset.score(predictions).metrics
    assert metrics["grounding/any_box/r@1"] == 100 > metrics["grounding/merged_box/r@1"]
    wrong = {n: rows * [1, 1, 1, 1, 1, 0] + [0, 0, 0, 0, 0, 99] for n, rows in predictions.items()}
    assert evalset.score(wrong).metrics["grounding/any_box/upper_bound"] == 0


def test_referring_set(tokenizer):
    source = SceneReferring("val", 5)
    evalset = ReferringSet(source, tokenizer, 64, short=64)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=5, workers=0)))
    assert batch["positive_map"].sum(1).tolist() == (batch["mask"].sum(1) - 2).tolist()
    score = evalset.score(perfect(source, range(4), lambda i: 0))
    assert score.metrics["refexp/acc@iou50"] == score.metrics["refexp/acc@giou50"] == 80
    assert len(score.files["expressions.json"]) == 5
    assert ReferringSet(SceneGrounding("val", 3), tokenizer, 64).left_out[0][1].startswith("an expression has one box")


def test_sets_follow_what_a_source_holds(tokenizer, tmp_path):
    """Expressions are told from captions by the source where it says so, by the task where it does not."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30, "caption": "cat"}],
        "annotations": [{"image_id": 1, "bbox": [1, 1, 9, 9], "tokens_positive": [[0, 3]]}],
    }
    write_image(tmp_path / "a.png")
    (tmp_path / "x.json").write_text(json.dumps(content))
    captions, says = (MdetrGrounding(tmp_path / "x.json", tmp_path, refers=refers) for refers in (None, True))
    for referring, kind in ((False, PhraseSet), (True, ReferringSet)):
        sources = [captions, says, SceneGrounding("val", 2), SceneReferring("val", 2)]
        sets = region_sets(sources, tokenizer, 64, (32, 64), referring=referring)
        assert [type(each) for each in sets] == [kind, ReferringSet, PhraseSet, ReferringSet]
    with pytest.raises(UserError, match="--chunk is for detection"):
        region_sets([captions], tokenizer, 64, (32, 64), referring=False, chunk=3)


def test_copies_of_few_shots_are_evaluated_once(tokenizer, tmp_path):
    path = coco(tmp_path, [box(7, 9, [1, 1, 9, 9]), box(5, 3, [1, 1, 9, 9])])
    evalset = DetectionSet(CocoDetection(path, tmp_path, shots=1), tokenizer, 64, short=32)
    assert len(evalset.source) == 16 and sorted(evalset.image_ids) == [5, 7] and len(evalset) == 2


def test_prompts_belong_to_their_source(tokenizer, tmp_path):
    path = coco(tmp_path, [box(7, 9, [1, 1, 9, 9])])
    sources = CocoDetection(path, tmp_path), CocoDetection(path, tmp_path, prompts={"cat": {"name": "big dog"}})
    reader = RegionReader(tokenizer, 64, RegionTransform((32,), 1000, 0), prompt="all")
    read = [tokenizer.decode(reader(source, 0, np.random.default_rng(0))["ids"]) for source in sources]
    assert ["big dog" in text for text in read] == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "lists no image"),
        ({"images": [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]}, "the id 7 comes twice"),
        ({"images": [{"id": "7", "file_name": "a.png"}]}, "the id '7' is no whole number"),
        ({"images": [{"id": 7}]}, r"images\[0\]"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]"),
        ({"categories": [{"id": 1, "name": 7}]}, r"categories\[0\]"),
    ],
)
def test_malformed_files_are_told(tmp_path, change, message):
    path = coco(tmp_path, [])
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        CocoDetection(path, tmp_path)


@pytest.mark.parametrize("prompts", [{"cat": None}, {"cat": "dog"}, {"cat": {"name": 7}}])
def test_malformed_prompts_are_told(prompts):
    with pytest.raises(UserError, match="prompt of 'cat': give texts"):
        shown_names(["cat"], prompts)


def test_a_line_of_pixels_does_not_grow_without_bound():
    pixels, _, _ = RegionTransform((800,), 1333, 0)(Image.new("RGB", (5000, 1)), np.empty((0, 4)))
    assert pixels.shape == (3, 1, 1333)


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
