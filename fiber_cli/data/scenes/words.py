"""The words of all texts about built-in scenes, without drawing any: what captions, queries and so on can say.

They are as `data.words` splits them. A test compares them with the words of many drawn texts, so that neither a form of
sentence nor an attribute can be added without its words.
"""

from collections.abc import Iterable, Mapping

from fiber_cli.data.scenes.vocabulary import EXTREME, SYNONYMS, VALUES

#: Numbers of objects in a scene.
_ANY, _SEVERAL, _MANY = (1, 2, 3, 4), (2, 3, 4), (3, 4)
#: Words for how things lie, which need more than one of them.
_RELATIONS = "left right of to the above over below under beneath"
_PLURALS = "circles squares triangles stars hearts crosses rings moons"
_PLURALS_OF_SYNONYMS = "discs boxes pluses hoops crescents"

#: Kind of text → its words beside those of attributes, by the numbers of objects of scenes that they are said of.
_OTHERS: Mapping[str, Mapping[tuple[int, ...], str]] = {
    "captions": {
        _ANY: "a against are at background bottom can centre dark in is left light lower middle near of on picture "
        "right see the there top upper we with you",
        _SEVERAL: f"{_RELATIONS} and figures from objects shapes sits then",
        (1,): "one figure object shape",
        (2,): "two",
        (3,): "three which",
        (4,): "four an while",
    },
    "queries": {
        _ANY: "a an one figure object shape",
        _SEVERAL: f"{_RELATIONS} {_PLURALS} {_PLURALS_OF_SYNONYMS} and two figures objects shapes",
        _MANY: "three",
        (4,): "four",
    },
    "full_names": {_ANY: "a", _SEVERAL: "and"},
    "counted_names": {
        _ANY: "a",
        _SEVERAL: "and figures objects shapes",
        (1,): "one figure object shape",
        (2,): "two",
        (3,): "three",
        (4,): "four",
    },
    "expressions": {_ANY: "the figure object shape", _SEVERAL: f"{_RELATIONS} {' '.join(EXTREME.values())}"},
    "questions": {
        _ANY: "a an are can colour corner do does figure figures have how in is many object objects or see shape "
        "shapes texture the there what where which you",
        _SEVERAL: _RELATIONS,
        _MANY: _PLURALS,
    },
    "statements": {
        _ANY: f"{_PLURALS} a an are figures is more no objects picture shapes shows than the there",
        _SEVERAL: f"{_RELATIONS} figure object shape",
        _MANY: "exactly one two",
    },
    "pair_statements": {
        _ANY: f"{_PLURALS} a an background both dark figures has have image images in is left light more objects one "
        "only other picture pictures right shapes than the",
        _SEVERAL: "are contain exactly figure object of shape shows there three two",
    },
}


def scene_words(kind: str, objects: tuple[int, int]) -> frozenset[str]:
    """The words of all texts of a kind about scenes of so many objects, the fewest and the most.

    Kinds: "captions", "queries", "full_names", "counted_names", "expressions", "questions", "statements" about one
    scene and "pair_statements" about two.
    """
    fewest, most = objects
    words = set(_attribute_words())
    for numbers, others in _OTHERS[kind].items():
        if any(fewest <= number <= most for number in numbers):
            words.update(others.split())
    return frozenset(words)


def _attribute_words() -> Iterable[str]:
    for values in VALUES.values():
        for value in values:
            yield value
            yield SYNONYMS.get(value, value)
