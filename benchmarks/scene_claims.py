"""What captions of drawn scenes claim, read without the generator's help, and whether it is true of a scene.

A claim: that there is an object with the attributes that a phrase names, how many objects there are, how one phrase's
object lies from another's, where in the picture it lies, or whether the background is dark or light. Where several
objects fit a phrase, a claim is true if it is of one of them; relations and places are taken without a margin.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from fiber_cli.data.scenes.layout import Scene
from fiber_cli.data.scenes.vocabulary import NUMBERS, RELATIONS, SYNONYMS, THINGS, VALUES

_MEANING = {value: (attribute, value) for attribute, values in VALUES.items() for value in values}
_MEANING |= {synonym: _MEANING[value] for value, synonym in SYNONYMS.items()}
_SHAPES = [word for word, (attribute, _) in _MEANING.items() if attribute == "shape"]
_QUALITIES = [word for word, (attribute, _) in _MEANING.items() if attribute != "shape"]
_PHRASE = re.compile(rf"\ban? ((?:(?:{'|'.join(_QUALITIES)}) )*(?:{'|'.join([*_SHAPES, *THINGS])}))\b")
_COUNT = re.compile(rf"\b({'|'.join(NUMBERS)}) (?:{'|'.join(THINGS)})s?\b")
_TONE = re.compile(r"\ba (dark|light) background\b")
_COURSE = re.compile(r"\b(left|right|top|bottom) to (?:left|right|top|bottom)\b")
_RELATION_OF = {words: relation for relation, spellings in RELATIONS.items() for words in spellings}
_RELATION = re.compile("|".join(sorted(_RELATION_OF, key=len, reverse=True)))
_PLACE = re.compile(r"\b(top|bottom|upper|lower|left|right|middle|centre)\b")
_SAME_PLACE = {"upper": "top", "lower": "bottom", "centre": "middle"}
#: Fractions of the side within which an object is in the middle.
_MIDDLE = (0.35, 0.65)


class Claim(NamedTuple):
    """kind: "object", "count", "tone", "place", or a relation. phrases: numbers of the phrases that it is about;
    value: the number, tone or place."""

    kind: str
    phrases: tuple[int, ...] = ()
    value: str = ""


class Reading(NamedTuple):
    """phrases: the attributes of each thing that a caption names; claims: all that it claims."""

    phrases: list[dict[str, str]]
    claims: list[Claim]


def read(caption: str) -> Reading:
    """The claims of a caption; words that it does not know claim nothing."""
    matches = list(_PHRASE.finditer(caption))
    phrases = [_attributes(match[1]) for match in matches]
    claims = [Claim("object", (number,)) for number in range(len(phrases))]
    claims += [Claim("count", value=match[1]) for match in _COUNT.finditer(caption)]
    claims += [Claim("tone", value=match[1]) for match in _TONE.finditer(caption)]
    course = _COURSE.search(caption)
    if course:
        return Reading(phrases, claims + _in_order(len(phrases), course[1]))
    edges = [0]
    for match in matches:
        edges += [match.start(), match.end()]
    edges.append(len(caption))
    between = [_TONE.sub("", caption[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return Reading(phrases, claims + _between(between))


def _attributes(words: str) -> dict[str, str]:
    return dict(_MEANING[word] for word in words.split() if word in _MEANING)


def _in_order(count: int, start: str) -> list[Claim]:
    """Each phrase's object lies on the start's side of the next one's."""
    relation = {"top": "above", "bottom": "below"}.get(start, start)
    return [Claim(relation, pair) for pair in pairwise(range(count))]


def _between(texts: Sequence[str]) -> list[Claim]:
    """The claims of the words before the first phrase, between two, and after the last."""
    claims = []
    is_place_first = _PLACE.search(texts[0]) is not None
    for number, words in enumerate(texts):
        relation = _RELATION.search(words)
        if relation and 0 < number < len(texts) - 1:
            subject = 0 if words.startswith(" and ") else number - 1
            claims.append(Claim(_RELATION_OF[relation[0]], (subject, number)))
            continue
        of = number if is_place_first else number - 1
        if 0 <= of < len(texts) - 1:
            claims += [Claim("place", (of,), _SAME_PLACE.get(word, word)) for word in _PLACE.findall(words)]
    return claims


def count_true(caption: str, scene: Scene) -> tuple[int, int]:
    """How many claims a caption makes, and how many of them are true of a scene."""
    reading = read(caption)
    fitting = [_fitting(attributes, scene) for attributes in reading.phrases]
    return len(reading.claims), sum(_holds(claim, fitting, scene) for claim in reading.claims)


def _fitting(attributes: dict[str, str], scene: Scene) -> list[int]:
    return [i for i, thing in enumerate(scene.objects) if attributes.items() <= thing.attributes.items()]


def _holds(claim: Claim, fitting: Sequence[Sequence[int]], scene: Scene) -> bool:
    if claim.kind == "object":
        return bool(fitting[claim.phrases[0]])
    if claim.kind == "count":
        return NUMBERS.index(claim.value) == len(scene.objects)
    if claim.kind == "tone":
        return claim.value == scene.tone
    if claim.kind == "place":
        return any(_is_at(scene, i, claim.value) for i in fitting[claim.phrases[0]])
    first, second = claim.phrases
    return any(i != j and _lies(scene, claim.kind, i, j) for i in fitting[first] for j in fitting[second])


def _is_at(scene: Scene, i: int, place: str) -> bool:
    x, y = (middle / scene.image_size for middle in scene.objects[i].centre)
    least, most = _MIDDLE
    return {
        "left": x < 0.5,
        "right": x > 0.5,
        "top": y < 0.5,
        "bottom": y > 0.5,
        "middle": least < x < most and least < y < most,
    }[place]


def _lies(scene: Scene, relation: str, i: int, j: int) -> bool:
    (x, y), (other_x, other_y) = scene.objects[i].centre, scene.objects[j].centre
    return {"left": x < other_x, "right": x > other_x, "above": y < other_y, "below": y > other_y}[relation]
