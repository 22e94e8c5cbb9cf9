"""The evaluation set of referring expressions: by which words a box is scored."""

import json

import numpy as np
import pytest
from region_files import mdetr_file, write_image

from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.data.sources.scenes import SceneGrounding, SceneReferring
from fiber_cli.tasks.regions.referring_set import ReferringSet

TRUTH = [1, 2, 10, 6]
WRONG = [20, 20, 30, 28]


def named_words(evalset, tokenizer):
    """Of every label of every text, the words whose tokens score it."""
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=len(evalset), workers=0)))
    words = []
    for prompt, row in zip(batch["label_prompt"].tolist(), batch["positive_map"], strict=True):
        words.append(tokenizer.decode(batch["ids"][prompt][row]).strip())
    return words


def mdetr_source(tmp_path, *expressions):
    """(caption, tokens_positive) as the RefCOCO files have them, one box each."""
    write_image(tmp_path / "images" / "a.png")
    images, annotations = [], []
    for number, (caption, spans) in enumerate(expressions):
        image = {"id": number, "file_name": "a.png", "width": 40, "height": 30, "caption": caption}
        images.append(image | {"dataset_name": "refcoco"})
        annotations.append({"image_id": number, "bbox": [1, 2, 10, 5], "tokens_positive": spans, "category_id": 1})
    file = tmp_path / "finetune_refcoco_val.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return MdetrSource(file, tmp_path / "images")


def test_a_box_is_scored_by_tokens_positive_and_beside_it_by_the_whole_expression(tmp_path, tokenizer):
    """The root noun alone, wherever it stands, or several spans, as the annotation has it."""
    source = mdetr_source(
        tmp_path,
        ("bowl behind the others can only see part", [[36, 40]]),
        ("the red star", [[8, 12]]),
        (" star and blue moon  ", [[1, 5], [15, 19]]),
    )
    evalset = ReferringSet(source, tokenizer, 40, short=64)
    assert named_words(evalset, tokenizer) == [
        "part",
        "bowl behind the others can only see part",
        "star",
        "the red star",
        "star moon",
        "star and blue moon",
    ]


def test_a_record_of_another_format_is_scored_by_its_phrase(tmp_path, tokenizer):
    write_image(tmp_path / "a.png")
    regions = [{"phrase": "dog", "bbox": TRUTH, "tokens_positive": [[8, 11]]}]
    record = {"filename": "a.png", "height": 30, "width": 40}
    record["grounding"] = {"caption": "a small dog", "regions": regions}
    (tmp_path / "refs.jsonl").write_text(json.dumps(record) + "\n")
    evalset = ReferringSet(OdvgSource(tmp_path / "refs.jsonl", tmp_path), tokenizer, 40, short=64)
    assert named_words(evalset, tokenizer) == ["dog", "a small dog"]


def test_expressions_without_tokens_positive_are_counted_and_scored_whole(tmp_path, tokenizer):
    source = mdetr_source(tmp_path, ("the red star", []), ("the moon", [[4, 8]]))
    evalset = ReferringSet(source, tokenizer, 40, short=64)
    assert named_words(evalset, tokenizer) == ["the red star", "the red star", "moon", "the moon"]
    told = "\n".join(evalset.score({}).notes)
    assert "1 of 2 expressions have no tokens_positive" in told
    every_one = ReferringSet(mdetr_source(tmp_path, ("the moon", [[4, 8]])), tokenizer, 40, short=64)
    assert "no tokens_positive" not in "\n".join(every_one.score({}).notes)


def test_both_protocols_stand_in_the_results_and_the_bare_name_is_the_published(tmp_path, tokenizer):
    source = mdetr_source(tmp_path, ("the red star", [[8, 12]]), ("the moon", [[4, 8]]))
    evalset = ReferringSet(source, tokenizer, 40, short=64)
    right_by_noun = np.array([[*TRUTH, 0.3, 0], [*WRONG, 0.9, 1], [*TRUTH, 0.2, 1]])
    right_by_both = np.array([[*TRUTH, 0.8, 0], [*TRUTH, 0.5, 1]])
    score = evalset.score({0: right_by_noun, 1: right_by_both})
    for name in ("acc@iou50", "acc@giou50"):
        assert score.metrics[f"refexp/{name}"] == 100
        assert score.metrics[f"refexp/whole_expression/{name}"] == 50
    assert score.metrics["refexp/whole_expression/r@5@giou50"] == 100
    assert [answer["scores"] for answer in score.files["expressions.json"]] == [[0.3], [0.8]]
    assert "tokens_positive" in score.notes[0]


def test_scenes_and_what_could_not_be_read(tokenizer):
    source = SceneReferring("val", 5)
    evalset = ReferringSet(source, tokenizer, 64, short=64)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=5, workers=0)))
    assert batch["labels_apart"]
    assert batch["labels"].tolist() == [0, 1] * 5
    predictions = {}
    for n in range(4):
        [box] = source.regions(n).boxes - [0, 0, 1, 1]
        predictions[n] = np.array([[*box, 0.9, label] for label in (0, 1)])
    score = evalset.score(predictions)
    assert score.metrics["refexp/acc@iou50"] == score.metrics["refexp/acc@giou50"] == 80
    assert score.metrics["refexp/whole_expression/acc@iou50"] == pytest.approx(80)
    assert len(score.files["expressions.json"]) == 5
    assert ReferringSet(SceneGrounding("val", 3), tokenizer, 64).left_out[0][1].startswith("an expression has one box")


def test_a_file_without_annotations_cannot_be_predicted(tokenizer, tmp_path):
    path = mdetr_file(tmp_path, [], dataset_name="refcoco")
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    evalset = ReferringSet(MdetrSource(path, tmp_path / "images"), tokenizer, 64, short=64)
    evalset.check()
    score = evalset.score({})
    assert score.metrics == {}
    assert [answer["id"] for answer in score.files["expressions.json"]] == ["12"]
    assert evalset.remarks() == ["mixed has no annotations: predicted only"]


def test_images_of_another_protocol_are_named(tokenizer, tmp_path):
    path = mdetr_file(tmp_path, [[[0, 5]]], dataset_name="refcoco")
    content = json.loads(path.read_text())
    image = content["images"][0]
    content["images"] += [image | {"id": 13}, image | {"id": 14, "dataset_name": None}]
    path.write_text(json.dumps(content))
    evalset = ReferringSet(MdetrSource(path, tmp_path / "images"), tokenizer, 64)
    assert evalset.remarks() == [
        "dataset_name of 1 of 3 images of mixed says otherwise: all are scored as referring expressions"
    ]


def test_a_box_that_is_none_is_not_scored_and_counted(tmp_path, tokenizer):
    """Inverted, outside, beside a good one, and good."""
    write_image(tmp_path / "a.png")
    boxes = [[[11, 6, 1, 2]], [[50, 2, 60, 6]], [[9, 9, 3, 3], [*TRUTH]], [[*TRUTH]], [[-4, 2, 10, 6]]]
    records = []
    for of_record in boxes:
        regions = [{"phrase": words, "bbox": box} for words, box in zip(("small", "dog"), of_record, strict=False)]
        grounding = {"caption": "a small dog", "regions": regions}
        records.append({"filename": "a.png", "height": 30, "width": 40, "grounding": grounding})
    (tmp_path / "refs.jsonl").write_text("\n".join(map(json.dumps, records)))
    evalset = ReferringSet(OdvgSource(tmp_path / "refs.jsonl", tmp_path), tokenizer, 40, short=64)
    assert evalset.chosen == [2, 3, 4]
    assert [reason for _, reason in evalset.left_out] == ["an expression has one box, this has 0"] * 2
    assert evalset.remarks() == ["3 boxes of refs without an area inside their image are not scored"]
    found = [phrases[0].boxes.tolist() for _, phrases in evalset.texts]
    assert found == [[TRUTH], [TRUTH], [[-4, 2, 10, 6]]]
    assert named_words(evalset, tokenizer)[::2] == ["dog", "small", "small"]
