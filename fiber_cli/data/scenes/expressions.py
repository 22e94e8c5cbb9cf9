"""Referring expressions for the objects of the built-in scenes."""

import random
from typing import NamedTuple

from fiber_cli.data.scenes.facts import Description, definite, descriptions, related
from fiber_cli.data.scenes.layout import Box, Scene
from fiber_cli.data.scenes.vocabulary import EXTREME, OPPOSITE, RELATIONS, noun_phrase


class SceneExpression(NamedTuple):
    """An expression that fits exactly one object of the scene: its index and its box."""

    text: str
    object: int
    box: Box


def expressions(scene: Scene) -> tuple[SceneExpression, ...]:
    """For each object one expression by its attributes and, where one fits, one by where it lies."""
    rng = random.Random(f"{scene.key}/referring")
    fitting = []
    for i, thing in enumerate(scene.objects):
        fitting.append(SceneExpression(definite(rng, scene, i), i, thing.box))
        located = _located(rng, scene, i)
        if located:
            fitting.append(SceneExpression(rng.choice(located), i, thing.box))
    return tuple(fitting)


def _located(rng: random.Random, scene: Scene, i: int) -> list[str]:
    """ "the red shape left of the square", "the leftmost star": attributes that others share, and what sets
    object i apart from those others by a margin; none of an object that is alone."""
    if len(scene.objects) == 1:
        return []
    description = _shared_description(rng, scene, i)
    others = description.objects - {i}
    texts = []
    for relation, words in RELATIONS.items():
        if all(related(scene, relation, i, other) for other in others):
            texts.append(f"the {EXTREME[relation]} {noun_phrase(rng, description.attributes)}")
        for reference in range(len(scene.objects)):
            if _set_apart(scene, relation, i, reference, others):
                subject = noun_phrase(rng, description.attributes, "the")
                texts.append(f"{subject} {rng.choice(words)} {definite(rng, scene, reference)}")
    return texts


def _shared_description(rng: random.Random, scene: Scene, i: int) -> Description:
    """Attributes that object i has in common with others; none, which all share, where there are no such."""
    shared = [description for description in descriptions(scene, i) if len(description.objects) > 1]
    if shared:
        return rng.choice(shared)
    return Description({}, set(range(len(scene.objects))))


def _set_apart(scene: Scene, relation: str, i: int, reference: int, others: set[int]) -> bool:
    """Whether object i lies so from the reference, and all the others clearly on the opposite side of it."""
    if i == reference or not related(scene, relation, i, reference):
        return False
    opposite = OPPOSITE[relation]
    return all(other == reference or related(scene, opposite, other, reference) for other in others)
