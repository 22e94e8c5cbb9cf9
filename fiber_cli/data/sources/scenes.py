"""The built-in scenes as sources of captions, questions, statements, and boxes of categories or of phrases."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from fiber_cli.data.box_edges import box_array
from fiber_cli.data.records import NamedBoxes, PhraseBoxes, Question, Size, Statement
from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.categories import Naming, categories, category_boxes
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import OBJECTS, Scene, check_scenes, scene, variant
from fiber_cli.data.scenes.queries import counted_names, fits, full_names, queries
from fiber_cli.data.scenes.questions import QUESTION_TYPES, questions
from fiber_cli.data.scenes.statements import PAIR_STATEMENT_TYPES, STATEMENT_TYPES, pair_statements, statements
from fiber_cli.data.scenes.words import scene_words
from fiber_cli.data.source import (
    CaptionSource,
    CategorySource,
    ImageSource,
    PhraseSource,
    QuerySource,
    QuestionSource,
    Source,
    StatementSource,
)
from fiber_cli.data.sources.format import Format
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option

Texts = Literal["captions", "queries", "full_names", "counted_names"]
_SAID: Mapping[Texts, Callable[[Scene], tuple[str, ...]]] = {
    "captions": lambda one: tuple(caption.text for caption in captions(one)),
    "queries": lambda one: tuple(query.text for query in queries(one)),
    "full_names": full_names,
    "counted_names": counted_names,
}
#: What `about` can name.
_TYPES = sorted({*QUESTION_TYPES, *STATEMENT_TYPES, *PAIR_STATEMENT_TYPES})


@dataclass(frozen=True)
class ScenesSettings(SourceSettings):
    """Built-in drawn scenes: with captions, questions and statements (`scenes`), with the boxes of their objects and
    category names (`scene_detection`), each with a caption whose phrases have boxes (`scene_grounding`), or each with
    an expression that fits one object (`scene_referring`)."""

    kind: Literal["scenes", "scene_detection", "scene_grounding", "scene_referring"]
    split: Literal["train", "val", "test", "novel"] = option(
        "Scenes of different splits never agree; each of `novel` has a colour with a shape that the others never show "
        "together.",
        "train",
    )
    count: int = option("Number of scenes.", 10_000, ge=1)
    seed: int = option("Another seed draws other scenes.", 0, ge=0)
    image_size: int = option("Side of the drawn image in pixels.", 96, ge=32, le=4096)
    alike: bool = option("Most objects differ from another one of their scene in one attribute only.", False)
    objects: tuple[int, int] = option("The fewest and the most objects of a scene, from 1 to 4.", OBJECTS)
    siblings: int = option(
        "So many scenes in a row, which stay together in training, differ in one attribute of one object: close "
        "negatives.",
        1,
        ge=1,
    )
    pairs: bool = option("Statements are about two scenes, or about one.", True)
    about: tuple[str, ...] = option(
        "Types of questions or statements, where a scene has one of them; where it has none, or nothing is named here, "
        "all that it has.",
        (),
    )
    texts: Texts = option(
        "Captions of all objects and where they lie, short texts as people search with, or the objects by all their "
        "attributes alone, without and with their number.",
        "captions",
    )
    names: Literal["coloured_shapes", "all_levels", "as_typed"] = option(
        "Of detection: 64 names, one an object; all that an object can be called, synonyms too; or these bare, with an "
        "article and in the plural.",
        "coloured_shapes",
    )


class SceneImages(ImageSource):
    """The first `count` scenes of a split; `source[i]` is the scene behind sample i.

    pairs: whether statements are about a scene and its neighbour, or about one scene. Raises `UserError` for
    arguments for which there are no scenes.
    """

    #: Begins the name of the source.
    prefix: ClassVar[str]

    def __init__(
        self,
        split: str,
        count: int,
        seed: int = 0,
        image_size: int = 96,
        alike: bool = False,
        objects: tuple[int, int] = OBJECTS,
        siblings: int = 1,
        pairs: bool = True,
        texts: Texts = "captions",
        names: Naming = "coloured_shapes",
        about: Sequence[str] = (),
    ):
        check_scenes(split, seed, image_size, objects, siblings)
        _check_types(about)
        if not isinstance(count, int) or count < 1:
            raise UserError(f"scenes: count is {count!r}; give the number of scenes of the split, at least 1")
        self.name = f"{self.prefix}-{split}-{seed}{variant(alike, objects, siblings)}"
        self.split = split
        self.count = count
        self.seed = seed
        self.image_size = image_size
        self.alike = alike
        self.objects = objects
        self.siblings = siblings
        self.pairs = pairs
        self.texts = texts
        self.about = tuple(about)
        self.naming = names
        #: Of statements.
        self.images_each = 2 if pairs else 1
        #: Of detection.
        self.names: Sequence[str] = categories(names, split)
        self.several_names = names != "coloured_shapes"

    def total(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Scene:
        if not 0 <= i < self.count:
            raise IndexError(f"{self.name} has scenes 0 to {self.count - 1}, not {i}")
        return scene(self.seed, self.split, int(i), self.image_size, self.alike, self.objects, self.siblings)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Families in random order, the scenes of each side by side."""
        families = rng.permutation(-(-len(self) // self.siblings))
        numbers = families[:, None] * self.siblings + np.arange(self.siblings)
        # The last family may have fewer.
        return numbers[numbers < len(self)]

    def key(self, i: int) -> str:
        return self[i].key

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return draw(self[i])

    def known_size(self, i: int) -> Size | None:
        """See `RegionSource`."""
        return self.image_size, self.image_size


class ScenesSource(SceneImages, CaptionSource, QuerySource, QuestionSource, StatementSource):
    """Scenes with all that is said of each; statements are about a scene and its neighbour, or with `pairs=False`
    about one scene."""

    prefix = "scenes"

    def captions(self, i: int) -> tuple[str, ...]:
        return _SAID[self.texts](self[i])

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str] | None:
        kinds: dict[type[Source], str] = {
            CaptionSource: self.texts,
            QuestionSource: "questions",
            StatementSource: "pair_statements" if self.pairs else "statements",
        }
        if not kinds.keys() >= set(reads):
            return None
        return chain.from_iterable(scene_words(kinds[kind], self.objects) for kind in reads)

    def queries_of(self, numbers: Sequence[int]) -> tuple[list[str], np.ndarray]:
        scenes = [self[i] for i in numbers]
        chosen = []
        for i, one in zip(numbers, scenes, strict=True):
            of_scene = queries(one)
            chosen.append(of_scene[i % len(of_scene)])
        is_true = [[fits(query, one) for one in scenes] for query in chosen]
        return [query.text for query in chosen], np.array(is_true)

    def questions(self, i: int) -> tuple[Question, ...]:
        asked = questions(self[i])
        preferred = tuple(question for question in asked if question.question_type in self.about)
        return preferred or asked

    def statements(self, i: int) -> tuple[Statement, ...]:
        """What is true or false of scene i and its neighbour, or of scene i."""
        made = pair_statements(self[i], self._neighbour(i)) if self.pairs else statements(self[i])
        preferred = tuple(statement for statement in made if statement.statement_type in self.about)
        return preferred or made

    def images(self, i: int, at_least: int = 0) -> tuple[Image.Image, ...]:
        """The pictures that `statements` speak of."""
        if self.pairs:
            return draw(self[i]), draw(self._neighbour(i))
        return (draw(self[i]),)

    def _neighbour(self, i: int) -> Scene:
        return self[(i + 1) % self.count]


class SceneDetection(SceneImages, CategorySource):
    """Built-in scenes with the names of each object."""

    prefix = "scene-detection"

    @cached_property
    def _label_of(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.names)}

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return self.names

    def regions(self, i: int) -> NamedBoxes:
        labels = []
        boxes = []
        for name, box in category_boxes(self[i], self.naming):
            labels.append(self._label_of[name])
            boxes.append(box)
        return NamedBoxes(box_array(boxes), np.array(labels, np.int64), (self.image_size, self.image_size))


class SceneGrounding(SceneImages, PhraseSource):
    """Built-in scenes, each with one of its captions; the boxes of objects that it speaks of."""

    prefix = "scene-grounding"
    refers = False

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return scene_words("captions", self.objects)

    def regions(self, i: int) -> PhraseBoxes:
        objects = self[i].objects
        all_captions = captions(self[i])
        caption = all_captions[i % len(all_captions)]
        spans_of = caption.spans_of_objects()
        spans = [spans_of.get(number, []) for number in range(len(objects))]
        boxes = box_array([thing.box for thing in objects])
        return PhraseBoxes(caption.text, boxes, spans, (self.image_size, self.image_size))


class SceneReferring(SceneImages, PhraseSource):
    """Built-in scenes, each with one expression that fits one of its objects."""

    prefix = "scene-referring"
    refers = True

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return scene_words("expressions", self.objects)

    def regions(self, i: int) -> PhraseBoxes:
        all_expressions = expressions(self[i])
        text, _, box = all_expressions[i % len(all_expressions)]
        return PhraseBoxes(text, box_array(box), [[(0, len(text))]], (self.image_size, self.image_size))


def _check_types(about: Sequence[str]) -> None:
    for name in about:
        if name not in _TYPES:
            raise UserError(f"scenes: about names {name!r:.40}; types of questions and statements: {', '.join(_TYPES)}")


SCENES = Format(kind="scenes", settings=ScenesSettings, source=ScenesSource)
SCENE_DETECTION = Format(kind="scene_detection", settings=ScenesSettings, source=SceneDetection)
SCENE_GROUNDING = Format(kind="scene_grounding", settings=ScenesSettings, source=SceneGrounding)
SCENE_REFERRING = Format(kind="scene_referring", settings=ScenesSettings, source=SceneReferring)
