"""A reader of what is said about the built-in scenes that shares no code with their generator."""

import math
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

_WORDS = {
    "size": "small little=small large big=large",
    "texture": "plain solid=plain striped dotted spotted=dotted",
    "colour": "red orange yellow green blue purple violet=purple pink white",
    "shape": "circle disc=circle square box=square triangle star heart cross plus=cross ring hoop=ring "
    "moon crescent=moon",
}
#: Word → the attribute that it tells, and its value.
MEANING = {}
for _kind, _entries in _WORDS.items():
    for _entry in _entries.split():
        _word, _, _value = _entry.partition("=")
        MEANING[_word] = (_kind, _value or _word)

NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
RELATION = "(to the left of|left of|to the right of|right of|above|over|below|under|beneath)"
#: Word → the relation in which the object is to all others.
EXTREME_OF = {"leftmost": "left", "rightmost": "right", "topmost": "above", "lowest": "below"}
_SAME = {"over": "above", "under": "below", "beneath": "below"}


def values_of(kind: str) -> set[str]:
    return {value for other, value in MEANING.values() if other == kind}


def attributes(words: str) -> dict[str, str]:
    """What the words say of an object; every content word must be known."""
    said = {}
    for word in words.split():
        if word in ("a", "an", "the") or re.fullmatch("(shape|object|figure)s?", word):
            continue
        (known,) = {word, word.removesuffix("s"), word.removesuffix("es")} & MEANING.keys()
        kind, value = MEANING[known]
        assert kind not in said, words
        said[kind] = value
    return said


def having(scene, words: str) -> list[int]:
    """The objects that the words fit."""
    said = attributes(words)
    return [i for i, thing in enumerate(scene.objects) if said.items() <= vars(thing).items()]


def the_one(scene, words: str) -> int:
    (index,) = having(scene, words)
    return index


def relation_of(words: str) -> str:
    for side in ("left", "right"):
        if side in words:
            return side
    return _SAME.get(words, words)


def lies(scene, relation: str, i: int, j: int) -> bool:
    (x1, y1), (x2, y2) = scene.objects[i].centre, scene.objects[j].centre
    return {"left": x1 < x2, "right": x1 > x2, "above": y1 < y2, "below": y1 > y2}[relation]


def guessing(samples: list[tuple[str, str]]) -> float:
    """Accuracy of naive Bayes from words and pairs of words alone, on the half not learnt from."""
    bags = []
    for text, _ in samples:
        words = text.split()
        bags.append(words + [f"{a} {b}" for a, b in pairwise(words)])
    half = len(samples) // 2
    prior = Counter()
    seen = defaultdict(Counter)
    for (_, label), bag in zip(samples[:half], bags[:half], strict=True):
        prior[label] += 1
        seen[label].update(bag)

    def score(label: str, bag: list[str]) -> float:
        return math.log(prior[label]) + sum(math.log((seen[label][word] + 1) / (prior[label] + 2)) for word in bag)

    guesses = [max(prior, key=lambda label: score(label, bag)) for bag in bags[half:]]
    truth = [label for _, label in samples[half:]]
    return float(np.mean([guess == label for guess, label in zip(guesses, truth, strict=True)]))
