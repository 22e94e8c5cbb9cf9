"""Claims about built-in scenes that are true or false by the toss of a coin.

They are fair: a claim of some form is made only where that form could have come out either way, and a coin decides.
As no colour, shape and so on is rarer than another, wording alone never tells the answer.
"""

import random
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple, TypeVar

from fiber_cli.data.scenes.facts import count_values, definite, draw_attribute, related
from fiber_cli.data.scenes.layout import Scene
from fiber_cli.data.scenes.vocabulary import NUMBERS, OPPOSITE, RELATIONS, noun_phrase, plural

Item = TypeVar("Item")


class Claim(NamedTuple):
    """What is said, and whether it is true."""

    text: str
    label: bool


class RelationClaim(NamedTuple):
    """That one object lies so from another, in words for all three, and whether it does."""

    subject: str
    relation: str
    reference: str
    label: bool


def fair_choice(rng: random.Random, true: Sequence[Item], false: Sequence[Item]) -> tuple[Item, bool] | None:
    """(an item, whether it is of the true ones) by the toss of a coin; None unless both were possible."""
    if not true or not false:
        return None
    label = rng.random() < 0.5
    return rng.choice(true if label else false), label


def relation_claim(rng: random.Random, scene: Scene) -> RelationClaim | None:
    """How two objects lie, or clearly do not lie, from one another."""
    relation = rng.choice(tuple(RELATIONS))
    true = []
    false = []
    for pair in permutations(range(len(scene.objects)), 2):
        if related(scene, relation, *pair):
            true.append(pair)
        elif related(scene, OPPOSITE[relation], *pair):
            false.append(pair)
    choice = fair_choice(rng, true, false)
    if choice is None:
        return None
    (first, second), label = choice
    subject = definite(rng, scene, first)
    words = rng.choice(RELATIONS[relation])
    return RelationClaim(subject, words, definite(rng, scene, second), label)


def exact_count_claim(rng: random.Random, scenes: Sequence[Scene], number: int, ending: str = "") -> Claim | None:
    """ "there are exactly two circles", in the scenes together."""
    attribute = draw_attribute(rng)
    counts = count_values(scenes, attribute)
    true = []
    false = []
    for value, count in counts.items():
        if count == number:
            true.append(value)
        elif count > 0:
            false.append(value)
    choice = fair_choice(rng, true, false)
    if choice is None:
        return None
    value, label = choice
    if number == 1:
        things = f"is exactly one {noun_phrase(rng, {attribute: value})}"
    else:
        things = f"are exactly {NUMBERS[number]} {plural(rng, attribute, value)}"
    return Claim(f"there {things}{ending}", label)
