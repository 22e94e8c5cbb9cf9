"""Captions of the built-in scenes, in six forms.

A form makes a template in which "{2}" stands for object 2 and "{all}" for all of them; `_fill` puts phrases there.
"""

import random
import re
from itertools import pairwise
from typing import NamedTuple

from fiber_cli.data.records import Span
from fiber_cli.data.scenes.facts import position
from fiber_cli.data.scenes.layout import Point, Scene, SceneObject
from fiber_cli.data.scenes.vocabulary import RELATIONS, THINGS, counted, listing, noun_phrase

#: The longest caption in words and punctuation marks, each of which the built-in tokenizer keeps whole.
MAX_WORDS = 38
#: Chances of naming size and texture, tried in turn until the caption is short enough.
_DETAIL = (1, 0.7, 0.4, 0)
_MIN_GAP = 0.06  # of the image's side, between the middles of objects that are told in order
_WORD = re.compile(r"\w+|[^\w\s]")
_SLOT = re.compile(r"(\{\w+\})")


class ScenePhrase(NamedTuple):
    """Characters [start, end) of a text, and the objects (indices into the scene's) that they speak of."""

    start: int
    end: int
    objects: tuple[int, ...]


class SceneCaption(NamedTuple):
    """A text and the phrases in it that name objects, in order and without overlap."""

    text: str
    phrases: tuple[ScenePhrase, ...]

    def spans_of_objects(self) -> dict[int, list[Span]]:
        """Object → the spans of the phrases that speak of it, in the order of the text."""
        spans: dict[int, list[Span]] = {}
        for phrase in self.phrases:
            for i in phrase.objects:
                spans.setdefault(i, []).append((phrase.start, phrase.end))
        return spans


def captions(scene: Scene) -> tuple[SceneCaption, ...]:
    """Two to six captions, each naming every object by colour and shape and, as far as `MAX_WORDS` lets, by
    size and texture; all but the first say where the objects are. Phrases follow the text without overlap."""
    rng = random.Random(f"{scene.key}/captions")
    templates: list[str | None] = [_counted(rng, scene), _placed(rng, scene)]
    if len(scene.objects) > 1:
        templates += [
            _in_order(rng, scene, axis=0),
            _in_order(rng, scene, axis=1),
            _related(rng, scene),
            _with_background(rng, scene, _related(rng, scene)),
        ]
    filled = []
    for template in templates:
        caption = None if template is None else _shortened(rng, scene, template)
        if caption is not None:
            filled.append(caption)
    return tuple(filled)


def _slot(i: int) -> str:
    return f"{{{i}}}"


def _counted(rng: random.Random, scene: Scene) -> str:
    """All objects counted and named, on their background."""
    items = [_slot(i) for i in range(len(scene.objects))]
    rng.shuffle(items)
    start = rng.choice(("", "there are ", "a picture with ", "we see "))
    return _with_background(rng, scene, f"{start}{{all}}: {listing(items)}")


def _with_background(rng: random.Random, scene: Scene, template: str) -> str:
    """The template with the tone of the background added."""
    return f"{template}, {rng.choice(('on', 'against'))} a {scene.tone} background"


def _placed(rng: random.Random, scene: Scene) -> str:
    """Each object with its place in the picture."""
    place_first = rng.random() < 0.3
    items = []
    for i in range(len(scene.objects)):
        where = _position_words(rng, *position(scene, i))
        items.append(f"{where} {_slot(i)}" if place_first else f"{_slot(i)} {where}")
    rng.shuffle(items)
    start = "" if place_first else rng.choice(("", "", "there is ", "you can see ", "a picture of "))
    return start + listing(items)


def _position_words(rng: random.Random, down: str, across: str) -> str:
    if down and across:
        upper = {"top": "upper", "bottom": "lower"}[down]
        return rng.choice((f"at the {down} {across}", f"in the {upper} {across}"))
    if down:
        return f"{rng.choice(('at', 'near'))} the {down}"
    if across:
        return f"on the {across}"
    return rng.choice(("in the middle", "in the centre"))


def _in_order(rng: random.Random, scene: Scene, axis: int) -> str | None:
    """The objects in their order along an axis; None where two of them lie too near to each other on it."""
    middles = [thing.centre[axis] for thing in scene.objects]
    order = sorted(range(len(middles)), key=middles.__getitem__)
    for before, behind in pairwise(order):
        if middles[behind] - middles[before] < _MIN_GAP * scene.image_size:
            return None
    start, end = (("left", "right"), ("top", "bottom"))[axis]
    if rng.random() < 0.3:
        order.reverse()
        start, end = end, start
    items = [_slot(i) for i in order]
    course = f"{start} to {end}"
    listed = listing(items)
    steps = f"{course}: {', then '.join(items)}"
    return rng.choice((f"from {course} there is {listed}", f"{listed}, from {course}", steps))


def _related(rng: random.Random, scene: Scene) -> str:
    """The objects by where they lie from one another."""
    first, second, *rest = rng.sample(range(len(scene.objects)), len(scene.objects))
    start, verb = rng.choice((("", " is"), ("", " sits"), ("there is ", "")))
    text = f"{start}{_slot(first)}{verb} {_relation(rng, scene, first, second)}"
    if len(rest) == 2:
        third, fourth = rest
        joint = rng.choice((" and", ", while"))
        text += f"{joint} {_slot(third)} is {_relation(rng, scene, third, fourth)}"
    elif rest:
        joint, subject = rng.choice(((" and", first), (", which is", second)))
        text += f"{joint} {_relation(rng, scene, subject, rest[0])}"
    return text


def _relation(rng: random.Random, scene: Scene, i: int, j: int) -> str:
    """ "left of {j}", or how else object i lies from object j, along the axis on which they are farther apart."""
    relation = _direction(scene.objects[i].centre, scene.objects[j].centre)
    return f"{rng.choice(RELATIONS[relation])} {_slot(j)}"


def _direction(point: Point, origin: Point) -> str:
    x = point[0] - origin[0]
    y = point[1] - origin[1]
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "above" if y < 0 else "below"


def _shortened(rng: random.Random, scene: Scene, template: str) -> SceneCaption | None:
    """The caption of a template with as many attributes as fit into `MAX_WORDS`; None where not even the fewest do."""
    for detail in _DETAIL:
        caption = _fill(rng, scene, template, detail)
        if len(_WORD.findall(caption.text)) <= MAX_WORDS:
            return caption
    return None


def _fill(rng: random.Random, scene: Scene, template: str, detail: float) -> SceneCaption:
    """The caption of a template; each object's size and texture are named with the odds `detail`."""
    text = ""
    phrases = []
    for piece in _SLOT.split(template):
        if not piece.startswith("{"):
            text += piece
            continue
        objects, words = _slot_phrase(rng, scene, piece[1:-1], detail)
        phrases.append(ScenePhrase(len(text), len(text) + len(words), objects))
        text += words
    return SceneCaption(text, tuple(phrases))


def _slot_phrase(rng: random.Random, scene: Scene, name: str, detail: float) -> tuple[tuple[int, ...], str]:
    """The objects that a slot of a template stands for, and words for them."""
    count = len(scene.objects)
    if name == "all":
        return tuple(range(count)), counted(count, rng.choice(THINGS))
    i = int(name)
    texture_odds = detail
    # That an object is plain goes without saying, except where few objects leave little to say.
    if scene.objects[i].texture == "plain" and count > 2:
        texture_odds *= 0.25
    return (i,), _indefinite(rng, scene.objects[i], detail, texture_odds)


def _indefinite(rng: random.Random, thing: SceneObject, size_odds: float, texture_odds: float) -> str:
    """ "a small red circle": colour and shape, and size and texture with these odds."""
    odds = {"size": size_odds, "texture": texture_odds, "colour": 1, "shape": 1}
    named = {}
    for attribute, value in thing.attributes.items():
        if rng.random() < odds[attribute]:
            named[attribute] = value
    return noun_phrase(rng, named, "a")
