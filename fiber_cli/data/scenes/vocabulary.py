"""The words of the built-in scenes: attributes and their values, synonyms, and the phrases that are made of them."""

import random
from collections.abc import Sequence

#: The attributes of an object in the order in which English names them, with their values.
VALUES = {
    "size": ("small", "large"),
    "texture": ("plain", "striped", "dotted"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "shape": ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon"),
}
ATTRIBUTES = tuple(VALUES)
#: Colours with shapes that no split but "novel" shows: each colour and each shape is in one of them.
HELD_OUT = frozenset((colour, VALUES["shape"][(3 * i + 1) % 8]) for i, colour in enumerate(VALUES["colour"]))
SYNONYMS = {
    "small": "little",
    "large": "big",
    "plain": "solid",
    "dotted": "spotted",
    "purple": "violet",
    "circle": "disc",
    "square": "box",
    "cross": "plus",
    "ring": "hoop",
    "moon": "crescent",
}
#: What an object is called whose shape is not named.
THINGS = ("shape", "object", "figure")
NUMBERS = ("no", "one", "two", "three", "four")
#: How one object lies from another → the words for it.
RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
EXTREME = {"left": "leftmost", "right": "rightmost", "above": "topmost", "below": "lowest"}


def word(rng: random.Random, value: str) -> str:
    """The value of an attribute, or a synonym of it."""
    return rng.choice((value, SYNONYMS.get(value, value)))


def noun_phrase(rng: random.Random, attributes: dict[str, str], article: str = "") -> str:
    """ "a small red circle": words for the attributes given, in the order of English."""
    words = [word(rng, attributes[attribute]) for attribute in ATTRIBUTES if attribute in attributes]
    if "shape" not in attributes:
        words.append(rng.choice(THINGS))
    phrase = " ".join(words)
    if article == "a":
        return with_article(phrase)
    return f"{article} {phrase}" if article else phrase


def with_article(phrase: str) -> str:
    """ "a red star", "an orange star"."""
    article = "an" if phrase[0] in "aeiou" else "a"
    return f"{article} {phrase}"


def plural(rng: random.Random, attribute: str, value: str) -> str:
    """All objects of one attribute value: "circles", "red shapes"."""
    noun = value if attribute == "shape" else f"{word(rng, value)} {rng.choice(THINGS)}"
    return in_plural(noun)


def plural_phrase(rng: random.Random, attributes: dict[str, str]) -> str:
    """ "small red circles": as `noun_phrase`, of several objects."""
    return in_plural(noun_phrase(rng, attributes))


def counted(count: int, noun: str) -> str:
    """ "one object", "two objects"."""
    return f"{NUMBERS[count]} {noun if count == 1 else in_plural(noun)}"


def in_plural(noun: str) -> str:
    """ "red stars", "crosses": a noun, or a phrase that ends in one."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def listing(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    *firsts, last = items
    return f"{', '.join(firsts)} and {last}" if firsts else last
