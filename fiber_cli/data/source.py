"""What a source of samples can yield, as types: a task asks for what it reads, whatever the files look like.

This module loads neither numpy nor torch: the settings of a recipe are checked against these types.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from fiber_cli.data.records import NamedBoxes, Phrase, Question, Regions, Size, Statement
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fiber_cli.data.records import PhraseBoxes
    from fiber_cli.settings import SourceSettings

#: The limit at which Pillow suspects a decompression bomb: 89 megapixels are 256 MB of RGB.
MAX_PIXELS = 89_478_485

Item = TypeVar("Item")
Value = TypeVar("Value")
SourceType = TypeVar("SourceType", bound="Source")


class BadSample(Exception):
    """One image or text that cannot be used. The reason is shown to the user; the run goes on without it."""


class Source(ABC):
    """Samples by number. Objects must pickle, because worker processes get copies.

    max_pixels: images with more are bad samples. excluded: how many samples the entry's `exclude` leaves out. dropped:
    how many entries of the files are not used. left_out: (place, reason) of the records of the files that cannot be
    read.
    """

    #: What the samples are, in words.
    yields: ClassVar[str] = "samples"
    name: str
    max_pixels: int = MAX_PIXELS
    dropped: int = 0
    excluded: int = 0
    left_out: Sequence[tuple[str, str]] = ()

    #: The entry of the recipe that it was opened by, None for one that was made otherwise.
    settings: "SourceSettings | None" = None
    #: No more samples than that are used, None for all.
    limit: int | None = None

    @abstractmethod
    def total(self) -> int:
        """How many samples there are."""

    def __len__(self) -> int:
        return self.total() if self.limit is None else min(self.limit, self.total())

    def order(self, rng: "np.random.Generator") -> "np.ndarray":
        """A permutation of `range(len(self))`; neighbours may share a file, so that reading stays local."""
        return rng.permutation(len(self))

    @abstractmethod
    def key(self, i: int) -> str:
        """The sample's id, unique within the source."""

    def image_names(self, i: int) -> Iterable[str]:
        """The names under which lists of images may have those of sample i, see `image_names`."""
        return (self.key(i),)

    def all_texts(self, reads: "tuple[type[Source], ...]") -> Iterable[str] | None:
        """Texts with all words that the samples have for a task that reads these types of source, in any order and
        number; None where that is not known without reading the samples one by one."""
        return None

    def first(self, count: int) -> Self:
        """The source with its first `count` samples only."""
        head = copy.copy(self)
        head.limit = count
        return head


class ImageSource(Source):
    """Samples with one image each."""

    yields = "images"

    @abstractmethod
    def image(self, i: int, at_least: int = 0) -> "Image.Image":
        """The picture in RGB; `at_least` > 0 allows to decode it smaller and faster while both sides stay at least that
        many pixels. Raises `BadSample` where it cannot be read."""

    def encoded_image(self, i: int) -> bytes:
        """The picture as its file has it; of a source that makes its pictures, as PNG. Raises `BadSample`."""
        content = BytesIO()
        self.image(i).save(content, "PNG")
        return content.getvalue()


class CaptionSource(ImageSource):
    """Images with captions."""

    yields = "captions"

    @abstractmethod
    def captions(self, i: int) -> tuple[str, ...]:
        """The image's captions, possibly none; raises `BadSample` where they cannot be read."""

    def caption_count(self, i: int) -> int:
        """How many captions an image has; 0 where they cannot be read."""
        return len(readable_captions(self, i))

    def references(self, i: int) -> tuple[str, ...]:
        """All captions of the image of sample i, also where the sample is one of them; raises `BadSample`."""
        return self.captions(i)

    def image_id(self, i: int) -> int | str:
        """The community's name of the image, in the files that it submits."""
        return self.key(i)

    def domain(self, i: int) -> str | None:
        """The part of the data set, scored also alone, that the image belongs to."""
        return None


class QuerySource(ImageSource):
    """Images of which is known which short texts, as people search with, are true of them."""

    yields = "queries"

    @abstractmethod
    def queries_of(self, numbers: Sequence[int]) -> "tuple[list[str], np.ndarray]":
        """A query that is true of each of these images, and bool (queries, images): which of them it is true of."""


class QuestionSource(ImageSource):
    """Images with questions."""

    yields = "questions"

    @abstractmethod
    def questions(self, i: int) -> tuple[Question, ...]:
        """What is asked about the image of sample i."""

    def answerable(self, has_answer: Callable[[Question], bool]) -> "QuestionSource":
        """The source as it is trained on: without the samples that have no question for which `has_answer` holds; they
        are counted in `dropped`. A source that makes its questions as it goes stays whole. Raises `UserError` where
        none is left."""
        return self


class StatementSource(Source):
    """Statements about one image or two. images_each: how many a statement is about."""

    yields = "statements"
    images_each: int

    @abstractmethod
    def statements(self, i: int) -> tuple[Statement, ...]:
        """What is said, truly or falsely, of the images of sample i."""

    @abstractmethod
    def images(self, i: int, at_least: int = 0) -> "tuple[Image.Image, ...]":
        """The one picture, or the left and the right one; `at_least`: see `ImageSource.image`."""


class RegionSource(ImageSource):
    """Images with boxes: of categories, or of phrases of a caption.

    annotated: whether the files have annotations at all. trained_boxes: how many boxes are trained on, None where that
    is not known before; wordless_boxes: how many of these have no words of their caption. dropped: how many boxes have
    no area inside their image, or are at most a pixel wide or high; scored_all_the_same: how many of these are of the
    second kind, and in the truth, because reference tools score them.
    """

    yields = "boxes"
    annotated: bool = True
    trained_boxes: int | None = None
    wordless_boxes: int = 0
    scored_all_the_same: int = 0

    @abstractmethod
    def regions(self, i: int) -> Regions:
        """The boxes of sample i; raises `BadSample`."""

    def known_size(self, i: int) -> Size | None:
        """(height, width) of the picture of sample i, None where no file would tell but the sample's own."""
        return None


class CategorySource(RegionSource):
    """Images with boxes of categories.

    names: the categories' names by label, empty where a file has none. prompts: how prompts show the names of some, see
    `tasks.regions.prompts.prompt_names`. federated: whether the images have LVIS's lists of what was looked for.
    """

    yields = "boxes with names"
    names: Sequence[str] = ()
    prompts: Mapping[str, Mapping[str, str]] | None = None
    federated: bool = False
    several_names: bool = False

    @property
    def category_ids(self) -> Sequence[int]:
        """The data set's own ids of the categories, in the order of `names`."""
        return range(len(self.names))

    def image_id(self, i: int) -> int:
        """The data set's own id of the image; several samples may have one image."""
        return i

    def truth(self) -> dict[str, Any] | None:
        """What is scored, in COCO's form: `images`, `categories`, and `annotations` with `bbox`, `area`, `iscrowd` and
        `ignore`, crowds included; None where the source's files are of another form than COCO's."""
        return None


class PhraseSource(RegionSource):
    """Images with a caption each whose phrases have boxes.

    refers: whether the captions are expressions for one box each; None: as the task has it. doubts: what speaks against
    that in the files, in words.
    """

    yields = "phrases with boxes"
    refers: bool | None = None
    doubts: Sequence[str] = ()

    def phrases(self, i: int) -> tuple[str, list[Phrase]]:
        """The caption and its phrases with boxes, those of a data set's own protocol where it has one; by default
        every span with the boxes that have it."""
        regions = self.regions(i)
        if isinstance(regions, NamedBoxes):
            raise BadSample("has boxes of categories, but no caption with phrases")
        return regions.caption, phrases_of_spans(regions)


def phrases_of_spans(regions: "PhraseBoxes") -> list[Phrase]:
    """Every span of a caption with the boxes that have it, in the order of the spans; boxes without an area inside
    their image, which nothing can find, are left out."""
    import numpy as np

    from fiber_cli.data.box_edges import has_area_inside

    boxes_of: dict[tuple[int, int], list[np.ndarray]] = {}
    has_area = has_area_inside(regions.boxes, regions.size)
    for box, spans, is_box in zip(regions.boxes, regions.spans, has_area, strict=True):
        if not is_box:
            continue
        for start, end in spans:
            boxes_of.setdefault((start, end), []).append(box)
    return [Phrase(span, np.array(boxes_of[span], np.float32).reshape(-1, 4)) for span in sorted(boxes_of)]


def require(sources: Iterable[Source], kind: type[SourceType], where: str = "data.train") -> list[SourceType]:
    """The sources as what they must be; `UserError` for one that does not yield what `kind` does."""
    fitting = []
    for source in sources:
        if not isinstance(source, kind):
            raise UserError(f"{where}: {source.name} has no {kind.yields}; name a source that has them")
        fitting.append(source)
    return fitting


def sample_id(source: Source, i: int) -> str:
    """The name under which logs and results speak of a sample: `source/key`."""
    return f"{source.name}/{source.key(i)}"


def usable(
    items: Iterable[Item], read: Callable[[Item], Value], name: Callable[[Item], str]
) -> tuple[list[Item], list[Value], list[tuple[str, str]]]:
    """The items that `read` can use, what it makes of them, and (name, reason) of those for which it raises
    `BadSample`."""
    kept: list[Item] = []
    values: list[Value] = []
    bad: list[tuple[str, str]] = []
    for item in items:
        try:
            values.append(read(item))
            kept.append(item)
        except BadSample as error:
            bad.append((name(item), str(error)))
    return kept, values, bad


def some_captions(source: CaptionSource, i: int) -> tuple[str, ...]:
    """The image's captions, at least one; raises `BadSample`."""
    captions = source.captions(i)
    if not captions:
        raise BadSample("no caption")
    return captions


def readable_captions(source: CaptionSource, i: int) -> tuple[str, ...]:
    """The image's captions, none where they cannot be read."""
    try:
        return source.captions(i)
    except BadSample:
        return ()
