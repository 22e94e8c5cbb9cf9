"""Category names and phrases as text, and where their tokens are.

A span is [start, end) in characters of a text. What a span means in tokens is decided over the tokeniser's offsets,
(start, end) in characters of each token, so it holds for every tokeniser that gives them.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from fiber_cli.data.text import encode_one
from fiber_cli.errors import UserError

SEPARATION = ". "
BACKGROUND = "__background__"
#: Chances of the published training: one negative, none, as many as allowed; else a uniform number of them.
CONTROL = (0.05, 0.05, 0.5)

Span = tuple[int, int]


class Prompt(NamedTuple):
    """A text and, for each label, phrase or box, the spans that name it."""

    text: str
    spans: list[list[Span]]


class Shown(NamedTuple):
    """How a label stands in a prompt; only the name counts as its words."""

    name: str
    prefix: str = ""
    suffix: str = ""


def clean_name(name: str, published: bool = False) -> str:
    """A category name as the weights know it: no parentheses, `_` as a space, double spaces single.

    The rest of the white space stays, as in training: `bow_(weapon)` is "bow ". `published` removes all between the
    first opening and the last closing parenthesis, words between two pairs with them.
    """
    if published:
        name = re.sub(r"\(.*\)", "", name)
    while (plain := re.sub(r"\([^()]*\)", "", name)) != name:
        name = plain
    return name.replace("_", " ").replace("  ", " ")


def shown_names(
    names: Sequence[str], overrides: Mapping[str, Mapping[str, str]] | None = None, published: bool = False
) -> list[Shown]:
    """Data set names as prompts show them: cleaned, or as `overrides`, name → {name, prefix, suffix}, has it.

    `UserError` for an override of a name or with a key that does not exist, and for a name of which nothing is left.
    """
    overrides = overrides or {}
    for name, given in overrides.items():
        if not isinstance(given, Mapping) or not all(isinstance(text, str) for text in given.values()):
            raise UserError(f"prompt of {name!r}: give texts as {{name, prefix, suffix}}, not {given!r}")
        for key, known in ((name, names), *((field, Shown._fields) for field in given)):
            if key not in known:
                raise UserError(f"prompt of {name!r}: there is no {key!r} here; there is {', '.join(known)}")
    shown = [Shown(**{"name": clean_name(name, published), **overrides.get(name, {})}) for name in names]
    for name, part in zip(names, shown):
        if not part.name.strip():
            raise UserError(f"category {name!r}: nothing of the name is left for the prompt; rename it")
    return shown


def build_prompt(shown: Sequence[Shown], separation: str = SEPARATION) -> Prompt:
    """The labels joined by `separation`, which does not end the text."""
    text, spans = "", []
    for number, part in enumerate(shown):
        text += (separation if number else "") + part.prefix
        spans.append([(len(text), len(text) + len(part.name))])
        text += part.name + part.suffix
    return Prompt(text, spans)


def parse_prompt(text: str) -> list[str]:
    """The labels of a prompt that a user typed, such as "cat . traffic light"; a period that ends it is allowed."""
    text = re.sub(r"\.\s*$", "", text)
    if not text.strip():
        raise UserError('the prompt is empty; give names separated by periods, such as "cat . traffic light"')
    return distinct([label.strip() for label in re.split(r"\.(?=\s|$)", text)])


def distinct(labels: Sequence[str]) -> list[str]:
    """The labels as they are. UserError where one is empty or given twice, in either case."""
    seen: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        key = label.strip().casefold() if isinstance(label, str) else ""
        if not key:
            raise UserError(f"label {number} is {label!r}: give a name, and no period too many")
        if key in seen:
            raise UserError(f"label {number}, {label!r}, is label {seen[key]} again; name it once")
        seen[key] = number
    if not seen:
        raise UserError("no labels: give at least one name")
    return list(labels)


def positive_map(offsets: Sequence[Span | None], spans: Sequence[Sequence[Span]], length: int) -> np.ndarray:
    """Tokens of each label: bool (labels, length), from the spans of each.

    A span takes the tokens from that of its first character (or of one of the next two, where that is in none) to
    that of its last (or of one of the two before); none where either is missing or they come in the wrong order.
    """
    # Several tokens may share a character of several bytes; the first one counts.
    token_at = {char: n for n, place in reversed(list(enumerate(offsets[:length]))) if place for char in range(*place)}
    rows = np.zeros((len(spans), length), bool)
    for row, label in zip(rows, spans):
        for start, end in label:
            first = next((token_at[c] for c in (start, start + 1, start + 2) if c in token_at), None)
            last = next((token_at[c] for c in (end - 1, end - 2, end - 3) if c in token_at), None)
            if first is not None and last is not None:
                row[first : last + 1] = True
    return rows


class Encoded(NamedTuple):
    """ids int64 (L,), mask bool (L,), positive_map bool (labels, L), truncated: whether the text was cut, 0 or 1."""

    ids: torch.Tensor
    mask: torch.Tensor
    positive_map: torch.Tensor
    truncated: int


def encode_prompt(tokenizer, prompt: Prompt, length: int) -> Encoded:
    """The prompt's tokens, padded to `length`; spans in a part that was cut off have none."""
    offsets = tokenizer(prompt.text, return_offsets_mapping=True, verbose=False)["offset_mapping"][: length - 1]
    tokens = torch.from_numpy(positive_map(offsets, prompt.spans, length))
    return Encoded(**encode_one(tokenizer, prompt.text, length), positive_map=tokens)


def chunk_labels(shown: Sequence[Shown], tokenizer, length: int, chunk: int | str) -> list[list[int]]:
    """Labels in consecutive groups whose prompts fit into `length` tokens whole.

    chunk: at most so many labels a group (what does not fit is split further), or "auto": as many as fit.
    """

    def tokens(labels: Sequence[int]) -> int:
        return len(tokenizer(build_prompt([shown[label] for label in labels]).text, verbose=False)["input_ids"])

    size = len(shown) if chunk == "auto" else chunk
    groups: list[list[int]] = []
    for label in range(len(shown)):
        if label % size == 0 or tokens([*groups[-1], label]) > length:
            if (alone := tokens([label])) > length:
                raise UserError(f"label {shown[label].name!r} has {alone} tokens alone, the model reads {length}")
            groups.append([])
        groups[-1].append(label)
    return groups


def sample_labels(
    positives: Sequence[int], names: Sequence[str], lengths: Sequence[int], rng: np.random.Generator, *,
    budget: int, negatives: int = 85, control: tuple[float, float, float] = CONTROL, draw_background: bool = False,
) -> list[int]:  # fmt: skip
    """Labels of a training prompt in their order: those in the picture, and others that are not.

    lengths: tokens of each name with its separator; budget: tokens for all. Positives are taken in random order until
    one does not fit, then so many labels are drawn as `control` says, at most `negatives`, and those of them that are
    not in the picture are taken until one does not fit. `draw_background` lets `__background__` be drawn, as published.
    """
    kept, room = [], budget
    for label in rng.permutation(np.unique(positives)).tolist():
        room -= lengths[label]
        if room < 0:
            break
        kept.append(label)
    pool = [label for label, name in enumerate(names) if draw_background or name != BACKGROUND]
    full, fate = min(negatives, len(pool)), rng.random()
    one, none, most = np.cumsum(control)
    count = min(1, full) if fate < one else 0 if fate < none else full
    if fate >= most and full:
        count = int(rng.integers(1, full + 1))
    absent = set(pool).difference(positives)
    for label in rng.choice(pool, count, replace=False).tolist():
        if label in absent:
            room -= lengths[label]
            if room <= 0:
                break
            kept.append(label)
    return rng.permutation(np.array(kept, np.int64)).tolist()


@cache
def _tagger():
    from nltk.tag import PerceptronTagger

    try:
        return PerceptronTagger(lang="eng")
    except LookupError:
        raise UserError(
            "finding phrases in a sentence needs nltk's English tagger; get it by `python -m nltk.downloader "
            "averaged_perceptron_tagger_eng`, or set NLTK_DATA to the folder that holds it, or give the phrases"
        ) from None


_KINDS = {"DT": "d", "PRP$": "d", "CD": "a", "JJ": "a", "JJR": "a", "JJS": "a", "VBG": "v", "VBN": "v"}


def noun_phrases(sentence: str) -> list[tuple[str, Span]]:
    """Noun phrases of an English sentence, without overlap: determiner, adjectives and numbers, nouns.

    Participles belong to a phrase only behind its determiner: "a running dog", but "man / riding / horses".
    """
    words = list(re.finditer(r"\w+(?:-\w+)*|['’]s\b|[^\w\s]", sentence))
    tags = _tagger().tag([word[0] for word in words])
    kinds = "".join(_KINDS.get(tag, "n" if tag.startswith("NN") else ".") for _, tag in tags)
    found = re.finditer(r"d[av]*n+|a*n+", kinds)
    spans = [(words[match.start()].start(), words[match.end() - 1].end()) for match in found]
    return [(sentence[start:end], (start, end)) for start, end in spans]


def locate_phrases(sentence: str, phrases: Sequence[str]) -> list[Span]:
    """Where each phrase stands in the sentence, as whole words in either case; a phrase given again is looked for
    behind the place before. `UserError` where one is not there."""
    behind: dict[str, int] = {}
    spans = []
    for phrase in phrases:
        words, key = phrase.strip(), phrase.strip().casefold()
        pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)
        match = pattern.search(sentence, behind.get(key, 0)) if words else None
        if not match:
            raise UserError(f"phrase {phrase!r} is not in {sentence!r}; phrases must be the sentence's own words")
        behind[key] = match.end()
        spans.append(match.span())
    return spans
