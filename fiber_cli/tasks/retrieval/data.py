"""Images with one of their captions each."""

from collections.abc import Sequence

from fiber_cli.data.readers import CaptionReader, caption_view, collate
from fiber_cli.data.source import CaptionSource, Source, require
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.retrieval.settings import RetrievalSettings
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData


def training_data(
    sources: Sequence[Source], context: TaskContext[RetrievalSettings], options: ReadingOptions
) -> TrainingData:
    """Samples as `CaptionReader` makes them."""
    image_size, _ = context.model.image_size
    reader = CaptionReader(context.tokenizer, context.text_length, image_size, options.augment)
    return TrainingData(caption_view(require(sources, CaptionSource), options.captions), reader, collate)
