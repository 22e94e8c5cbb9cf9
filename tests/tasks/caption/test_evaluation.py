"""Caption sets: who is scored with whom, and what is submitted."""

import pytest
import torch
from PIL import Image

from fiber_cli.data.source import BadSample, CaptionSource
from fiber_cli.data.text import encode, load_tokenizer
from fiber_cli.tasks.caption.evaluation import CaptionSet
from fiber_cli.tasks.caption.metrics import PLAIN_TOKENS


class Captions(CaptionSource):
    """Grey images with captions, numbered from 40."""

    name = "captions"

    def __init__(self, captions, domains=()):
        self._captions, self._domains = captions, domains

    def total(self):
        return len(self._captions)

    def key(self, i):
        return f"{i}.png"

    def image(self, i, at_least=0):
        return Image.new("RGB", (20, 30))

    def captions(self, i):
        if self._captions[i] is None:
            raise BadSample("damaged")
        return self._captions[i]

    def image_id(self, i):
        return 40 + i

    def domain(self, i):
        return self._domains[i] if self._domains else None


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("builtin")


@pytest.fixture(autouse=True)
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def rows_of(tokenizer, texts):
    """Predictions as the task gives them: without the special tokens, padded."""
    ids, _, _ = encode(tokenizer, texts, 30)
    hidden = torch.isin(ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))
    return dict(enumerate(ids.masked_fill(hidden, tokenizer.pad_token_id).numpy()))


def test_domains_are_scored_together_and_alone(tokenizer):
    captions = [("a red dog", "one dog"), ("two big cats",), ("a house at sea",)]
    evalset = CaptionSet([Captions(captions, ["in-domain", "out-domain", "in-domain"])], tokenizer, 32)
    assert len(evalset) == 3
    assert evalset.read(0)["pixels"].shape == (3, 32, 32)
    rows = rows_of(tokenizer, ["a red dog", "a boat", "a house at sea"])
    score = evalset.score(rows)
    assert score.files["captions.json"] == [
        {"image_id": 40, "caption": "a red dog"},
        {"image_id": 41, "caption": "a boat"},
        {"image_id": 42, "caption": "a house at sea"},
    ]
    rouge = {name: value for name, value in score.metrics.items() if "rouge_l" in name}
    expected = {"caption/": 200 / 3, "caption/in-domain/": 100, "caption/out-domain/": 0}
    assert rouge == pytest.approx({f"{prefix}rouge_l{PLAIN_TOKENS}": value for prefix, value in expected.items()})
    assert len(score.notes) == 1, "what is said of every group is said once"


def test_an_image_that_could_not_be_read_is_in_nothing(tokenizer):
    evalset = CaptionSet([Captions([("a red dog",), ("two big cats",), ("a house",)])], tokenizer, 32)
    rows = rows_of(tokenizer, ["a red dog", "a boat", "a house"])
    score = evalset.score({0: rows[0], 2: rows[2]})
    assert [entry["image_id"] for entry in score.files["captions.json"]] == [40, 42]
    assert score.metrics[f"caption/rouge_l{PLAIN_TOKENS}"] == 100


@pytest.mark.parametrize("captions", [(), None])
def test_images_without_references_are_submitted_and_not_scored(tokenizer, captions):
    evalset = CaptionSet([Captions([captions] * 3)], tokenizer, 32)
    score = evalset.score(rows_of(tokenizer, ["a", "b", "c"]))
    assert score.metrics == {}
    assert len(score.files["captions.json"]) == 3
    assert len(score.notes) == 1
    assert "3 of 3 images have no reference" in score.notes[0]


def test_a_domain_of_one_image_has_its_cider_of_0_explained(tokenizer):
    captions = [("a red dog",), ("two big cats",), ("a house at sea",)]
    evalset = CaptionSet([Captions(captions, ["near-domain", "out-domain", "near-domain"])], tokenizer, 32)
    score = evalset.score(rows_of(tokenizer, ["a red dog", "two big cats", "a house at sea"]))
    assert score.metrics[f"caption/out-domain/cider{PLAIN_TOKENS}"] == 0
    assert score.metrics[f"caption/cider{PLAIN_TOKENS}"] > 0
    told = [note for note in score.notes if "CIDEr is 0" in note]
    assert [note.startswith("caption/out-domain/") for note in told] == [True]
