"""Images with one of their captions each, whose words are also masked."""

from collections.abc import Sequence

from fiber_cli.data.readers import CaptionReader, caption_view, collate
from fiber_cli.data.source import CaptionSource, Source, require
from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData


def training_data(
    sources: Sequence[Source], context: TaskContext[CoarseSettings], options: ReadingOptions
) -> TrainingData:
    """Samples as `CaptionReader` makes them, with masked words."""
    reader = CaptionReader(
        context.tokenizer,
        context.text_length,
        context.model.image_size[0],
        options.augment,
        mlm_probability=context.settings.mlm_probability,
    )
    return TrainingData(caption_view(require(sources, CaptionSource), options.captions), reader, collate)
