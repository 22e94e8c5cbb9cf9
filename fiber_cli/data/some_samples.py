"""A source with some of its samples only, of whatever format it is."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from fiber_cli.data.records import NamedBoxes, Question
from fiber_cli.data.source import (
    BadSample,
    CaptionSource,
    CategorySource,
    PhraseSource,
    QuestionSource,
    RegionSource,
    Source,
    SourceType,
    StatementSource,
)

_ABSENT = object()


def some_samples(source: SourceType, samples: Sequence[int]) -> SourceType:
    """The source with these of its samples, in their order: an object of a subclass of its own class, so that it is of
    all types that the source is of. Every method that is asked of one sample, which are those whose first argument is
    called `i`, is asked of the sample that then has that number."""
    if isinstance(source, _SomeSamples):
        view: SourceType = some_samples(source._whole, source._samples[list(samples)].tolist())
        view.__dict__.update(source.changed())
        return view
    first: SourceType = _view_of(type(source))(source, samples)
    return first


class _SomeSamples(Source):
    """What is not of one sample. `_whole`: the source, `_samples`: its numbers of the samples that are left."""

    def __init__(self, whole: Any, samples: Sequence[int]):
        self.__dict__.update(whole.__dict__)  # names, settings, what was left out of the files
        self._whole = whole
        self._samples = np.asarray(samples, np.int64)
        if isinstance(whole, RegionSource):
            self.trained_boxes, self.wordless_boxes = None, 0  # would need every sample's boxes

    def changed(self) -> dict[str, Any]:
        """The attributes that are not as the whole source has them."""
        changed = {}
        for name, value in self.__dict__.items():
            is_own = name in ("_whole", "_samples")
            if not is_own and self._whole.__dict__.get(name, _ABSENT) is not value:
                changed[name] = value
        return changed

    def __reduce__(self) -> tuple[Any, ...]:
        return some_samples, (self._whole, self._samples), self.changed()

    def total(self) -> int:
        return len(self._samples)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        if type(self._whole).order is Source.order:
            return rng.permutation(len(self))
        number_of = np.full(len(self._whole), -1)
        number_of[self._samples] = np.arange(len(self._samples))
        ordered = number_of[self._whole.order(rng)]
        return ordered[(ordered >= 0) & (ordered < len(self))]

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str] | None:
        whole: Iterable[str] | None = self._whole.all_texts(reads)
        if whole is None or isinstance(self._whole, CategorySource):
            return whole  # names of categories stay, whichever pictures do
        return self._texts(reads)

    def _texts(self, reads: tuple[type[Source], ...]) -> Iterator[str]:
        for i in range(self.total()):
            yield from _texts_of(self, i, reads)

    def answerable(self, has_answer: Callable[[Question], bool]) -> Any:
        rest = self._whole.answerable(has_answer)
        if rest is self._whole:
            return self
        kept = {self.key(i) for i in range(self.total())}
        samples = [i for i in range(len(rest)) if rest.key(i) in kept]
        view = some_samples(rest, samples)
        view.dropped = self.total() - len(samples)
        return view

    def queries_of(self, numbers: Sequence[int]) -> tuple[list[str], np.ndarray]:
        """See `QuerySource`."""
        queries: tuple[list[str], np.ndarray] = self._whole.queries_of(self._samples[list(numbers)].tolist())
        return queries

    def truth(self) -> dict[str, Any] | None:
        """See `CategorySource`; of the pictures that are left."""
        truth: dict[str, Any] | None = self._whole.truth()
        if truth is None:
            return None
        whole: Any = self._whole
        left = {whole.image_id(i) for i in self._samples.tolist()}
        images = [image for image in truth["images"] if image["id"] in left]
        annotations = [each for each in truth["annotations"] if each["image_id"] in left]
        return truth | {"images": images, "annotations": annotations}


@cache
def _view_of(kind: type[Source]) -> Callable[..., Any]:
    """The class of the views of sources of a class."""
    methods = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        arguments = list(inspect.signature(method).parameters)
        if arguments[1:2] == ["i"]:
            methods[name] = _of_whole(name)
    return type(f"Some{kind.__name__}", (_SomeSamples, kind), methods)


def _of_whole(name: str) -> Callable[..., Any]:
    """A method of one sample that is asked of the whole source."""

    def method(self: Any, i: int, *arguments: Any, **named: Any) -> Any:
        return getattr(self._whole, name)(int(self._samples[i]), *arguments, **named)

    return method


def _texts_of(source: Any, i: int, reads: tuple[type[Source], ...]) -> Iterator[str]:
    """The texts of one sample for a task that reads these types, none where they cannot be read."""

    def has(kind: type[Source]) -> bool:
        return isinstance(source, kind) and any(issubclass(kind, wanted) for wanted in reads)

    with suppress(BadSample):
        if has(CaptionSource):
            yield from source.captions(i)
        if has(QuestionSource):
            yield from (question.text for question in source.questions(i))
        if has(StatementSource):
            yield from (statement.text for statement in source.statements(i))
        if has(PhraseSource):
            regions = source.regions(i)
            if not isinstance(regions, NamedBoxes):
                yield regions.caption
