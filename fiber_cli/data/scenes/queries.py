"""What people type to find a scene: from one noun over attributes and counts to a relation, and which scenes fit."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from fiber_cli.data.scenes.facts import Attributes, coloured_shapes, related
from fiber_cli.data.scenes.layout import Scene, SceneObject
from fiber_cli.data.scenes.vocabulary import (
    ATTRIBUTES,
    NUMBERS,
    RELATIONS,
    THINGS,
    counted,
    listing,
    noun_phrase,
    plural_phrase,
)

#: How many attributes of an object a query names beside what it is.
_DETAIL = (0, 0, 1, 1, 1, 2)
#: Attributes that a query can do without.
_OPTIONAL = tuple(attribute for attribute in ATTRIBUTES if attribute != "shape")


class Wanted(NamedTuple):
    """Objects with these attributes: exactly `number` of them, or at least one where it is None."""

    attributes: Attributes
    number: int | None = None


class SceneQuery(NamedTuple):
    """A text and what it asks of a scene; relation: how one of the first objects lies from one of the second."""

    text: str
    wanted: tuple[Wanted, ...]
    relation: str | None = None


def has_attributes(thing: SceneObject, attributes: Attributes) -> bool:
    """Whether an object has all of them."""
    return all(thing.attributes[name] == value for name, value in attributes.items())


def fits(query: SceneQuery, scene: Scene) -> bool:
    """Whether a scene is what a query asks for."""
    matches = []
    for wanted in query.wanted:
        having = [i for i, thing in enumerate(scene.objects) if has_attributes(thing, wanted.attributes)]
        is_so_many = len(having) > 0 if wanted.number is None else len(having) == wanted.number
        if not is_so_many:
            return False
        matches.append(having)
    if query.relation is None:
        return _are_apart(matches)
    first, second = matches
    return any(related(scene, query.relation, i, j) for i in first for j in second)


def _are_apart(matches: list[list[int]]) -> bool:
    """Whether there is a different object for each of one or two things."""
    return len(matches) == 1 or len(set(matches[0]) | set(matches[1])) > 1


def queries(scene: Scene) -> tuple[SceneQuery, ...]:
    """Short texts that are true of a scene, each once: a thing, some things counted, two things, and one thing by
    another."""
    rng = random.Random(f"{scene.key}/queries")
    made: list[SceneQuery | None] = [_thing(rng, scene), _thing(rng, scene), _counted(rng, scene)]
    if len(scene.objects) > 1:
        made += [_two(rng, scene), _related(rng, scene)]
    distinct: dict[str, SceneQuery] = {}
    for query in made:
        if query is not None:
            distinct.setdefault(query.text, query)
    return tuple(distinct.values())


def full_names(scene: Scene) -> tuple[str, ...]:
    """All objects by all their attributes, and nothing of where they lie: "a small striped red star and a large plain
    blue ring"; in three orders and wordings."""
    rng = random.Random(f"{scene.key}/full_names")
    texts = []
    for _ in range(3):
        things = rng.sample(scene.objects, len(scene.objects))
        texts.append(listing([noun_phrase(rng, thing.attributes, "a") for thing in things]))
    return tuple(dict.fromkeys(texts))


def counted_names(scene: Scene) -> tuple[str, ...]:
    """The same behind the number of objects: "two shapes: a small striped red star and a large plain blue ring"."""
    rng = random.Random(f"{scene.key}/counted_names")
    count = len(scene.objects)
    texts = []
    for names in full_names(scene):
        thing = rng.choice(THINGS)
        texts.append(f"{counted(count, thing)}: {names}")
    return tuple(texts)


def coloured_shape_queries(scene: Scene, article: str = "a") -> Iterator[SceneQuery]:
    """ "a red star" of every colour and shape that a scene of this split can have."""
    present, absent = coloured_shapes(scene)
    for attributes in (*present, *absent):
        text = noun_phrase(random.Random(0), attributes, article)
        yield SceneQuery(text, (Wanted(attributes),))


def _some_attributes(rng: random.Random, thing: SceneObject) -> Attributes:
    """What a query names of an object: mostly its shape, with few attributes or none, or an attribute alone."""
    detail = rng.choice(_DETAIL)
    named = set(rng.sample(_OPTIONAL, detail))
    if not named or rng.random() < 0.85:
        named.add("shape")
    return {attribute: value for attribute, value in thing.attributes.items() if attribute in named}


def _thing(rng: random.Random, scene: Scene) -> SceneQuery:
    """ "a red star", "star"."""
    attributes = _some_attributes(rng, rng.choice(scene.objects))
    article = rng.choice(("a", ""))
    return SceneQuery(noun_phrase(rng, attributes, article), (Wanted(attributes),))


def _counted(rng: random.Random, scene: Scene) -> SceneQuery:
    """ "two small stars", "stars"."""
    attributes = _some_attributes(rng, rng.choice(scene.objects))
    number = sum(has_attributes(thing, attributes) for thing in scene.objects)
    if number == 1:
        return SceneQuery(f"one {noun_phrase(rng, attributes)}", (Wanted(attributes, 1),))
    return SceneQuery(f"{NUMBERS[number]} {plural_phrase(rng, attributes)}", (Wanted(attributes, number),))


def _two(rng: random.Random, scene: Scene) -> SceneQuery:
    """ "a red star and a moon"."""
    first, second = rng.sample(scene.objects, 2)
    one, other = _some_attributes(rng, first), _some_attributes(rng, second)
    text = f"{noun_phrase(rng, one, 'a')} and {noun_phrase(rng, other, 'a')}"
    return SceneQuery(text, (Wanted(one), Wanted(other)))


def _related(rng: random.Random, scene: Scene) -> SceneQuery | None:
    """ "a red star left of a moon"; None where nothing lies clearly so."""
    first, second = rng.sample(range(len(scene.objects)), 2)
    true = [relation for relation in RELATIONS if related(scene, relation, first, second)]
    if not true:
        return None
    relation = rng.choice(true)
    one = _some_attributes(rng, scene.objects[first])
    other = _some_attributes(rng, scene.objects[second])
    words = rng.choice(RELATIONS[relation])
    text = f"{noun_phrase(rng, one, 'a')} {words} {noun_phrase(rng, other, 'a')}"
    return SceneQuery(text, (Wanted(one), Wanted(other)), relation)
