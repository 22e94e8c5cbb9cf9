"""What is said about a built-in scene: captions, questions, statements, referring expressions, categories.

Every function is pure: its random choices come from the scene's key. Yes-or-no questions and statements are
fair: one of some form is made only where that form could have come out either way, and a coin decides. As no
colour, shape and so on is rarer than another, wording alone never tells the answer. Left, right, above and
below compare the middles of boxes, and are said or denied only where a margin is kept.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise, permutations
from typing import TYPE_CHECKING, Any, NamedTuple

from fiber_cli.tasks.nlvr2.data import Statement
from fiber_cli.tasks.vqa.data import ANNOTATORS, VqaQuestion

if TYPE_CHECKING:
    from fiber_cli.data.scenes.drawing import Box, Scene

#: The longest caption in words and punctuation marks, each of which the built-in tokenizer keeps whole.
MAX_WORDS = 38
_MARGIN = 0.1  # of the image's side, between middles

#: The attributes of an object in the order in which English names them, with their values.
VALUES = {
    "size": ("small", "large"),
    "texture": ("plain", "striped", "dotted"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "shape": ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon"),
}
SYNONYMS = {
    "small": "little", "large": "big", "plain": "solid", "dotted": "spotted", "purple": "violet",
    "circle": "disc", "square": "box", "cross": "plus", "ring": "hoop", "moon": "crescent",
}  # fmt: skip
_THINGS = ("shape", "object", "figure")
_RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_EXTREME = {"left": "leftmost", "right": "rightmost", "above": "topmost", "below": "lowest"}
_YES = ("no", "yes")
_NUMBERS = ("no", "one", "two", "three", "four")
_ANSWER_TYPES = dict.fromkeys(_YES, "yes/no") | dict.fromkeys("01234", "number")


class Phrase(NamedTuple):
    """Characters [start, end) of a text, and the objects (indices into the scene's) that they speak of."""

    start: int
    end: int
    objects: tuple[int, ...]


class Caption(NamedTuple):
    text: str
    phrases: tuple[Phrase, ...]


class Referring(NamedTuple):
    """An expression that fits exactly one object of the scene: its index and its box."""

    text: str
    object: int
    box: "Box"


def category_boxes(scene: "Scene") -> tuple[tuple[str, "Box"], ...]:
    """(category such as "red circle", box) of each object; all categories: `scenes.CATEGORIES`."""
    return tuple((f"{thing.colour} {thing.shape}", thing.box) for thing in scene.objects)


def captions(scene: "Scene") -> tuple[Caption, ...]:
    """Four to six captions, each naming every object by colour and shape and, as far as `MAX_WORDS` lets, by
    size and texture; all but the first say where the objects are. Phrases follow the text without overlap."""
    rng = random.Random(f"{scene.key}/captions")
    found = []
    drafts = [_roll(rng, scene), _places(rng, scene), _row(rng, scene, 0), _row(rng, scene, 1)]
    drafts += [_chain(rng, scene), _grounded(rng, scene, _chain(rng, scene))]
    for template in filter(None, drafts):
        for share in (1, 0.7, 0.4, 0):
            caption = _fill(rng, scene, template, share)
            if len(re.findall(r"\w+|[^\w\s]", caption.text)) <= MAX_WORDS:
                found.append(caption)
                break
    return tuple(found)


def questions(scene: "Scene") -> tuple[VqaQuestion, ...]:
    """At most one question of each type, answered in one or two words, alike by all annotators. Types: size, texture,
    colour, shape, total, count, exists, relation and position."""
    rng = random.Random(f"{scene.key}/questions")
    found = []

    def ask(kind: str, answer: str, *forms: str) -> None:
        text, name, answers = rng.choice(forms), f"{scene.key}-{len(found)}", (answer,) * ANNOTATORS
        found.append(VqaQuestion(text, answers, name, _ANSWER_TYPES.get(answer, "other"), kind))

    for kind in VALUES:
        i = rng.randrange(len(scene.objects))
        if known := _unique(rng, scene, i, without=kind):
            the, answer = _name(rng, known, "the"), getattr(scene.objects[i], kind)
            if kind == "size":
                ask(kind, answer, f"is {the} small or large?", f"is {the} large or small?")
            else:
                ask(kind, answer, f"what {kind} is {the}?", f"which {kind} does {the} have?")

    ask("total", str(len(scene.objects)), *(f"how many {thing}s are there?" for thing in _THINGS))
    kind = rng.choice(("colour", "shape"))
    counts = _counts([scene], kind)
    by_count = [[value for value in counts if counts[value] == n] for n in range(3)]
    if all(by_count):
        n = rng.randrange(3)
        group = _group(rng, kind, rng.choice(by_count[n]))
        ask("count", str(n), f"how many {group} are there?", f"how many {group} do you see?")

    [(look, label)] = _fork(rng, *_looks(scene))
    thing = _name(rng, look, "a")
    ask("exists", _YES[label], *(f"{verb} {thing}?" for verb in ("is there", "do you see", "can you see")))
    for one, words, other, label in _relation(rng, scene):
        ask("relation", _YES[label], f"is {one} {words} {other}?")

    i = rng.randrange(len(scene.objects))
    if all(place := _place(scene, i)):
        the = _the(rng, scene, i)
        ask("position", " ".join(place), f"where is {the}?", f"in which corner is {the}?")
    return tuple(found)


def statements(scene: "Scene") -> tuple[Statement, ...]:
    """Statements about one picture, true or false with even odds, at most one of each form."""
    rng = random.Random(f"{scene.key}/statements")
    found = []
    for look, label in _fork(rng, *_looks(scene)):
        found.append((f"{rng.choice(('there is', 'the picture shows'))} {_name(rng, look, 'a')}", label))
    for look, label in _fork(rng, *_looks(scene)):
        found.append((f"there is no {_name(rng, look)}", not label))
    found += _exactly(rng, [scene], rng.choice((1, 2)), "")

    counts = _counts([scene], kind := rng.choice(tuple(VALUES)))
    more = [(a, b) for a, b in permutations(counts, 2) if counts[a] > counts[b]]
    for (a, b), label in _fork(rng, more, [(b, a) for a, b in more]):
        found.append((f"there are more {_group(rng, kind, a)} than {_group(rng, kind, b)}", label))

    found += [(f"{one} is {words} {other}", label) for one, words, other, label in _relation(rng, scene)]

    kind, i = rng.choice(tuple(VALUES)), rng.randrange(len(scene.objects))
    truth = getattr(scene.objects[i], kind)
    if known := _unique(rng, scene, i, without=kind):
        for value, label in _fork(rng, [truth], sorted({getattr(o, kind) for o in scene.objects} - {truth})):
            word = f"a {_word(rng, value)}" if kind == "shape" else _word(rng, value)
            found.append((f"{_name(rng, known, 'the')} is {word}", label))
    return _numbered(found, scene.key)


def pair_statements(left: "Scene", right: "Scene") -> tuple[Statement, ...]:
    """Statements about two pictures side by side, true or false with even odds."""
    key = f"{left.key}|{right.key}"
    rng = random.Random(f"{key}/statements")
    found = []
    image, kind = rng.choice(("image", "picture")), rng.choice(tuple(VALUES))
    side = rng.choice(("left", "right"))
    this, that = (left, right) if side == "left" else (right, left)

    here, there = ({getattr(thing, kind) for thing in scene.objects} for scene in (this, that))
    for form, meaning in (("both {}s contain {}", True), ("only one of the two {}s shows {}", False)):
        for value, label in _fork(rng, sorted(here & there), sorted(here ^ there)):
            found.append((form.format(image, _name(rng, {kind: value}, "a")), label is meaning))

    here, there = ({(thing.colour, thing.shape) for thing in scene.objects} for scene in (this, that))
    for (colour, shape), label in _fork(rng, sorted(here - there), sorted(there - here)):
        thing = _name(rng, {"colour": colour, "shape": shape}, "a")
        found.append((f"{thing} is in the {side} {image}", label))

    here, there = _counts([this], kind), _counts([that], kind)
    more, fewer = [v for v in here if here[v] > there[v]], [v for v in here if here[v] < there[v]]
    for value, label in _fork(rng, more, fewer):
        found.append((f"the {side} {image} has more {_group(rng, kind, value)} than the other one", label))
    found += _exactly(rng, [left, right], rng.choice((2, 3)), f" in the two {image}s")

    tone = rng.choice(("dark", "light"))
    where = f"both {image}s have" if left.tone == right.tone else f"only the {side} {image} has"
    found.append((f"{where} a {tone} background", tone == this.tone))
    return _numbered(found, key)


def _numbered(found: Iterable[tuple[str, bool]], key: str) -> tuple[Statement, ...]:
    """Statements of (text, label); what is said of the same pictures counts together."""
    return tuple(Statement(text, label, f"{key}-{n}", key) for n, (text, label) in enumerate(found))


def referring(scene: "Scene") -> tuple[Referring, ...]:
    """For each object one expression by its attributes and, where one fits, one by where it lies."""
    rng = random.Random(f"{scene.key}/referring")
    found = []
    for i, thing in enumerate(scene.objects):
        texts = [_the(rng, scene, i)]
        if located := _located(rng, scene, i):
            texts.append(rng.choice(located))
        found.extend(Referring(text, i, thing.box) for text in texts)
    return tuple(found)


# Forms of captions: templates, where "{2}" stands for object 2 and "{all}" for all of them


def _roll(rng: random.Random, scene: "Scene") -> str:
    """All objects counted and named, on their background."""
    items = [f"{{{i}}}" for i in range(len(scene.objects))]
    rng.shuffle(items)
    start = rng.choice(("", "there are ", "a picture with ", "we see "))
    return _grounded(rng, scene, f"{start}{{all}}: {_listing(items)}")


def _places(rng: random.Random, scene: "Scene") -> str:
    """Each object with its place in the picture."""
    first = rng.random() < 0.3
    items = []
    for i in range(len(scene.objects)):
        down, across = _place(scene, i)
        if down and across:
            upper = {"top": "upper", "bottom": "lower"}[down]
            words = rng.choice((f"at the {down} {across}", f"in the {upper} {across}"))
        elif down:
            words = f"{rng.choice(('at', 'near'))} the {down}"
        else:
            words = f"on the {across}" if across else rng.choice(("in the middle", "in the centre"))
        items.append(f"{words} {{{i}}}" if first else f"{{{i}}} {words}")
    rng.shuffle(items)
    start = "" if first else rng.choice(("", "", "there is ", "you can see ", "a picture of "))
    return start + _listing(items)


def _row(rng: random.Random, scene: "Scene", axis: int) -> str | None:
    """The objects in their order along an axis; None where two of them lie too near to each other on it."""
    order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].centre[axis])
    middles = [scene.objects[i].centre[axis] for i in order]
    if any(b - a < 0.06 * scene.image_size for a, b in pairwise(middles)):
        return None
    start, end = (("left", "right"), ("top", "bottom"))[axis]
    if rng.random() < 0.3:
        order, start, end = order[::-1], end, start
    items = [f"{{{i}}}" for i in order]
    course, listing = f"{start} to {end}", _listing(items)
    steps = f"{course}: {', then '.join(items)}"
    return rng.choice((f"from {course} there is {listing}", f"{listing}, from {course}", steps))


def _chain(rng: random.Random, scene: "Scene") -> str:
    """The objects by where they lie from one another."""

    def relate(i: int, j: int) -> str:
        (x1, y1), (x2, y2) = scene.objects[i].centre, scene.objects[j].centre
        across, down = ("left" if x1 < x2 else "right"), ("above" if y1 < y2 else "below")
        return rng.choice(_RELATIONS[across if abs(x1 - x2) > abs(y1 - y2) else down])

    a, b, *rest = rng.sample(range(len(scene.objects)), len(scene.objects))
    start, verb = rng.choice((("", " is"), ("", " sits"), ("there is ", "")))
    text = f"{start}{{{a}}}{verb} {relate(a, b)} {{{b}}}"
    if len(rest) == 2:
        c, d = rest
        text += f"{rng.choice((' and', ', while'))} {{{c}}} is {relate(c, d)} {{{d}}}"
    elif rest:
        joint, i = rng.choice(((" and", a), (", which is", b)))
        text += f"{joint} {relate(i, rest[0])} {{{rest[0]}}}"
    return text


def _grounded(rng: random.Random, scene: "Scene", template: str) -> str:
    """The form with the tone of the background added."""
    return f"{template}, {rng.choice(('on', 'against'))} a {scene.tone} background"


def _fill(rng: random.Random, scene: "Scene", template: str, share: float) -> Caption:
    """The caption of a template; each object's size and texture are named with the odds `share`."""
    text, phrases = "", []
    for part in re.split(r"(\{\w+\})", template):
        objects: tuple[int, ...] = ()
        if part == "{all}":
            objects = tuple(range(len(scene.objects)))
            part = f"{_NUMBERS[len(objects)]} {rng.choice(_THINGS)}s"
        elif part.startswith("{"):
            objects = (int(part[1:-1]),)
            thing = scene.objects[objects[0]]
            # That an object is plain goes without saying, except where few objects leave little to say.
            obvious = thing.texture == "plain" and len(scene.objects) > 2
            odds = {"size": share, "texture": share * (0.25 if obvious else 1)}
            part = _name(rng, {k: getattr(thing, k) for k in VALUES if rng.random() < odds.get(k, 1)}, "a")
        if objects:
            phrases.append(Phrase(len(text), len(text) + len(part), objects))
        text += part
    return Caption(text, tuple(phrases))


def _listing(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


# Words


def _word(rng: random.Random, value: str) -> str:
    return rng.choice((value, SYNONYMS.get(value, value)))


def _name(rng: random.Random, attributes: dict[str, str], article: str = "") -> str:
    """ "a small red circle": words for the attributes given, in the order of English."""
    words = [_word(rng, attributes[kind]) for kind in VALUES if kind in attributes]
    if "shape" not in attributes:
        words.append(rng.choice(_THINGS))
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join([article, *words] if article else words)


def _group(rng: random.Random, kind: str, value: str) -> str:
    """All objects of one attribute value: "circles", "red shapes"."""
    noun = value if kind == "shape" else f"{_word(rng, value)} {rng.choice(_THINGS)}"
    return noun + ("es" if noun.endswith("s") else "s")


def _alike(scene: "Scene", i: int, without: str = "") -> list[tuple[dict[str, str], set[int]]]:
    """Every choice of attributes of object i but `without`, and the objects that have them all."""
    known = {kind: getattr(scene.objects[i], kind) for kind in VALUES if kind != without}
    having = {k: {j for j, thing in enumerate(scene.objects) if getattr(thing, k) == known[k]} for k in known}
    choices = [kinds for size in range(1, len(known) + 1) for kinds in combinations(known, size)]
    return [({k: known[k] for k in kinds}, set.intersection(*map(having.get, kinds))) for kinds in choices]


def _unique(rng: random.Random, scene: "Scene", i: int, without: str = "") -> dict[str, str] | None:
    """Attributes that object i alone has; None where `without` is what sets it apart."""
    choices = [attributes for attributes, having in _alike(scene, i, without) if len(having) == 1]
    return rng.choice(choices) if choices else None


def _the(rng: random.Random, scene: "Scene", i: int) -> str:
    return _name(rng, _unique(rng, scene, i), "the")


def _located(rng: random.Random, scene: "Scene", i: int) -> list[str]:
    """ "the red shape left of the square", "the leftmost star": attributes that others share, and what sets
    object i apart from those others by a margin."""
    indices = range(len(scene.objects))
    shared = [each for each in _alike(scene, i) if len(each[1]) > 1]
    known, having = rng.choice(shared) if shared else ({}, set(indices))
    others = having - {i}
    found = []
    for relation, words in _RELATIONS.items():
        if all(related(scene, relation, i, k) for k in others):
            found.append(f"the {_EXTREME[relation]} {_name(rng, known)}")
        for j in indices:
            denied = all(k == j or related(scene, _OPPOSITE[relation], k, j) for k in others)
            if j != i and denied and related(scene, relation, i, j):
                found.append(f"{_name(rng, known, 'the')} {rng.choice(words)} {_the(rng, scene, j)}")
    return found


# Facts


def related(scene: "Scene", relation: str, first: int, second: int) -> bool:
    """Whether the first object lies clearly left of (right of, above, below) the second."""
    axis = 0 if relation in ("left", "right") else 1
    gap = scene.objects[second].centre[axis] - scene.objects[first].centre[axis]
    return (gap if relation in ("left", "above") else -gap) > _MARGIN * scene.image_size


def _place(scene: "Scene", i: int) -> tuple[str, str]:
    """("top", "bottom" or "", "left", "right" or ""), empty within the margin of the middle."""
    x, y = (middle / scene.image_size - 0.5 for middle in scene.objects[i].centre)
    down, across = ("top" if y < 0 else "bottom"), ("left" if x < 0 else "right")
    return down if abs(y) > _MARGIN else "", across if abs(x) > _MARGIN else ""


def _counts(scenes: Iterable["Scene"], kind: str) -> dict[str, int]:
    """How often each value of an attribute occurs, in the scenes together."""
    values = [getattr(thing, kind) for scene in scenes for thing in scene.objects]
    return {value: values.count(value) for value in VALUES[kind]}


def _looks(scene: "Scene") -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Colour with shape: those in the scene, and those not in it that share the one or the other with it."""
    seen = {(thing.colour, thing.shape) for thing in scene.objects}
    every = [(colour, shape) for colour in VALUES["colour"] for shape in VALUES["shape"]]
    near = [look for look in every if look not in seen and any(set(look) & set(other) for other in seen)]
    return tuple([{"colour": c, "shape": s} for c, s in looks] for looks in (sorted(seen), near))


def _relation(rng: random.Random, scene: "Scene") -> Iterator[tuple[str, str, str, bool]]:
    """(the one, words of a relation, the other, whether it is so): one of them, or none."""
    relation = rng.choice(tuple(_RELATIONS))
    pairs = list(permutations(range(len(scene.objects)), 2))
    so, not_so = ([p for p in pairs if related(scene, r, *p)] for r in (relation, _OPPOSITE[relation]))
    for (i, j), label in _fork(rng, so, not_so):
        yield _the(rng, scene, i), rng.choice(_RELATIONS[relation]), _the(rng, scene, j), label


def _exactly(rng: random.Random, scenes: list["Scene"], number: int, ending: str) -> Iterator[tuple[str, bool]]:
    """ "there are exactly two circles": one statement, or none."""
    counts = _counts(scenes, kind := rng.choice(tuple(VALUES)))
    other = [value for value in counts if counts[value] not in (0, number)]
    for value, label in _fork(rng, [value for value in counts if counts[value] == number], other):
        verb, noun = ("is", _name(rng, {kind: value})) if number == 1 else ("are", _group(rng, kind, value))
        yield f"there {verb} exactly {_NUMBERS[number]} {noun}{ending}", label


def _fork(rng: random.Random, true: Sequence, false: Sequence) -> Iterator[tuple[Any, bool]]:
    """(a value, whether it is of the true ones) by the toss of a coin: one, or none unless both were possible."""
    if true and false:
        label = rng.random() < 0.5
        yield rng.choice(true if label else false), label
