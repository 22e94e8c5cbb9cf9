"""The community's metrics of captions: by hand, on its own tokens, and without Java."""

import math
import shutil

import pytest

from fiber_cli.tasks.caption import metrics
from fiber_cli.tasks.caption.metrics import PLAIN_TOKENS

java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
BLEU = ["bleu1", "bleu2", "bleu3", "bleu4"]


@java
def test_tokens_are_those_of_pycocoevalcap():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [
        "A man, riding a horse.",
        "Don't stop (now)!",
        "3 1/2 dogs - and a Café",
        "x;y: \"quoted\" 'text' ...",
        "a",
    ]
    expected = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    assert metrics.ptb_tokens(texts) == [expected[i][0] for i in range(len(texts))]
    awkward = ["", "a\nb\r\nc\u2028d\x85e\x0bf", "...", "a|||b", ""]
    assert metrics.ptb_tokens(awkward) == ["", "a b c d e f", "", "a b", ""]


@java
def test_metrics_by_hand(monkeypatch):
    monkeypatch.setattr("pycocoevalcap.spice.spice.get_stanford_models", lambda: pytest.fail("would download"))
    monkeypatch.setattr(metrics, "SPICE_FILES", ("absent.jar",))
    hypotheses = ["A man rides, a\nhorse.", "two red birds sing", ""]
    references = [["a man rides a horse"], ["two red birds fly"], ["nothing here"]]
    values, notes = metrics.caption_metrics(hypotheses, references)
    assert sorted(values) == [f"caption/{name}" for name in [*BLEU, "cider", "meteor", "rouge_l"]]
    assert len(notes) == 1
    assert notes[0].startswith("SPICE is left out: its CoreNLP models")
    assert "get_stanford_models" in notes[0]
    # 9 words for 11: 8 of them, and 6 of 7 pairs of words, are the references'.
    brevity = math.exp(1 - 11 / 9)
    assert values["caption/bleu1"] == pytest.approx(100 * brevity * 8 / 9, abs=1e-6)
    assert values["caption/bleu2"] == pytest.approx(100 * brevity * math.sqrt(8 / 9 * 6 / 7), abs=1e-6)
    assert values["caption/rouge_l"] == pytest.approx(100 * (1 + 3 / 4 + 0) / 3)
    # Every word is of one image, so weights are counts; the second caption shares 3 of 4, 2 of 3, 1 of 2, 0 of 1.
    assert values["caption/cider"] == pytest.approx(100 * 10 * (1 + (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4 + 0) / 3)
    assert 0 < values["caption/meteor"] < 100


@java
def test_groups_score_as_alone_and_start_meteor_once(monkeypatch):
    starts = []

    class Counted(metrics.Meteor):
        def __init__(self):
            starts.append(self)
            super().__init__()

    monkeypatch.setattr(metrics, "SPICE_FILES", ("absent.jar",))
    birds = metrics.Captions(["two red birds sing", "a bird"], [["two red birds fly", "birds"], ["one bird", "a dog"]])
    horse = metrics.Captions(["A man rides, a horse."], [["a man on a horse"]])
    both = metrics.Captions([*birds.hypotheses, *horse.hypotheses], [*birds.references, *horse.references])
    alone = [metrics.caption_metrics(*group) for group in (both, birds, horse)]
    monkeypatch.setattr(metrics, "Meteor", Counted)
    assert metrics.grouped_caption_metrics([both, birds, horse]) == alone
    assert len(starts) == 1
    assert len({values["caption/meteor"] for values, _ in alone}) == 3
    assert metrics.grouped_caption_metrics([]) == []
    assert len(starts) == 1


def test_groups_without_java_are_mixed_up(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    right = metrics.Captions(["a red cat", "two dogs"], [["a red cat"], ["two dogs"]])
    wrong = metrics.Captions(["birds"], [["a red cat"]])
    (of_right, _), (of_wrong, notes) = metrics.grouped_caption_metrics([right, wrong])
    assert of_right[f"caption/rouge_l{PLAIN_TOKENS}"] == pytest.approx(100)
    assert of_wrong[f"caption/rouge_l{PLAIN_TOKENS}"] == 0
    assert "Java" in notes[0]


def test_without_java_the_names_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    values, notes = metrics.caption_metrics(["A man rides, a horse", "x"], [["a man rides a horse."], ["y"]])
    assert sorted(values) == [f"caption/{name}{PLAIN_TOKENS}" for name in [*BLEU, "cider", "rouge_l"]]
    assert values[f"caption/rouge_l{PLAIN_TOKENS}"] == pytest.approx(50)
    assert len(notes) == 1
    assert all(word in notes[0] for word in ("METEOR", "SPICE", "Java"))


@pytest.mark.parametrize(
    ("hypotheses", "references", "reason"),
    [
        (["a cat on a mat"], [["a cat on a mat"]], "one image alone"),
        (["a cat", "a cat"], [["a cat"], ["a cat", "one cat"]], "all 2 have the words"),
        (["cats", "dogs"], [["two cats"], ["two dogs"]], None),
        (["x"], [["a cat"]], None),
    ],
)
def test_a_cider_that_too_few_images_make_0_is_explained(monkeypatch, tmp_path, hypotheses, references, reason):
    """And one that the captions make 0, or that is not, is not."""
    monkeypatch.setenv("PATH", str(tmp_path))
    values, notes = metrics.caption_metrics(hypotheses, references)
    told = [note for note in notes if note.startswith("CIDEr is 0")]
    if reason is None:
        assert told == []
    else:
        assert values[f"caption/cider{PLAIN_TOKENS}"] == 0
        assert [reason in note for note in told] == [True]
