"""The words of the texts that a run trains on, and of those that the checkpoint was trained on that it begins with."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from fiber_cli.checkpoints.config import read_config
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.loading import knows_small_letters
from fiber_cli.checkpoints.words import read_words
from fiber_cli.data.source import CaptionSource, PhraseSource, QuestionSource, RegionSource, Source, StatementSource
from fiber_cli.data.words import MOST, words_in
from fiber_cli.tasks.declaration import TaskDeclaration
from fiber_cli.tasks.training_data import TrainingData

#: What sources know the texts of.
_KNOWN: tuple[type[Source], ...] = (CaptionSource, QuestionSource, StatementSource, RegionSource)
#: A caption is read with its sides exchanged where its picture is mirrored.
_SIDES = ("left", "right")


def words_of_training(
    data: TrainingData, declaration: TaskDeclaration, init_from: str | Path | None
) -> frozenset[str] | None:
    """The words of all captions, names, phrases, questions or statements of the sources, of the labels that the task
    tells apart, and of the checkpoint to begin with; None where one of these is not known, or there are too many."""
    words = _words_of_sources(data, declaration)
    if words is None or init_from is None:
        return words
    before = read_words(resolve(init_from))
    if before is None or len(words | before) > MOST:
        return None
    return words | before


def small_letters_alone(data: TrainingData, declaration: TaskDeclaration, init_from: str | Path | None) -> bool:
    """Whether no text of the sources, and none that the checkpoint to begin with was trained on, has a capital; False
    where that is not known."""
    if init_from is not None:
        before = resolve(init_from)
        if not knows_small_letters(before, read_config(before)):
            return False
    texts = _texts_of_sources(data, declaration)
    return texts is not None and all(text == text.lower() for text in texts)


def _words_of_sources(data: TrainingData, declaration: TaskDeclaration) -> frozenset[str] | None:
    texts = _texts_of_sources(data, declaration)
    words = None if texts is None else words_in(texts)
    if words is None or not any(isinstance(source, PhraseSource) for source in data.sources):
        return words
    return words.union(_mirrored(words))


def _texts_of_sources(data: TrainingData, declaration: TaskDeclaration) -> Iterable[str] | None:
    """All texts of the sources, and the labels; None where a source does not know its own."""
    if not set(_KNOWN).issuperset(declaration.reads):
        return None  # a contributed task reads something else of its sources
    of_sources = [source.all_texts(declaration.reads) for source in data.sources]
    known = [texts for texts in of_sources if texts is not None]
    if len(known) < len(of_sources):
        return None
    return chain(data.labels or (), *known)


def _mirrored(words: frozenset[str]) -> Iterator[str]:
    """ "rightmost" for "leftmost"."""
    for one, other in (_SIDES, _SIDES[::-1]):
        for word in words:
            if word.startswith(one):
                yield other + word.removeprefix(one)
