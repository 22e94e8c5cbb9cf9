"""Images with one of their captions each, and for CIDEr optimisation with all of them."""

from collections.abc import Sequence
from functools import partial

from fiber_cli.data.readers import Batch, CaptionReader, Sample, caption_view, collate
from fiber_cli.data.source import CaptionSource, Source, require, sample_id, usable
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs
from fiber_cli.tasks.caption.cider import document_frequency, wrap, write_document_frequency
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.token_losses import labelled_positions, next_tokens
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData

ONE_CAPTION_AN_IMAGE = (
    "CIDEr optimisation: an epoch shows each image once, with one of its captions (data.captions=random); as published "
    "it shows every image-caption pair (data.captions=each)"
)


def training_data(
    sources: Sequence[Source], context: TaskContext[CaptionSettings], options: ReadingOptions
) -> TrainingData:
    """Samples as `CaptionReader` makes them."""
    image_size, _ = context.model.image_size
    is_cider = context.settings.objective == "cider"
    reader = CaptionReader(
        context.tokenizer,
        context.text_length,
        image_size,
        options.augment,
        references=is_cider,
    )
    view = caption_view(require(sources, CaptionSource), options.captions)
    remark = ONE_CAPTION_AN_IMAGE if is_cider and options.captions == "random" else None
    collate_labelled = partial(_collate_labelled, pad_id=context.tokenizer.pad_token_id)
    return TrainingData(view, reader, collate_labelled, remark=remark)


def _collate_labelled(samples: Sequence[Sample], pad_id: int) -> Batch:
    """As `collate`, and `label_positions`: see `labelled_positions`, of every token that follows another."""
    batch = collate(samples)
    batch["label_positions"] = labelled_positions(next_tokens(batch["ids"], pad_id))
    return batch


def count_document_frequencies(sources: Sequence[Source], output: str, outputs: Outputs | None = None) -> str:
    """Write the table of CIDEr optimisation over all captions of the sources; returns what was done, in words.
    UserError for fewer than two images, because every word would weigh nothing, and where it may not be written."""
    samples: list[tuple[CaptionSource, int]] = []
    for source in require(sources, CaptionSource):
        samples.extend((source, i) for i in range(len(source)))
    _, captions, bad = usable(samples, _captions, _name)
    if len(captions) < 2:
        raise UserError(
            f"{output}: not written, because CIDEr weighs a word by how few images have it, and captions of "
            f"{len(captions)} images were read; name data with more"
        )
    references = [[wrap(text) for text in of_image] for of_image in captions]
    write_document_frequency(output, document_frequency(references), outputs)
    left_out = f", {len(bad)} left out" if bad else ""
    return f"{output}: n-grams of the captions of {len(captions)} images{left_out}"


def _captions(sample: tuple[CaptionSource, int]) -> tuple[str, ...]:
    source, i = sample
    return source.captions(i)


def _name(sample: tuple[CaptionSource, int]) -> str:
    return sample_id(*sample)
