"""What a user may ask for in words."""

import dataclasses

import pytest
from small_detector import MOST, assert_same

from fiber_cli.errors import UserError
from fiber_cli.inference.queries import label_query, phrase_query, read_queries


def test_a_thousand_labels_take_many_prompts_none_of_which_is_cut(detector, readable):
    labels = [f"thing number {number}" for number in range(1000)]
    query = label_query(detector.context, labels)
    assert query.names == labels
    assert len(query.prompts) > 100
    assert not any(prompt.truncated for prompt in query.prompts)
    assert all(prompt.positive_map.any(1).all() for prompt in query.prompts)
    detections = detector.find(readable[1], query, threshold=0)
    assert len(detections) == MOST
    assert all(one.label == f"thing number {one.index}" for one in detections)
    assert len({one.index for one in detections}) > 10


def test_a_typed_prompt_is_its_labels(detector):
    assert label_query(detector.context, "red circle . Star . traffic_light_(big) . dog.").names == [
        "red circle",
        "Star",
        "traffic_light_(big)",
        "dog",
    ]
    assert len(label_query(detector.context, ["a", "b", "c"], chunk=2).prompts) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "the prompt is empty"),
        ("cat . . dog", "label 2 is ''"),
        ("cat . Cat", "label 2, 'Cat', is label 1 again"),
        ([], "no labels"),
        (["cat", " "], "label 2 is ' '"),
        (["cat", "dog", "Cat "], "label 3, 'Cat ', is label 1 again"),
        (["cat", None], r"labels\[1\]=None"),
        (["very " * 1000 + "long"], "tokens alone"),
        (["very " * 1000 + "long"] * 2, "is label 1 again"),
    ],
)
def test_labels_that_cannot_be_asked_are_told_and_in_few_words(detector, readable, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        detector.detect(readable[0], labels)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("chunk", [0, "all"])
def test_a_prompt_of_no_labels_is_told(detector, readable, chunk):
    with pytest.raises(UserError, match="chunk"):
        detector.detect(readable[0], "cat", chunk=chunk)


def test_phrases_that_are_not_in_the_sentence_are_told(detector, readable):
    with pytest.raises(UserError, match="phrase 'a cat' is not in"):
        detector.ground(readable[0], "a dog", ["a cat"])
    with pytest.raises(UserError, match="no phrase to look for"):
        detector.ground(readable[0], "a dog", [])
    with pytest.raises(UserError, match="longer than the model's 40 tokens"):
        detector.ground(readable[0], "a dog and " * 30 + "a cat", ["a cat"])


def test_phrases_in_one_text_are_separated_by_semicolons(detector):
    query = phrase_query(detector.context, "a Dog sees a dog", " dog;; dog ; ")
    assert query.names == ["dog", "dog"]
    (prompt,) = query.prompts
    first, second = prompt.positive_map
    assert first.any()
    assert second.any()
    assert not (first & second).any()


@pytest.mark.usefixtures("english_tagger")
def test_noun_phrases_are_found(detector):
    query = phrase_query(detector.context, "a red circle beside two stars")
    assert query.names == ["a red circle", "two stars"]


@pytest.mark.parametrize(
    "labels",
    [
        ["apple (red)", "apple (green)"],
        ["traffic_light", "traffic light"],
        ["(all)", "[all]"],
        ["bow (weapon)", "bow (knot)", "bow"],
        ["st. bernard", "U.S. flag"],
        ["red, round ball", "cat; dog"],
    ],
)
@pytest.mark.parametrize("as_published", [False, True])
def test_labels_are_asked_as_they_were_typed(detector, labels, as_published):
    """Also of a checkpoint whose training cleaned the names of its data sets as published."""
    texts = []
    settings = dataclasses.replace(detector.context.settings, names_as_published=as_published)
    context = dataclasses.replace(detector.context, settings=settings)
    query = label_query(context, labels)
    for prompt in query.prompts:
        texts.append(context.tokenizer.decode(prompt.ids[prompt.mask], skip_special_tokens=True))
    assert ". ".join(texts) == ". ".join(labels)
    assert query.names == labels


@pytest.mark.parametrize(
    "phrases", ["a dog; two red circles", ["a dog", "two red circles"], " a dog ;two red circles; "]
)
def test_phrases_without_a_sentence_are_found(detector, readable, phrases):
    expected = detector.detect(readable[0], ["a dog", "two red circles"], threshold=0)
    assert_same(detector.ground(readable[0], None, phrases, threshold=0), expected)
    assert_same(detector.ground(readable[0], phrases=phrases, threshold=0), expected)


def test_neither_sentence_nor_phrases_is_told(detector, readable):
    with pytest.raises(UserError, match="neither a sentence nor phrases"):
        detector.ground(readable[0])
    with pytest.raises(UserError, match="no labels"):
        detector.ground(readable[0], None, " ; ")


def test_queries_are_lines(tmp_path):
    file = tmp_path / "queries.txt"
    file.write_text("a dog\n\n  \n ein Hund läuft \n", encoding="utf-8")
    assert read_queries(file) == (["a dog", "ein Hund läuft"], 2)
    file.write_text("\n\n")
    with pytest.raises(UserError, match="no query"):
        read_queries(file)
    file.write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match="UTF-8"):
        read_queries(file)
    with pytest.raises(UserError, match="No such file"):
        read_queries(tmp_path / "none")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path, encoding):
    file = tmp_path / "labels.txt"
    file.write_bytes("red circle\r\nblaues Quadrat\r\n".encode(encoding))
    assert read_queries(file) == (["red circle", "blaues Quadrat"], 0)


@pytest.mark.parametrize("phrases", [[""], ["a man", " "], " ; "])
@pytest.mark.parametrize("sentence", ["a man and a dog", None])
def test_empty_phrases_are_told(detector, sentence, phrases):
    with pytest.raises(UserError):
        detector.phrase_query(sentence, phrases)


def test_an_empty_sentence_is_told(detector):
    with pytest.raises(UserError, match="the sentence is empty"):
        detector.phrase_query(" \t")
