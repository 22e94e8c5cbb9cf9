"""Flickr30k Entities: sentences of Flickr30k whose phrases have boxes."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from fiber_cli.data.box_edges import box_array, has_area_inside, inclusive
from fiber_cli.data.columns import Sizes, Texts
from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.ragged import Ragged
from fiber_cli.data.records import Phrase, PhraseBoxes, Size, Span
from fiber_cli.data.source import BadSample, PhraseSource, Source
from fiber_cli.data.sources.format import Format
from fiber_cli.regular_files import read_regular
from fiber_cli.settings import SourceSettings, option
from fiber_cli.text_files import NotText, decode_text, lines_of

_MARKED = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+) ([^\]]*)\]")


@dataclass(frozen=True)
class FlickrEntitiesSettings(SourceSettings):
    """Flickr30k Entities."""

    kind: Literal["flickr_entities"]
    folder: str = option("Holds Sentences/, Annotations/ and the lists of the splits.", path=True)
    images: str = option("Folder with the images.", path=True)
    split: Literal["train", "val", "test"] = option("Its list of pictures.", "train")


class Entity(NamedTuple):
    """A marked phrase of a sentence: its id, its types, and its span in the plain text."""

    identifier: str
    types: tuple[str, ...]
    span: Span


class _Sentence(NamedTuple):
    picture: str
    number: int
    text: str
    phrases: list[Phrase]
    size: Size


class _Picture(NamedTuple):
    """The sentences of a picture, and how many of its boxes have no area in it, and how many are of a pixel's width or
    height."""

    sentences: list[_Sentence]
    without_area: int
    thin: int


class FlickrEntitiesSource(FolderSource, PhraseSource):
    """One entry for each sentence of which a phrase has a box; the other phrases are skipped.

    folder: holds Sentences/, Annotations/ and the lists train.txt, val.txt and test.txt; images: holds <id>.jpg.
    """

    refers = False

    def __init__(self, folder: str | Path, images: str | Path, split: str = "train"):
        pictures = Path(folder, f"{split}.txt")
        records = FileRecords(pictures, f"a list of pictures of Flickr30k Entities, whose folder {folder} is to be")
        reader = _PictureReader(Path(folder), pictures)
        sentences: list[_Sentence] = []
        for _, picture in records.lines(reader.read):
            sentences.extend(picture.sentences)
            self.dropped += picture.without_area + picture.thin
            self.scored_all_the_same += picture.thin
        self.left_out = records.left_out
        self._captions = Texts(sentence.text for sentence in sentences)
        self._sizes = Sizes(sentence.size for sentence in sentences)
        # Of each phrase: where it stands, and how many of the sentence's boxes, which follow one another, are its own.
        self._spans = Ragged((_counted_spans(sentence) for sentence in sentences), (3,), np.int32)
        self._boxes = Ragged((_all_boxes(sentence) for sentence in sentences), (4,), np.float32)
        self._types = Texts(_all_types(sentence) for sentence in sentences)
        files = [f"{sentence.picture}.jpg" for sentence in sentences]
        keys = [f"{sentence.picture}#{sentence.number}" for sentence in sentences]
        super().__init__(f"flickr30k-entities:{split}", images, files, keys)

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        folder = Path(arguments["folder"])
        yield folder / f"{arguments.get('split', 'train')}.txt"
        for name, ending in (("Annotations", "*.xml"), ("Sentences", "*.txt")):
            yield from sorted((folder / name).glob(ending))

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return self._captions

    def phrases(self, i: int) -> tuple[str, list[Phrase]]:
        boxes = self._boxes[i]
        phrases = []
        first = 0
        for (start, end, count), types in zip(self._spans[i].tolist(), self._types[i].split(), strict=True):
            phrases.append(Phrase((start, end), boxes[first : first + count], tuple(types.split("/"))))
            first += count
        return self._captions[i], phrases

    def regions(self, i: int) -> PhraseBoxes:
        """A box that several phrases speak of comes once, with the spans of all of them."""
        text, phrases = self.phrases(i)
        spans_of: dict[tuple[float, ...], list[Span]] = {}
        for phrase in phrases:
            for x1, y1, x2, y2 in phrase.boxes.tolist():
                spans_of.setdefault((x1, y1, x2 + 1, y2 + 1), []).append(phrase.span)
        return PhraseBoxes(text, box_array(list(spans_of)), list(spans_of.values()), self._sizes[i])

    def known_size(self, i: int) -> Size | None:
        return self._sizes[i]


FLICKR_ENTITIES = Format(kind="flickr_entities", settings=FlickrEntitiesSettings, source=FlickrEntitiesSource)


def _counted_spans(sentence: _Sentence) -> list[tuple[int, int, int]]:
    return [(*phrase.span, len(phrase.boxes)) for phrase in sentence.phrases]


def _all_boxes(sentence: _Sentence) -> np.ndarray:
    """Those of all phrases, one behind the other."""
    return np.concatenate([phrase.boxes for phrase in sentence.phrases])


def _all_types(sentence: _Sentence) -> str:
    """The types of a phrase, none of which holds a space or a slash, as a word."""
    return " ".join("/".join(phrase.types) for phrase in sentence.phrases)


class _PictureReader:
    """Reads the sentences of a picture of which a phrase has a box with an area inside it."""

    def __init__(self, folder: Path, split: Path):
        self.folder = folder
        self.ids = Once(split, "the picture", "the list")

    def read(self, line: bytes) -> _Picture:
        picture = decode_text(line).strip()
        try:
            size, boxes = entity_boxes(read_regular(self.folder / "Annotations" / f"{picture}.xml"))
            sentences = decode_text(read_regular(self.folder / "Sentences" / f"{picture}.txt"))
        except OSError as error:
            raise BadSample(f"{error.filename}: {error.strerror}") from None
        except NotText as error:
            raise BadSample(f"{picture}.txt: {error}") from None
        except ElementTree.ParseError as error:
            raise BadSample(f"{picture}.xml: not of Flickr30k Entities' form: {error}") from None
        each_once = box_array(sorted({tuple(box) for of_entity in boxes.values() for box in of_entity.tolist()}))
        has_area = _has_area(each_once, size)
        _, is_trained = inclusive(_edges(each_once), size)
        scored = {entity: own[_has_area(own, size)] for entity, own in boxes.items()}
        with_boxes = list(_with_boxes(picture, lines_of(sentences), size, scored))
        self.ids.add(picture)
        return _Picture(with_boxes, int((~has_area).sum()), int((has_area & ~is_trained).sum()))


def _edges(boxes: np.ndarray) -> np.ndarray:
    """First and last pixels (n, 4) to edges."""
    return boxes + np.array([0, 0, 1, 1], boxes.dtype)


def _has_area(boxes: np.ndarray, size: Size) -> np.ndarray:
    """bool (n,): which boxes of first and last pixels have an area inside their picture."""
    return has_area_inside(_edges(boxes), size)


def _with_boxes(picture: str, lines: list[str], size: Size, boxes: dict[str, np.ndarray]) -> Iterator[_Sentence]:
    """The sentences of a picture of which a phrase has a box."""
    for number, line in enumerate(lines):
        text, entities = parse_entities(line)
        phrases = []
        for entity in entities:
            if len(boxes.get(entity.identifier, ())):
                phrases.append(Phrase(entity.span, boxes[entity.identifier], entity.types))
        if phrases:
            yield _Sentence(picture, number, text, phrases, size)


def parse_entities(sentence: str) -> tuple[str, list[Entity]]:
    """A sentence of Flickr30k Entities to its plain text and its marked phrases."""
    text = ""
    entities = []
    position = 0
    for match in _MARKED.finditer(sentence):
        identifier, types, phrase = match.groups()
        text += sentence[position : match.start()]
        span = len(text), len(text) + len(phrase)
        entities.append(Entity(identifier, tuple(types[1:].split("/")), span))
        text += phrase
        position = match.end()
    return text + sentence[position:], entities


def entity_boxes(xml: str | bytes) -> tuple[Size, dict[str, np.ndarray]]:
    """Picture size and the boxes of each id, (m, 4), first and last pixels counted from 0.

    Raises ElementTree.ParseError, TypeError or ValueError for a text of another form.
    """
    root = ElementTree.fromstring(xml)
    corners_of: dict[str, list[list[int]]] = {}
    for thing in root.iter("object"):
        names = [str(name.text) for name in thing.iter("name")]
        for box in thing.iter("bndbox"):
            corners = [_number(box, side) - 1 for side in ("xmin", "ymin", "xmax", "ymax")]
            for name in names:
                corners_of.setdefault(name, []).append(corners)
    size = _number(root, "size/height"), _number(root, "size/width")
    if min(size) < 1:
        raise ValueError(f"height and width must be positive, they are {size[0]} and {size[1]}")
    return size, {name: box_array(corners) for name, corners in corners_of.items()}


def _number(element: ElementTree.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"{element.tag} has no {path}")
    return int(text)
