"""Statements about one built-in scene or about two, true or false with even odds."""

import random
from collections.abc import Mapping
from itertools import permutations
from typing import NamedTuple

from fiber_cli.data.records import Statement
from fiber_cli.data.scenes.claims import Claim, exact_count_claim, fair_choice, relation_claim
from fiber_cli.data.scenes.facts import (
    coloured_shapes,
    count_values,
    distinguishing,
    draw_attribute,
    looks,
    values_in,
)
from fiber_cli.data.scenes.layout import Scene
from fiber_cli.data.scenes.vocabulary import noun_phrase, plural, word

#: Types of statements about one picture and about two.
STATEMENT_TYPES = ("presence", "absence", "count", "comparison", "relation", "attribute")
PAIR_STATEMENT_TYPES = ("in_both", "in_one_only", "on_a_side", "more_on_a_side", "count", "background")


def statements(scene: Scene) -> tuple[Statement, ...]:
    """Statements about one picture, true or false with even odds, at most one of each type."""
    rng = random.Random(f"{scene.key}/statements")
    claims = {
        "presence": _presence(rng, scene),
        "absence": _absence(rng, scene),
        "count": exact_count_claim(rng, [scene], rng.choice((1, 2))),
        "comparison": _comparison(rng, scene),
        "relation": _relation(rng, scene),
        "attribute": _attribute(rng, scene),
    }
    return _numbered(claims, scene.key)


def _numbered(claims: Mapping[str, Claim | None], group: str) -> tuple[Statement, ...]:
    """Statements of the claims that could be made, by type; what is said of the same pictures counts together."""
    numbered: list[Statement] = []
    for statement_type, claim in claims.items():
        if claim is not None:
            identifier = f"{group}-{len(numbered)}"
            numbered.append(Statement(claim.text, claim.label, identifier, group, statement_type))
    return tuple(numbered)


def _presence(rng: random.Random, scene: Scene) -> Claim | None:
    choice = fair_choice(rng, *coloured_shapes(scene))
    if choice is None:
        return None
    attributes, label = choice
    start = rng.choice(("there is", "the picture shows"))
    return Claim(f"{start} {noun_phrase(rng, attributes, 'a')}", label)


def _absence(rng: random.Random, scene: Scene) -> Claim | None:
    choice = fair_choice(rng, *coloured_shapes(scene))
    if choice is None:
        return None
    attributes, present = choice
    return Claim(f"there is no {noun_phrase(rng, attributes)}", not present)


def _comparison(rng: random.Random, scene: Scene) -> Claim | None:
    """More of one value of an attribute than of another."""
    attribute = draw_attribute(rng)
    counts = count_values([scene], attribute)
    true = []
    false = []
    for more, fewer in permutations(counts, 2):
        if counts[more] > counts[fewer]:
            true.append((more, fewer))
            false.append((fewer, more))
    choice = fair_choice(rng, true, false)
    if choice is None:
        return None
    (first, second), label = choice
    return Claim(f"there are more {plural(rng, attribute, first)} than {plural(rng, attribute, second)}", label)


def _relation(rng: random.Random, scene: Scene) -> Claim | None:
    claim = relation_claim(rng, scene)
    if claim is None:
        return None
    return Claim(f"{claim.subject} is {claim.relation} {claim.reference}", claim.label)


def _attribute(rng: random.Random, scene: Scene) -> Claim | None:
    """What an attribute of an object is that its other ones tell from the rest."""
    attribute = draw_attribute(rng)
    i = rng.randrange(len(scene.objects))
    attributes = distinguishing(rng, scene, i, without=attribute)
    if attributes is None:
        return None
    truth = scene.objects[i].attributes[attribute]
    others = values_in(scene, attribute) - {truth}
    choice = fair_choice(rng, [truth], sorted(others))
    if choice is None:
        return None
    value, label = choice
    predicate = word(rng, value)
    if attribute == "shape":
        predicate = f"a {predicate}"
    return Claim(f"{noun_phrase(rng, attributes, 'the')} is {predicate}", label)


class _Pair(NamedTuple):
    """Two scenes side by side, with what statements about them have in common: the word for a picture, an attribute,
    and the side that is spoken of."""

    left: Scene
    right: Scene
    image: str
    attribute: str
    side: str

    @property
    def this(self) -> Scene:
        return self.left if self.side == "left" else self.right

    @property
    def other(self) -> Scene:
        return self.right if self.side == "left" else self.left


def pair_statements(left: Scene, right: Scene) -> tuple[Statement, ...]:
    """Statements about two pictures side by side, true or false with even odds."""
    key = f"{left.key}|{right.key}"
    rng = random.Random(f"{key}/statements")
    image = rng.choice(("image", "picture"))
    pair = _Pair(left, right, image, draw_attribute(rng), rng.choice(("left", "right")))
    claims = {
        "in_both": _in_both(rng, pair),
        "in_one_only": _in_one_only(rng, pair),
        "on_a_side": _on_a_side(rng, pair),
        "more_on_a_side": _more_on_a_side(rng, pair),
        "count": exact_count_claim(rng, [left, right], rng.choice((2, 3)), f" in the two {image}s"),
        "background": _background(rng, pair),
    }
    return _numbered(claims, key)


def _shared_and_single(pair: _Pair) -> tuple[list[str], list[str]]:
    """Values of the pair's attribute that both pictures have, and those that only one has."""
    left = values_in(pair.left, pair.attribute)
    right = values_in(pair.right, pair.attribute)
    return sorted(left & right), sorted(left ^ right)


def _in_both(rng: random.Random, pair: _Pair) -> Claim | None:
    shared, single = _shared_and_single(pair)
    choice = fair_choice(rng, shared, single)
    if choice is None:
        return None
    value, is_shared = choice
    thing = noun_phrase(rng, {pair.attribute: value}, "a")
    return Claim(f"both {pair.image}s contain {thing}", is_shared)


def _in_one_only(rng: random.Random, pair: _Pair) -> Claim | None:
    shared, single = _shared_and_single(pair)
    choice = fair_choice(rng, shared, single)
    if choice is None:
        return None
    value, is_shared = choice
    thing = noun_phrase(rng, {pair.attribute: value}, "a")
    return Claim(f"only one of the two {pair.image}s shows {thing}", not is_shared)


def _on_a_side(rng: random.Random, pair: _Pair) -> Claim | None:
    here = looks(pair.this)
    there = looks(pair.other)
    choice = fair_choice(rng, sorted(here - there), sorted(there - here))
    if choice is None:
        return None
    (colour, shape), label = choice
    thing = noun_phrase(rng, {"colour": colour, "shape": shape}, "a")
    return Claim(f"{thing} is in the {pair.side} {pair.image}", label)


def _more_on_a_side(rng: random.Random, pair: _Pair) -> Claim | None:
    here = count_values([pair.this], pair.attribute)
    there = count_values([pair.other], pair.attribute)
    more = []
    fewer = []
    for value in here:
        if here[value] > there[value]:
            more.append(value)
        elif here[value] < there[value]:
            fewer.append(value)
    choice = fair_choice(rng, more, fewer)
    if choice is None:
        return None
    value, label = choice
    things = plural(rng, pair.attribute, value)
    return Claim(f"the {pair.side} {pair.image} has more {things} than the other one", label)


def _background(rng: random.Random, pair: _Pair) -> Claim:
    tone = rng.choice(("dark", "light"))
    if pair.left.tone == pair.right.tone:
        subject = f"both {pair.image}s have"
    else:
        subject = f"only the {pair.side} {pair.image} has"
    return Claim(f"{subject} a {tone} background", tone == pair.this.tone)
