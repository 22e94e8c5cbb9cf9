"""Phrases of sentences: the ones given and the ones that nltk's tagger finds."""

import pytest

from fiber_cli.data.phrases import chunk_nouns, english_tagger, locate_phrases, noun_phrases
from fiber_cli.errors import UserError


@pytest.mark.usefixtures("english_tagger")
def test_noun_phrases():
    sentence = "A man in a blue shirt is riding two large brown horses near the well-known beach."
    found = noun_phrases(sentence)
    assert [phrase for phrase, _ in found] == [
        "A man", "a blue shirt", "two large brown horses", "the well-known beach",
    ]  # fmt: skip
    assert all(sentence[a:b] == phrase for phrase, (a, b) in found)
    assert [phrase for phrase, _ in noun_phrases("his little sister's umbrella")] == ["his little sister", "umbrella"]
    assert noun_phrases("") == noun_phrases("running quickly") == []


#: Sentences tagged by hand or, where the comment says so, as nltk's tagger does it wrongly; and their noun phrases.
TAGGED = [
    ("the/DT small/JJ red/JJ circle/NN left/NN of/IN the/DT square/NN", ["the small red circle", "the square"]),
    ("the/DT blue/JJ star/NN right/NN of/IN a/DT moon/NN", ["the blue star", "a moon"]),
    ("the/DT person/NN left/VBN of/IN two/CD dogs/NNS", ["the person", "two dogs"]),
    ("the/DT man/NN to/TO the/DT left/NN of/IN the/DT car/NN", ["the man", "the car"]),
    ("the/DT woman/NN on/IN the/DT right/NN", ["the woman"]),
    ("a/DT ring/NN north/NN of/IN it/PRP", ["a ring"]),
    ("a/DT cat/NN in/IN front/NN of/IN the/DT sofa/NN", ["a cat", "the sofa"]),
    ("a/DT bird/NN on/IN top/NN of/IN a/DT car/NN", ["a bird", "a car"]),
    ("the/DT moon/NN upper/JJ left/NN of/IN a/DT star/NN", ["the moon", "a star"]),
    ("the/DT shape/NN furthest/JJS left/NN", ["the shape"]),
    # a noun taken for an adjective, a preposition for a noun
    ("the/DT square/JJ beneath/NN the/DT star/NN", ["the square", "the star"]),
    ("the/DT animal/JJ closest/NN to/TO the/DT camera/NN", ["the animal", "the camera"]),
    ("the/DT green/JJ ring/VBG right/NN of/IN a/DT heart/NN", ["the green ring", "a heart"]),
    ("the/DT ball/NN inside/NN the/DT box/NN", ["the ball", "the box"]),
    # a verb taken for a plural
    ("a/DT boy/NN jumps/NNS over/IN a/DT puddle/NN", ["a boy", "a puddle"]),
    # where these words belong to a phrase
    ("a/DT man/NN holding/VBG a/DT left/NN shoe/NN", ["a man", "a left shoe"]),
    ("the/DT circle/NN on/IN the/DT left/JJ side/NN of/IN it/PRP", ["the circle", "the left side"]),
    ("the/DT top/JJ right/JJ corner/NN", ["the top right corner"]),
    ("a/DT woman/NN in/IN a/DT red/JJ top/NN", ["a woman", "a red top"]),
    ("the/DT front/NN of/IN the/DT train/NN", ["the front", "the train"]),
    ("the/DT traffic/NN lights/NNS of/IN two/CD streets/NNS", ["the traffic lights", "two streets"]),
    ("the/DT bus/NN in/IN front/NN", ["the bus"]),
    ("the/DT left/NN most/RBS zebra/NN", ["the left most zebra"]),
    # several adjectives
    ("a/DT black/JJ and/CC white/JJ dog/NN", ["a black and white dog"]),
    ("a/DT small/JJ ,/, very/RB red/JJ ball/NN", ["a small , very red ball"]),
    ("two/CD dogs/NNS and/CC three/CD cats/NNS", ["two dogs", "three cats"]),
    ("black/JJ and/CC white/JJ dogs/NNS", ["black and white dogs"]),
]


@pytest.mark.parametrize(("tagged", "expected"), TAGGED)
def test_noun_phrases_end_where_the_thing_is_named(tagged, expected):
    words, tags = [], []
    for pair in tagged.split():
        word, _, tag = pair.rpartition("/")
        words.append(word)
        tags.append(tag)
    found = [" ".join(words[first : last + 1]) for first, last in chunk_nouns(words, tags)]
    assert found == expected


@pytest.mark.usefixtures("english_tagger")
def test_where_a_thing_is_does_not_belong_to_its_phrase():
    for sentence, expected in (
        ("the small red circle left of the square", ["the small red circle", "the square"]),
        ("the square beneath the yellow triangle", ["the square", "the yellow triangle"]),
        ("the second car from the left", ["the second car"]),
    ):
        found = noun_phrases(sentence)
        assert [phrase for phrase, _ in found] == expected
        assert all(sentence[start:end] == phrase for phrase, (start, end) in found)


def test_a_missing_tagger_says_how_to_get_it(monkeypatch, tmp_path):
    import nltk

    english_tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"python -m nltk\.downloader averaged_perceptron_tagger_eng"):
        noun_phrases("a cat")
    english_tagger.cache_clear()


def test_given_phrases_are_located():
    sentence = "A dog and a dog with a dogged man"
    spans = locate_phrases(sentence, ["a dog", "man", "A DOG"])
    assert spans == [(0, 5), (30, 33), (10, 15)]
    assert locate_phrases("two  small\tdogs", ["small dogs", "two small"]) == [(5, 15), (0, 10)]
    for missing in ("cat", "", "dogge"):
        with pytest.raises(UserError, match="is not in"):
            locate_phrases(sentence, [missing])
    with pytest.raises(UserError):
        locate_phrases(sentence, ["man", "man"])
