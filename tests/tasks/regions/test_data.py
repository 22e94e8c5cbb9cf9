"""Training samples and batches of images with boxes."""

import numpy as np
import pytest
import torch
from region_files import coco_box, coco_file
from scene_reading import attributes

from fiber_cli.data.records import NamedBoxes
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.scenes import SceneDetection, SceneGrounding, SceneReferring
from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.data import RegionReader, collate_regions
from fiber_cli.tasks.regions.transforms import RegionTransform, swap_sides


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


def test_an_object_is_a_box_for_each_of_its_names(tokenizer):
    """It is one box, whose tokens are those of all its names in the prompt."""
    source = SceneDetection("train", 20, names="all_levels")
    for i in range(20):
        sample = read_with(tokenizer, source, i, seed=i, short=(96,), absent=(0.5, 1), length=104)
        boxes = sample["boxes"].tolist()
        assert len(set(map(tuple, boxes))) == len(boxes) <= len(source[i].objects)
        prompt = tokenizer.decode(sample["ids"][sample["mask"]], skip_special_tokens=True).split(". ")
        for box, row in zip(boxes, sample["positive_map"], strict=True):
            (thing,) = [each for each in source[i].objects if np.allclose(each.box[:2], box[:2], atol=1e-3)]
            named = {name for name in prompt if attributes(name).items() <= thing.attributes.items()}
            decoded = tokenizer.decode(sample["ids"][row])
            assert sorted(decoded.split()) == sorted(" ".join(named).split())


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
    path = coco_file(tmp_path, [coco_box(7, 3, [1, 1, 9, 9])], [{"id": 3, "name": "left glove"}])
    sample = read_with(tokenizer, CocoSource(path, tmp_path), 0, short=(30,), flip=1.0)
    assert sample["boxes"].tolist() == [[1, 1, 9, 9]]


def test_all_names_must_fit(tokenizer):
    with pytest.raises(UserError, match='choose prompt "sampled"'):
        read_with(tokenizer, SceneDetection("train", 1), 0, prompt="all")


def test_overrides_keep_the_order(tokenizer, tmp_path):
    path, prompts = coco_file(tmp_path, [coco_box(7, 9, [1, 1, 9, 9])]), {"cat": {"prefix": "small ", "name": "ring"}}
    named = CocoSource(path, tmp_path, prompts=prompts)
    samples = [read_with(tokenizer, named, 0, seed, prompt="all") for seed in range(6)]
    assert {tokenizer.decode(s["ids"][s["mask"]], skip_special_tokens=True) for s in samples} == {
        "small ring. traffic light"
    }
    source = CocoSource(path, tmp_path)
    shuffled = [read_with(tokenizer, source, 0, seed, prompt="all") for seed in range(6)]
    assert len({tuple(s["ids"].tolist()) for s in shuffled}) == 2


def test_sources_of_one_name_keep_their_own_names(tokenizer, tmp_path):
    reader = RegionReader(tokenizer, 64, RegionTransform((32,), 1000, 0), control=(0, 1, 0))
    for name in ("cat", "star"):
        path = coco_file(tmp_path / name, [coco_box(7, 3, [1, 1, 9, 9])], [{"id": 3, "name": name}])
        assert words(tokenizer, reader(CocoSource(path, path.parent), 0, np.random.default_rng(0))) == [name]


def test_prompts_belong_to_their_source(tokenizer, tmp_path):
    path = coco_file(tmp_path, [coco_box(7, 9, [1, 1, 9, 9])])
    sources = CocoSource(path, tmp_path), CocoSource(path, tmp_path, prompts={"cat": {"name": "big dog"}})
    reader = RegionReader(tokenizer, 64, RegionTransform((32,), 1000, 0), prompt="all")
    read = [tokenizer.decode(reader(source, 0, np.random.default_rng(0))["ids"]) for source in sources]
    assert ["big dog" in text for text in read] == [False, True]


def test_boxes_for_another_picture_are_bad_samples(tokenizer, tmp_path):
    source = CocoSource(coco_file(tmp_path, [], width=400), tmp_path)
    with pytest.raises(BadSample, match="400 x 30 pixels, the upright picture has 40 x 30"):
        read_with(tokenizer, source, 0)


def test_batches(cases, tokenizer, tmp_path):
    source = CocoSource(coco_file(tmp_path, [coco_box(7, 9, [1, 1, 9, 9]), coco_box(7, 3, [1, 1, 9, 9])]), tmp_path)
    samples = [read_with(tokenizer, source, i, i, short=(30 + 10 * i,)) | {"bad": []} for i in (0, 1, 0)]
    batch = collate_regions(samples)
    assert batch["pixels"].shape == (3, 3, 64, 64)
    assert batch["sizes"].tolist() == [[30, 40], [40, 53], [30, 40]]
    assert batch["boxes"].shape == (4, 4)
    assert batch["box_counts"] == [2, 0, 2]
    assert batch["positive_map"].shape == (4, 8)  # as wide as the longest prompt
    assert batch["ids"].shape == (3, 8)
    assert batch["positive_map"].dtype == torch.bool
    assert batch["boxes"].dtype == torch.float32
    assert batch["sample_ids"][0] == "instances/a.png"
    assert batch["bad"] == []
    assert batch["truncated"] == 0
    rows = batch["positive_map"].split(batch["box_counts"])
    assert torch.equal(rows[2], samples[2]["positive_map"][:, :8])


@pytest.mark.parametrize("kind", [SceneDetection, SceneGrounding, SceneReferring])
def test_scenes(kind, tokenizer):
    source = kind("val", 12)
    for i in range(12):
        regions = source.regions(i)
        truth = {tuple(np.float32(thing.box)) for thing in source[i].objects}
        assert {tuple(each) for each in regions.boxes} <= truth
        assert len(regions.boxes)
        if not isinstance(regions, NamedBoxes):
            assert read_with(tokenizer, source, i)["positive_map"].any(1).all() or kind is SceneGrounding
            for spans, (x, *_) in zip(regions.spans, regions.boxes, strict=True):
                thing = next(each for each in source[i].objects if np.float32(each.box[0]) == x)
                named = [regions.caption[a:b] for a, b in spans]
                assert kind is SceneReferring or any(thing.colour[:3] in text or "violet" in text for text in named)
