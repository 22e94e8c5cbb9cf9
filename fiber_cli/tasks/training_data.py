"""What a task makes of its sources for training; a task's `data.training_data` gives it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fiber_cli.data.readers import Batch, PictureSize, Reader, Sample
from fiber_cli.data.source import Source
from fiber_cli.tasks.context import TaskContext


@dataclass(frozen=True)
class ReadingOptions:
    """How a recipe's `data` section has images and captions read: augment "none" or "randaugment"; captions "random",
    one of an image in an epoch, or "each"."""

    augment: str
    captions: str


@dataclass(frozen=True)
class TrainingData:
    """sources: what an epoch goes through. labels: what the task tells apart, None where it has no labels.
    dropped: what the entries are that the sources leave out, in words; they are counted in `Source.dropped`. remark:
    lines about how the data are gone through. picture_size: where the micro-batches of a step are to be of like
    shapes."""

    sources: Sequence[Source]
    reader: Reader
    collate: Callable[[list[Sample]], Batch]
    labels: tuple[str, ...] | None = None
    dropped: str | None = None
    remark: str | None = None
    picture_size: PictureSize | None = None

    @property
    def notice(self) -> str | None:
        """A line about entries that are not trained on."""
        if self.dropped is None:
            return None
        count = sum(source.dropped for source in self.sources)
        return f"{count} {self.dropped} are not trained on" if count else None


class MakeTrainingData(Protocol):
    """Raises UserError for sources that the task cannot be trained on. The context has no labels yet."""

    def __call__(
        self, sources: Sequence[Source], context: TaskContext[Any], options: ReadingOptions
    ) -> TrainingData: ...
