"""The evaluation set of phrase grounding."""

import numpy as np
import pytest

from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSource
from fiber_cli.data.sources.scenes import SceneGrounding
from fiber_cli.tasks.regions.phrase_set import PhraseSet


def test_phrase_set(tokenizer):
    source = SceneGrounding("val", 6)
    evalset = PhraseSet(source, tokenizer, 64, short=64)
    batch = next(iter(evalset.loader(rank=0, world=1, batch_size=6, workers=0)))
    assert batch["pairs"].tolist() == [[b, b] for b in range(6)]
    assert len(batch["ids"]) == 6
    predictions = {}
    for n in range(6):
        text, phrases = source.phrases(n)
        mine = batch["label_prompt"] == n
        assert batch["labels"][mine].tolist() == list(range(len(phrases)))
        for phrase, row in zip(phrases, batch["positive_map"][mine], strict=True):
            assert tokenizer.decode(batch["ids"][n][row]).strip() == text[slice(*phrase.span)]
        predictions[n] = np.array([[*phrase.boxes[-1], 0.5, label] for label, phrase in enumerate(phrases)])
    metrics = evalset.score(predictions).metrics
    assert metrics["grounding/any_box/r@1"] == 100 > metrics["grounding/merged_box/r@1"]
    wrong = {n: rows * [1, 1, 1, 1, 1, 0] + [0, 0, 0, 0, 0, 99] for n, rows in predictions.items()}
    assert evalset.score(wrong).metrics["grounding/any_box/upper_bound"] == 0


@pytest.fixture
def flickr(cases, tmp_path):
    case = cases["flickr_recall"]
    for folder, files, ending in (("Annotations", "annotations_xml", "xml"), ("Sentences", "sentences", "txt")):
        (tmp_path / folder).mkdir()
        for name, content in case[files].items():
            (tmp_path / folder / f"{name}.{ending}").write_text(content)
    (tmp_path / "test.txt").write_text("111\n222\n")
    (tmp_path / "111.jpg").write_bytes(b"")
    return FlickrEntitiesSource(tmp_path, tmp_path, "test")


def test_phrase_recall_of_the_stored_case(cases, flickr, tokenizer):
    case = cases["flickr_recall"]
    evalset = PhraseSet(flickr, tokenizer, 64)
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
