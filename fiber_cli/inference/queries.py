"""What pictures are searched for, in a user's words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fiber_cli.characters import says_nothing
from fiber_cli.data import phrases as sentence_phrases
from fiber_cli.data.records import Span
from fiber_cli.data.text import check_encoded
from fiber_cli.errors import UserError
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, label_prompts
from fiber_cli.tasks.regions.prompts import (
    EncodedPrompt,
    Prompt,
    PromptName,
    distinct_labels,
    encode_prompt,
    parse_prompt,
)
from fiber_cli.tasks.regions.settings import RegionSettings
from fiber_cli.tasks.regions.transforms import RegionTransform
from fiber_cli.text_files import lines_of, read_text

NO_BOXES = np.empty((0, 4), np.float32)


class Query(NamedTuple):
    """Labels or phrases in the user's words, and the prompts that name them all, one after another."""

    names: list[str]
    prompts: list[EncodedPrompt]


def detector_settings(context: TaskContext[Any]) -> RegionSettings:
    """The settings of a task that is able to detect."""
    settings = context.settings
    assert isinstance(settings, RegionSettings)
    return settings


def prompted(pictures: Sequence[Image.Image], query: Query, context: TaskContext[Any]) -> dict[str, torch.Tensor]:
    """RGB pictures, each asked all prompts of the query, as the batch of `Detecting.predict`, on the CPU."""
    settings = detector_settings(context)
    transform = RegionTransform(settings.short_sides[-1:], settings.longest_side, flip=0)
    pixels = []
    sizes = []
    for picture in pictures:
        resized, _, _ = transform(picture, NO_BOXES)
        pixels.append(resized)
        sizes.append(torch.tensor([picture.height, picture.width]))
    return PromptBatch.all_pairs(query.prompts, len(pictures)).with_images(pixels, sizes)


def label_query(context: TaskContext[Any], labels: str | Sequence[str], chunk: int | str = "auto") -> Query:
    """Labels for a checkpoint's detector: names, or one text such as "cat . traffic light", see `parse_prompt`. chunk:
    at most so many in a prompt, or "auto". UserError for labels that are empty, given twice, or too long for the model.

    A label is asked as the user typed it, parentheses and all, whatever the checkpoint's training did to the names of
    its data sets (`task.names_as_published` and `clean_name` are for those): two labels stay two.
    """
    names = parse_prompt(labels) if isinstance(labels, str) else distinct_labels(labels)
    in_prompts = [PromptName(name.strip()) for name in names]
    return Query(names, label_prompts(in_prompts, context.tokenizer, context.text_length, chunk))


def phrase_query(context: TaskContext[Any], sentence: str | None, phrases: str | Sequence[str] | None = None) -> Query:
    """Phrases of a sentence for a checkpoint's detector: its noun phrases, or those given, a list or a text such as
    "a man; two small dogs". Phrases without a sentence are asked as labels are. UserError for a sentence without
    phrases or too long for the model, and where there is neither."""
    if isinstance(phrases, str):
        phrases = split_phrases(phrases)
    if sentence is not None and says_nothing(sentence):
        raise UserError("the sentence is empty; write one that names things, or give phrases alone")
    if sentence is None:
        if phrases is None:
            raise UserError("neither a sentence nor phrases: say what to look for")
        return label_query(context, phrases)
    check_encoded(sentence, "the sentence")
    located = _located(sentence, phrases)
    if not located:
        raise UserError(f"{sentence!r:.80} has no phrase to look for; write one that names things, or give phrases")
    names = []
    spans = []
    for phrase, span in located:
        names.append(phrase)
        spans.append([span])
    prompt = Prompt(sentence, spans)
    encoded = encode_prompt(context.tokenizer, prompt, context.text_length)
    if encoded.truncated:
        raise UserError(f"{sentence[:80]!r} is longer than the model's {context.text_length} tokens; shorten it")
    return Query(names, [encoded])


def _located(sentence: str, phrases: Sequence[str] | None) -> list[tuple[str, Span]]:
    """The phrases with their places in the sentence."""
    if phrases is None:
        return sentence_phrases.noun_phrases(sentence)
    spans = sentence_phrases.locate_phrases(sentence, phrases)
    return list(zip(phrases, spans, strict=True))


def split_phrases(phrases: str) -> list[str]:
    """The phrases of a text such as "a man; two small dogs"."""
    stripped = (phrase.strip() for phrase in phrases.split(";"))
    return list(filter(None, stripped))


def read_queries(file: Path, what: str = "query") -> tuple[list[str], int]:
    """One query a line, and how many empty lines were skipped. UserError where there is none."""
    try:
        text = read_text(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    queries = []
    empty_lines = 0
    for line in lines_of(text):
        if line.strip():
            queries.append(line.strip())
        else:
            empty_lines += 1
    if not queries:
        raise UserError(f"{file} has no {what}: write one a line")
    return queries, empty_lines
