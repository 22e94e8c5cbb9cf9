"""Category names and phrases as text, and where their tokens are.

A span is [start, end) in characters of a text. What a span means in tokens is decided over the tokeniser's offsets,
(start, end) in characters of each token, so it holds for every tokeniser that gives them.
"""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fiber_cli.characters import says_nothing
from fiber_cli.data.category_names import clean_name
from fiber_cli.data.records import Span
from fiber_cli.data.text import check_encoded, encode_one
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATION = ". "
#: Between the labels of a prompt that a user typed.
_SEPARATE_PERIOD = re.compile(r"(?:(?<=\s)|^)\.(?=\s|$)")
_LAST_SEPARATE_PERIOD = re.compile(r"(?<=\s)\.\s*$")
_WORD = re.compile(r"\S+")
#: "U.S.", "d.c.", whose last period ends no sentence.
_ABBREVIATION = re.compile(r"\W*(?:\w{1,3}\.){2,}")


class Prompt(NamedTuple):
    """A text and, for each label, phrase or box, the spans that name it."""

    text: str
    spans: list[list[Span]]


class PromptName(NamedTuple):
    """How a label stands in a prompt; only the name counts as its words."""

    name: str
    prefix: str = ""
    suffix: str = ""

    @property
    def text(self) -> str:
        return self.prefix + self.name + self.suffix


class EncodedPrompt(NamedTuple):
    """ids int64 (L,), mask bool (L,), positive_map bool (labels, L), truncated: whether the text was cut, 0 or 1."""

    ids: torch.Tensor
    mask: torch.Tensor
    positive_map: torch.Tensor
    truncated: int


def prompt_names(
    names: Sequence[str], overrides: Mapping[str, Mapping[str, str]] | None = None, as_published: bool = False
) -> list[PromptName]:
    """Data set names as prompts show them: cleaned, or as `overrides`, name → {name, prefix, suffix}, has it.

    `UserError` for an override of a name or with a key that does not exist, and for a name of which nothing is left.
    """
    overrides = overrides or {}
    for name, override in overrides.items():
        _check_override(name, override, names)
    in_prompt = []
    for name in names:
        texts = {"name": clean_name(name, as_published), **overrides.get(name, {})}
        if says_nothing(texts["name"]):
            raise UserError(f"category {name!r}: nothing of the name is left for the prompt; rename it")
        in_prompt.append(PromptName(**texts))
    return in_prompt


def _check_override(name: str, override: object, names: Sequence[str]) -> None:
    if not isinstance(override, Mapping) or not all(isinstance(text, str) for text in override.values()):
        raise UserError(f"prompt of {name!r}: give texts as {{name, prefix, suffix}}, not {override!r}")
    _check_key(name, name, names)
    for key in override:
        _check_key(name, key, PromptName._fields)


def _check_key(name: str, key: str, valid: Sequence[str]) -> None:
    if key not in valid:
        raise UserError(f"prompt of {name!r}: there is no {key!r} here; there is {', '.join(valid)}")


def build_prompt(names: Sequence[PromptName], separation: str = SEPARATION) -> Prompt:
    """The labels joined by `separation`, which does not end the text."""
    text = ""
    spans = []
    for number, name in enumerate(names):
        if number:
            text += separation
        start = len(text) + len(name.prefix)
        spans.append([(start, start + len(name.name))])
        text += name.text
    return Prompt(text, spans)


def parse_prompt(text: str) -> list[str]:
    """The labels of a prompt that a user typed, such as "cat . traffic light"; a period that ends it is allowed.

    A period with white space on both sides separates; where there is one, or one ends the text, no other does: "st.
    bernard . cat", "st. bernard ." is one label. Otherwise the period at the end of a word separates ("cat. dog"), but
    not that of an abbreviation such as "U.S." Commas and semicolons are part of a label.
    """
    if not text.strip(string.whitespace + "."):
        raise UserError('the prompt is empty; give names separated by periods, such as "cat . traffic light"')
    if _SEPARATE_PERIOD.search(text):
        labels = _SEPARATE_PERIOD.split(_LAST_SEPARATE_PERIOD.sub("", text))
        labels[-1] = _without_last_period(labels[-1])
    else:
        labels = _sentences(text)
    return distinct_labels([label.strip() for label in labels])


def _without_last_period(label: str) -> str:
    words = label.split()
    ends_a_sentence = words and words[-1].endswith(".") and not _ABBREVIATION.fullmatch(words[-1])
    return label.rstrip().removesuffix(".") if ends_a_sentence else label


def _sentences(text: str) -> list[str]:
    """The text without the periods at the ends of its words, apart where they stood."""
    sentences = []
    start = 0
    for word in _WORD.finditer(text):
        if word[0].endswith(".") and not _ABBREVIATION.fullmatch(word[0]):
            sentences.append(text[start : word.end() - 1])
            start = word.end()
    rest = text[start:]
    return [*sentences, rest] if rest.strip() else sentences


def distinct_labels(labels: Sequence[str]) -> list[str]:
    """The labels as they are. UserError where one is empty or given twice, in either case."""
    number_of: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        key = label.strip().casefold() if isinstance(label, str) else ""
        if not key:
            raise UserError(f"label {number} is {label!r:.80}: give a name, and no period too many")
        check_encoded(label, f"label {number}")
        if key in number_of:
            raise UserError(f"label {number}, {label!r:.80}, is label {number_of[key]} again; name it once")
        number_of[key] = number
    if not number_of:
        raise UserError("no labels: give at least one name")
    return list(labels)


def positive_map(offsets: Sequence[Span | None], spans: Sequence[Sequence[Span]], length: int) -> np.ndarray:
    """Tokens of each label: bool (labels, length), from the spans of each.

    A span takes the tokens from that of its first character (or of one of the next two, where that is in none) to
    that of its last (or of one of the two before); none where either is missing or they come in the wrong order.
    """
    token_at = _token_of_characters(offsets[:length])
    rows = np.zeros((len(spans), length), bool)
    for row, label_spans in zip(rows, spans, strict=True):
        for start, end in label_spans:
            first = _first_token(token_at, (start, start + 1, start + 2))
            last = _first_token(token_at, (end - 1, end - 2, end - 3))
            if first is not None and last is not None:
                row[first : last + 1] = True
    return rows


def _token_of_characters(offsets: Sequence[Span | None]) -> dict[int, int]:
    token_at: dict[int, int] = {}
    # Several tokens may share a character of several bytes; the first one counts, so it is written last.
    for token in range(len(offsets) - 1, -1, -1):
        offset = offsets[token]
        if offset is not None:
            for character in range(*offset):
                token_at[character] = token
    return token_at


def _first_token(token_at: Mapping[int, int], characters: Iterable[int]) -> int | None:
    """The token of the first of these characters that is in one."""
    for character in characters:
        if character in token_at:
            return token_at[character]
    return None


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt, length: int) -> EncodedPrompt:
    """The prompt's tokens, padded to `length`; spans in a part that was cut off have none."""
    tokenized = tokenizer(prompt.text, return_offsets_mapping=True, verbose=False)
    offsets = tokenized["offset_mapping"][: length - 1]
    tokens_of_labels = torch.from_numpy(positive_map(offsets, prompt.spans, length))
    return EncodedPrompt(**encode_one(tokenizer, prompt.text, length), positive_map=tokens_of_labels)
