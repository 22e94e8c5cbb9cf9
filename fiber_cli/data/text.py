"""Captions to token ids, and the masking of masked language modelling."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
import torch

from fiber_cli.data.tokenizer_files import fetch, read_folder
from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Byte-level BPE in RoBERTa's format for the built-in scenes.
BUILTIN = Path(__file__).parents[1] / "assets" / "tokenizer"


class EncodedTexts(NamedTuple):
    """Token ids int64 (B, L), bool mask (B, L) of real tokens, and how many texts were cut."""

    ids: torch.Tensor
    mask: torch.Tensor
    truncated: int


class EncodedText(TypedDict):
    """One text: its rows of `EncodedTexts`, and whether it was cut, 0 or 1."""

    ids: torch.Tensor
    mask: torch.Tensor
    truncated: int


def load_tokenizer(name: str | Path) -> "PreTrainedTokenizerBase":
    """A tokeniser by folder, by name on the Hugging Face hub, or the packaged one, `builtin`.

    A folder needs `tokenizer.json`, or `vocab.json` and `merges.txt`; code that it names is never run. Raises
    `UserError` where nothing usable is found or a special token that the model needs is missing.
    """
    try:
        tokenizer = _from_folder_or_hub(name)
        tokenizer("a text", return_offsets_mapping=True, verbose=False)  # settings of other types fail here
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        raise UserError(
            f"model.tokenizer: cannot load the tokeniser {name!s}: {_first_line(error)}",
            "Give a folder with vocab.json and merges.txt (or tokenizer.json), such as one copied from "
            "https://huggingface.co/roberta-base; or a hub name that this machine can download or has in its "
            "cache (HF_HOME); or `builtin`.",
        ) from error
    needed = {
        "pad": tokenizer.pad_token_id,
        "cls": tokenizer.cls_token_id,
        "sep": tokenizer.sep_token_id,
        "mask": tokenizer.mask_token_id,
    }
    missing = [kind for kind, token in needed.items() if token is None]
    if missing:
        raise UserError(
            f"model.tokenizer: {name!s} has no {', '.join(missing)} token; use a tokeniser of RoBERTa's form."
        )
    return tokenizer


def read_small_letters(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Have a tokeniser read what it is given in small letters. Offsets stay those of the text as it was written."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase()]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)


def _from_folder_or_hub(name: str | Path) -> "PreTrainedTokenizerBase":
    folder = BUILTIN if name == "builtin" else Path(name).expanduser()
    if folder.is_dir():
        return read_folder(folder)
    if folder.is_absolute() or len(folder.parts) > 2 or str(name).startswith((".", "~")):
        raise OSError("there is no such folder")
    return read_folder(fetch(str(name)))


def _first_line(error: Exception) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def check_encoded(text: str, what: str) -> None:
    """UserError for a user's text that holds bytes which are no characters of the terminal's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{what} {text!r:.80} holds a byte that is no text at character {error.start + 1}; type it in the encoding "
            "of your locale, or set a locale of UTF-8 (LC_ALL=C.UTF-8)"
        ) from None


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """`cls_id`, `sep_id`, `pad_id` and `mask_id`, as generation needs them."""
    return {
        "cls_id": tokenizer.cls_token_id,
        "sep_id": tokenizer.sep_token_id,
        "pad_id": tokenizer.pad_token_id,
        "mask_id": tokenizer.mask_token_id,
    }


def encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> EncodedTexts:
    """Texts to tokens, always padded to `max_length`; a cut text keeps its beginning and the closing token."""
    token_lists: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
    padded = []
    lengths = []
    truncated = 0
    for tokens in token_lists:
        if len(tokens) > max_length:
            tokens = tokens[: max_length - 1] + tokens[-1:]
            truncated += 1
        lengths.append(len(tokens))
        padded.append(tokens + [tokenizer.pad_token_id] * (max_length - len(tokens)))
    ids = torch.tensor(padded, dtype=torch.int64).reshape(len(token_lists), max_length)
    mask = torch.arange(max_length) < torch.tensor(lengths, dtype=torch.int64)[:, None]
    return EncodedTexts(ids, mask, truncated)


def encode_one(tokenizer: "PreTrainedTokenizerBase", text: str, max_length: int) -> EncodedText:
    """One text, see `encode`: ids and mask (max_length,)."""
    ids, mask, truncated = encode(tokenizer, [text], max_length)
    return {"ids": ids[0], "mask": mask[0], "truncated": truncated}


def mask_tokens(
    ids: torch.Tensor, tokenizer: "PreTrainedTokenizerBase", probability: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's masking: ids int64 of any shape to (masked ids, labels) of the same shape.

    Each token that is not special is chosen with `probability`, on its own; of the chosen, 80% become
    the mask token, 10% a random token of the whole vocabulary, 10% stay. Labels are the original ids where chosen
    and -100 elsewhere.
    """
    tokens = ids.numpy()
    special = np.isin(tokens, tokenizer.all_special_ids)
    chosen = (rng.random(tokens.shape) < probability) & ~special
    fate = rng.random(tokens.shape)
    random_tokens = rng.integers(len(tokenizer), size=tokens.shape)
    masked = np.where(chosen & (fate < 0.8), tokenizer.mask_token_id, tokens)
    masked = np.where(chosen & (fate >= 0.9), random_tokens, masked)
    labels = np.where(chosen, tokens, -100)
    return torch.from_numpy(masked), torch.from_numpy(labels)
