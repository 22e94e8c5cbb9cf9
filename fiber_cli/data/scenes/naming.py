"""What an object of the built-in scenes can be called, from "object" to "small striped red star"."""

from collections.abc import Iterator
from itertools import product

from fiber_cli.data.scenes.layout import SceneObject
from fiber_cli.data.scenes.vocabulary import ATTRIBUTES, HELD_OUT, SYNONYMS, THINGS, VALUES, in_plural, with_article

#: Which attributes a name speaks of, by level; a name without a shape ends in THINGS[0].
LEVELS: dict[str, tuple[str, ...]] = {
    "thing": (),
    "shape": ("shape",),
    "colour": ("colour",),
    "size": ("size",),
    "texture": ("texture",),
    "size and texture": ("size", "texture"),
    "colour and shape": ("colour", "shape"),
    "size and shape": ("size", "shape"),
    "texture and shape": ("texture", "shape"),
}
#: How people write a name.
FORMS = ("bare", "with an article", "in the plural")


def names_of_level(level: str) -> tuple[str, ...]:
    """All names of a level, synonyms among them."""
    choices = [_all_words(attribute) for attribute in _in_order(LEVELS[level])]
    return _spelled(level, choices)


def names_of(thing: SceneObject) -> tuple[str, ...]:
    """All names of an object, of every level."""
    names: list[str] = []
    for level, attributes in LEVELS.items():
        choices = [_words(thing.attributes[attribute]) for attribute in _in_order(attributes)]
        names += _spelled(level, choices)
    return tuple(names)


def forms_of(name: str) -> tuple[str, str, str]:
    """A name in each of `FORMS`."""
    return name, with_article(name), in_plural(name)


def held_out_names() -> frozenset[str]:
    """The names of colours with shapes that are shown by the split "novel" alone."""
    names: set[str] = set()
    for colour, shape in HELD_OUT:
        names.update(_spelled("colour and shape", [_words(colour), _words(shape)]))
    return frozenset(names)


def level_of(name: str) -> str:
    """The level of a name; KeyError for what is none."""
    return _LEVEL_OF[name]


def _in_order(attributes: tuple[str, ...]) -> Iterator[str]:
    """As English names them."""
    return (attribute for attribute in ATTRIBUTES if attribute in attributes)


def _words(value: str) -> tuple[str, ...]:
    """A value and its synonym, where it has one."""
    synonym = SYNONYMS.get(value)
    return (value,) if synonym is None else (value, synonym)


def _all_words(attribute: str) -> tuple[str, ...]:
    words: list[str] = []
    for value in VALUES[attribute]:
        words += _words(value)
    return tuple(words)


def _spelled(level: str, choices: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Every combination of words, one of each list."""
    if level == "thing":
        return THINGS
    ending = () if "shape" in LEVELS[level] else (THINGS[0],)
    return tuple(" ".join((*words, *ending)) for words in product(*choices))


_LEVEL_OF = {name: level for level in LEVELS for name in names_of_level(level)}
#: Every name of every level, each once.
NAMES = tuple(_LEVEL_OF)
