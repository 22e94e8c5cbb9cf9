"""Images with one of their captions each, whose words are also masked."""

from collections.abc import Sequence
from functools import partial

from fiber_cli.data.readers import Batch, CaptionReader, Sample, caption_view, collate
from fiber_cli.data.source import CaptionSource, Source, require
from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.token_losses import labelled_positions
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
    collate_batch = partial(collate_masked, pairs=context.settings.mlm_pairs)
    return TrainingData(caption_view(require(sources, CaptionSource), options.captions), reader, collate_batch)


def collate_masked(samples: Sequence[Sample], pairs: int | None) -> Batch:
    """As `collate`, and `mlm_positions`: see `labelled_positions`, of the first so many pairs, None = all."""
    batch = collate(samples)
    batch["mlm_positions"] = labelled_positions(batch["mlm_labels"][:pairs])
    return batch
