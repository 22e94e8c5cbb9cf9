"""The built-in scenes against a reader of their pictures and texts that shares no code with the generator."""

import math
import os
import pickle
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from PIL import ImageColor

from fiber_cli.data.scenes import language as texts
from fiber_cli.data.scenes.drawing import CATEGORIES, ScenesSource, draw, scene
from fiber_cli.errors import UserError

MEANING = {
    word: (kind, value)
    for kind, words in {
        "size": "small little=small large big=large",
        "texture": "plain solid=plain striped dotted spotted=dotted",
        "colour": "red orange yellow green blue purple violet=purple pink white",
        "shape": "circle disc=circle square box=square triangle star heart cross plus=cross ring hoop=ring "
        "moon crescent=moon",
    }.items()
    for word, _, value in ((entry.partition("=")[0], 0, entry.rpartition("=")[2]) for entry in words.split())
}
NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
RELATION = "(to the left of|left of|to the right of|right of|above|over|below|under|beneath)"
SAME = {"over": "above", "under": "below", "beneath": "below"}
EXTREME = {"leftmost": "left", "rightmost": "right", "topmost": "above", "lowest": "below"}
SOME = [scene(0, "val", index) for index in range(200)]
MANY = [scene(1, "val", index) for index in range(1600)]


def attributes(words: str) -> dict[str, str]:
    """What the words say of an object; every content word must be known."""
    found = {}
    for word in words.split():
        if word in ("a", "an", "the") or re.fullmatch("(shape|object|figure)s?", word):
            continue
        (known,) = {word, word.removesuffix("s"), word.removesuffix("es")} & MEANING.keys()
        kind, value = MEANING[known]
        assert kind not in found, words
        found[kind] = value
    return found


def having(one, words: str) -> list[int]:
    wanted = attributes(words).items()
    return [i for i, thing in enumerate(one.objects) if all(getattr(thing, k) == v for k, v in wanted)]


def relation_of(words: str) -> str:
    return "left" if "left" in words else "right" if "right" in words else SAME.get(words, words)


def lies(one, relation: str, i: int, j: int) -> bool:
    (x1, y1), (x2, y2) = one.objects[i].centre, one.objects[j].centre
    return {"left": x1 < x2, "right": x1 > x2, "above": y1 < y2, "below": y1 > y2}[relation]


def the_one(one, words: str) -> int:
    (index,) = having(one, words)
    return index


# Pictures


def test_scene_is_pure_and_scales():
    scene.cache_clear()
    again = scene(0, "val", 3)
    assert again == SOME[3] and draw(again).tobytes() == draw(SOME[3]).tobytes()
    big = scene(0, "val", 3, 192)
    assert draw(big).size == (192, 192)
    for small_object, big_object in zip(SOME[3].objects, big.objects, strict=True):
        assert np.allclose(np.multiply(small_object.box, 2), big_object.box)
    assert texts.captions(big) == texts.captions(SOME[3])
    assert texts.questions(big) == texts.questions(SOME[3])


def test_splits_and_seeds_share_no_scene():
    streams = [(0, "train"), (0, "val"), (0, "test"), (1, "train")]
    layouts = [thing.box for s, split in streams for i in range(300) for thing in scene(s, split, i).objects]
    assert len(set(layouts)) == len(layouts)


def test_texts_do_not_depend_on_the_order_of_sets():
    program = (
        "import hashlib; from fiber_cli.data.scenes import language as t; from fiber_cli.data.scenes.drawing import *\n"
        "s = [scene(0, 'val', i) for i in range(12)]\n"
        "words = [f(one) for one in s for f in (t.captions, t.questions, t.statements, t.referring)]\n"
        "words += [t.pair_statements(*pair) for pair in zip(s, s[1:])] + [draw(s[0]).tobytes()]\n"
        "print(hashlib.sha256(repr(words).encode()).hexdigest())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert outputs[0] == outputs[1] != ""


def changed(one, other) -> np.ndarray:
    """Where two drawings on the same background differ."""
    return (np.asarray(draw(one), int) != np.asarray(draw(other), int)).any(-1)


def test_boxes_fit_what_is_drawn_and_nothing_is_hidden():
    for one in SOME[:60]:
        empty = replace(one, objects=())
        for i, thing in enumerate(one.objects):
            alone = changed(replace(one, objects=(thing,)), empty)
            rows, columns = np.flatnonzero(alone.any(1)), np.flatnonzero(alone.any(0))
            drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert np.abs(np.subtract(drawn, thing.box)).max() < 2
            assert 0 <= min(thing.box) and max(thing.box) <= one.image_size
            others = replace(one, objects=one.objects[:i] + one.objects[i + 1 :])
            assert changed(one, others).sum() > 0.75 * alone.sum()


def test_colours_sizes_and_textures_are_what_they_are_called():
    colours = sorted({value for kind, value in MEANING.values() if kind == "colour"})
    table = np.array([ImageColor.getrgb(name) for name in colours])
    roughness = defaultdict(list)
    for one in MANY[:60]:
        for thing in one.objects:
            area = changed(replace(one, objects=(thing,)), replace(one, objects=()))
            pixels = np.asarray(draw(replace(one, objects=(thing,))), float)[area]
            brightness = pixels.sum(1)
            fill = np.median(pixels[brightness >= np.quantile(brightness, 0.75)], 0)
            assert colours[np.abs(table - fill).sum(1).argmin()] == thing.colour
            roughness[thing.texture].append((brightness < 0.7 * fill.sum()).mean())
            side = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) / one.image_size
            assert side < 0.3 if thing.size == "small" else side > 0.3
    assert max(roughness["plain"]) < 0.45 < np.median(roughness["striped"] + roughness["dotted"])


def test_every_value_of_an_attribute_is_as_frequent():
    objects = [thing for one in MANY for thing in one.objects]
    for kind in ("size", "texture", "colour", "shape"):
        counts = Counter(getattr(thing, kind) for thing in objects)
        assert set(counts) == {value for k, value in MEANING.values() if k == kind} == set(texts.VALUES[kind])
        assert max(counts.values()) < 1.3 * min(counts.values())
    assert {len(one.objects) for one in MANY} == {2, 3, 4}


# Captions


def claims_in(caption) -> set[tuple]:
    """What a caption says of the layout, read from the words between its phrases."""
    text, found = caption.text, set()
    if tone := re.search(r", (on|against) a (\w+) background$", text):
        found.add((tone[2],))
        text = text[: tone.start()]
    phrases = [phrase for phrase in caption.phrases if len(phrase.objects) == 1]
    order = [phrase.objects[0] for phrase in phrases]
    if len(phrases) < len(caption.phrases):
        (group,) = (phrase for phrase in caption.phrases if len(phrase.objects) > 1)
        found.add(("count", NUMBERS[text[group.start : group.end].split()[0]]))
    if course := re.search("(left|right|top|bottom) to (left|right|top|bottom)", text):
        forwards = order if course[1] in ("left", "top") else order[::-1]
        relation = "left" if course[1] in ("left", "right") else "above"
        return found | {(relation, i, j) for i, j in pairwise(forwards)}
    edges = [0, *(edge for phrase in phrases for edge in (phrase.start, phrase.end)), len(text)]
    between = [text[edges[k] : edges[k + 1]] for k in range(0, len(edges), 2)]
    place = "(top|bottom|upper|lower|left|right|middle|centre)"
    names = {"upper": "top", "lower": "bottom", "centre": "middle"}
    place_first = re.search(place, between[0])
    for k, words in enumerate(between):
        if relation := re.search(RELATION, words):
            subject = order[0] if words.startswith(" and ") else order[k - 1]
            found.add((relation_of(relation[1]), subject, order[k]))
        else:
            places = re.findall(place, words)
            found |= {(names.get(word, word), order[k if place_first else k - 1]) for word in places}
    return found


def fits(caption, one) -> bool:
    """Whether what the caption says is true of a scene, generously: no margins."""
    said = [phrase for phrase in caption.phrases if len(phrase.objects) == 1]
    candidates = []
    for start, end, _ in said:
        candidates.append(having(one, caption.text[start:end]))
        if not candidates[-1]:
            return False
    names = [phrase.objects[0] for phrase in said]

    def holds(claim: tuple, where: dict[int, int]) -> bool:
        word, *rest = claim
        if word == "count":
            return len(one.objects) == rest[0]
        if word in ("dark", "light"):
            return one.tone == word
        if len(rest) == 2:
            return lies(one, word, where[rest[0]], where[rest[1]])
        x, y = (value / one.image_size for value in one.objects[where[rest[0]]].centre)
        near = abs(x - 0.5) < 0.15 and abs(y - 0.5) < 0.15
        return {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5, "middle": near}[word]

    choices = (dict(zip(names, chosen)) for chosen in product(*candidates) if len(set(chosen)) == len(chosen))
    claims = claims_in(caption)
    return any(all(holds(claim, where) for claim in claims) for where in choices)


def test_captions_name_all_objects_where_they_say():
    forms = set()
    for one in SOME:
        found = texts.captions(one)
        assert 4 <= len(found) <= 6 and len({caption.text for caption in found}) == len(found)
        for caption in found:
            named = [phrase.objects[0] for phrase in caption.phrases if len(phrase.objects) == 1]
            assert sorted(named) == list(range(len(one.objects)))
            assert all(a.end < b.start for a, b in pairwise(caption.phrases))
            for start, end, objects in caption.phrases:
                if len(objects) == 1:
                    said = attributes(caption.text[start:end])
                    assert {"colour", "shape"} <= set(said)
                    assert said.items() <= vars(one.objects[objects[0]]).items()
                    article, first = caption.text[start:end].split()[:2]
                    assert article == ("an" if first == "orange" else "a")
                else:
                    assert objects == tuple(range(len(one.objects)))
            claims, count = claims_in(caption), len(one.objects)
            if ("count", count) in claims:
                assert claims == {("count", count), (one.tone,)}
            else:  # of each object it is said where it is
                assert {number for _, *numbers in claims for number in numbers} == set(range(count)), caption
            assert fits(caption, one), caption
            forms.add(re.sub(r"\b(an?) [\w ]*?(?=,| and|:|$)", "_", caption.text))
    assert len(forms) > 60


def test_captions_tell_their_scene_from_199_others():
    captions = [caption for one in SOME for caption in texts.captions(one)]
    unique = [sum(fits(caption, other) for other in SOME) == 1 for caption in captions]
    assert np.mean(unique) >= 0.97
    print(f"{100 * np.mean(unique):.2f}% of {len(unique)} captions fit one of {len(SOME)} scenes")


def test_categories():
    for one in SOME:
        assert [box for _, box in texts.category_boxes(one)] == [thing.box for thing in one.objects]
        for (name, _), thing in zip(texts.category_boxes(one), one.objects):
            assert name in CATEGORIES and attributes(name) == {"colour": thing.colour, "shape": thing.shape}
    assert len(set(CATEGORIES)) == 64


# Questions, statements, referring expressions


def answer(one, question) -> str:
    text = question.text.removesuffix("?")
    if question.question_type in ("size", "texture", "colour", "shape"):
        named = re.search(r"the ([\w ]+?)( small or large| large or small| have)?$", text)[1]
        return getattr(one.objects[the_one(one, named)], question.question_type)
    if question.question_type in ("total", "count"):
        return str(len(having(one, re.search("how many (.*) (are there|do you see)", text)[1])))
    if question.question_type == "exists":
        return "yes" if having(one, re.search(r"\ban? .*", text)[0]) else "no"
    if question.question_type == "relation":
        first, words, second = re.fullmatch(f"is (the .*?) {RELATION} (the .*)", text).groups()
        return "yes" if lies(one, relation_of(words), the_one(one, first), the_one(one, second)) else "no"
    x, y = one.objects[the_one(one, re.search("the .*", text)[0])].centre
    middle = one.image_size / 2
    return f"{'top' if y < middle else 'bottom'} {'left' if x < middle else 'right'}"


def truth(one, text: str) -> bool:
    if match := re.fullmatch(f"(the .*?) is {RELATION} (the .*)", text):
        return lies(one, relation_of(match[2]), the_one(one, match[1]), the_one(one, match[3]))
    if match := re.fullmatch("there (?:is|are) exactly (one|two|three) (.*)", text):
        return len(having(one, match[2])) == NUMBERS[match[1]]
    if match := re.fullmatch("there are more (.*) than (.*)", text):
        return len(having(one, match[1])) > len(having(one, match[2]))
    if match := re.fullmatch("there is no (.*)", text):
        return not having(one, match[1])
    if match := re.fullmatch("(?:there is|the picture shows) (an? .*)", text):
        return bool(having(one, match[1]))
    match = re.fullmatch("(the .*) is (.*)", text)
    return the_one(one, match[1]) in having(one, match[2])


def pair_truth(left, right, text: str) -> bool:
    sides = {"left": (left, right), "right": (right, left)}
    if match := re.fullmatch(r"both (?:image|picture)s have a (\w+) background", text):
        return left.tone == right.tone == match[1]
    if match := re.fullmatch(r"only the (\w+) (?:image|picture) has a (\w+) background", text):
        this, that = sides[match[1]]
        return this.tone == match[2] != that.tone
    if match := re.fullmatch("both (?:image|picture)s contain (.*)", text):
        return bool(having(left, match[1]) and having(right, match[1]))
    if match := re.fullmatch("only one of the two (?:image|picture)s shows (.*)", text):
        return bool(having(left, match[1])) != bool(having(right, match[1]))
    if match := re.fullmatch(r"(an? .*) is in the (\w+) (?:image|picture)", text):
        return bool(having(sides[match[2]][0], match[1]))
    if match := re.fullmatch(r"the (\w+) (?:image|picture) has more (.*) than the other one", text):
        this, that = sides[match[1]]
        return len(having(this, match[2])) > len(having(that, match[2]))
    match = re.fullmatch(r"there are exactly (\w+) (.*) in the two (?:image|picture)s", text)
    return len(having(left, match[2])) + len(having(right, match[2])) == NUMBERS[match[1]]


def guessing(samples: list[tuple[str, str]]) -> float:
    """Accuracy of naive Bayes from words and pairs of words alone, on the half not learnt from."""
    words = [text.split() + [f"{a} {b}" for a, b in pairwise(text.split())] for text, _ in samples]
    half = len(samples) // 2
    prior, seen = Counter(), defaultdict(Counter)
    for (_, label), bag in zip(samples[:half], words):
        prior[label] += 1
        seen[label].update(bag)

    def score(label: str, bag: list[str]) -> float:
        return math.log(prior[label]) + sum(math.log((seen[label][w] + 1) / (prior[label] + 2)) for w in bag)

    guesses = [max(prior, key=lambda label: score(label, bag)) for bag in words[half:]]
    return float(np.mean([guess == label for guess, (_, label) in zip(guesses, samples[half:])]))


def test_questions_have_one_answer_that_only_the_picture_gives():
    asked = defaultdict(list)
    for one in MANY:
        for question in texts.questions(one):
            assert answer(one, question) == question.answers[0], question
            asked[question.question_type].append((question.text, question.answers[0]))
    chance = {"size": 2, "texture": 3, "colour": 8, "shape": 8, "total": 3, "count": 3}
    chance |= {"exists": 2, "relation": 2, "position": 4}
    assert set(asked) == set(chance)
    for kind, answers in chance.items():
        samples = asked[kind]
        assert len(samples) > 400 and len({label for _, label in samples}) == answers
        # Four standard deviations of a guesser that knows nothing.
        spread = 4 * math.sqrt((answers - 1) / answers**2 / len(samples))
        assert guessing(samples) < 1 / answers + math.sqrt(2) * spread, kind
        shares = Counter(label for _, label in samples).values()
        assert max(abs(share / len(samples) - 1 / answers) for share in shares) < spread, kind


def test_statements_are_true_or_false_as_said_and_wording_does_not_tell():
    said = [(one, statement) for one in MANY for statement in texts.statements(one)]
    assert all(truth(one, text) == label for one, (text, label, *_) in said)
    assert guessing([(text, str(label)) for _, (text, label, *_) in said]) < 0.53
    assert min(len(texts.statements(one)) for one in MANY) >= 2


def test_pair_statements_are_true_or_false_as_said_and_wording_does_not_tell():
    pairs = [(left, right, s) for left, right in pairwise(MANY) for s in texts.pair_statements(left, right)]
    assert all(pair_truth(left, right, text) == label for left, right, (text, label, *_) in pairs)
    assert guessing([(text, str(label)) for _, _, (text, label, *_) in pairs]) < 0.53
    assert len(pairs) > 3 * len(MANY)


def test_referring_expressions_fit_one_object():
    located = 0
    for one in MANY[:500]:
        found = texts.referring(one)
        assert {expression.object for expression in found} == set(range(len(one.objects)))
        for text, i, box in found:
            assert box == one.objects[i].box
            if match := re.fullmatch(f"(the .*?) {RELATION} (the .*)", text):
                other, relation = the_one(one, match[3]), relation_of(match[2])
                fitting = [k for k in having(one, match[1]) if lies(one, relation, k, other)]
            elif match := re.fullmatch(r"the (\w+most|lowest) (.*)", text):
                those, relation = having(one, match[2]), EXTREME[match[1]]
                fitting = [k for k in those if all(k == j or lies(one, relation, k, j) for j in those)]
            else:
                fitting, located = having(one, text), located - 1
            assert fitting == [i], text
            located += 1
    assert located > 1000


# The source


def test_source():
    source = pickle.loads(pickle.dumps(ScenesSource("val", 20, seed=4, image_size=64)))
    assert len(source) == 20 and len({source.key(i) for i in range(20)}) == 20
    assert source.captions(7) == tuple(caption.text for caption in texts.captions(scene(4, "val", 7)))
    assert source.image(7).mode == "RGB" and source.image(7).size == (64, 64)
    assert sorted(source.order(np.random.default_rng(0))) == list(range(20))
    with pytest.raises(IndexError):
        source.image(20)


@pytest.mark.parametrize(
    "wrong",
    [{"split": "dev"}, {"count": 0}, {"count": 2.5}, {"seed": -1}, {"image_size": 8}, {"image_size": "96"}],
)
def test_source_refuses(wrong: dict):
    with pytest.raises(UserError, match=re.escape(repr(*wrong.values()))):
        ScenesSource(**({"split": "train", "count": 3} | wrong))
