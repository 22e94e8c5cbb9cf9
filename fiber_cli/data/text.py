"""Captions to token ids, and the masking of masked language modelling."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fiber_cli.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Byte-level BPE in RoBERTa's format for the built-in scenes.
BUILTIN = Path(__file__).parents[1] / "assets" / "tokenizer"


def load_tokenizer(name: str | Path) -> "PreTrainedTokenizerBase":
    """A tokeniser by folder, by name on the Hugging Face hub, or the packaged one, `builtin`.

    A folder needs `tokenizer.json`, or `vocab.json` and `merges.txt`. Raises `UserError` where nothing usable
    is found or a special token that the model needs is missing.
    """
    from transformers import AutoTokenizer, RobertaTokenizer

    folder = BUILTIN if name == "builtin" else Path(name).expanduser()
    try:
        if folder.is_dir():
            files = {path.name for path in folder.iterdir()}
            # transformers builds an empty tokeniser from an empty folder without a word.
            if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
                raise OSError("the folder has neither tokenizer.json nor vocab.json and merges.txt")
            described = files & {"tokenizer_config.json", "config.json"}
            tokenizer = (AutoTokenizer if described else RobertaTokenizer).from_pretrained(folder)
        elif folder.is_absolute() or len(folder.parts) > 2 or str(name).startswith((".", "~")):
            raise OSError("there is no such folder")
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(name))
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        raise UserError(
            f"model.tokenizer: cannot load the tokeniser {name!s}: {str(error).splitlines()[0]}\n"
            "Give a folder with vocab.json and merges.txt (or tokenizer.json), such as one copied from "
            "https://huggingface.co/roberta-base; or a hub name that this machine can download or has in its "
            "cache (HF_HOME); or `builtin`."
        ) from error
    missing = [kind for kind in ("pad", "cls", "sep", "mask") if getattr(tokenizer, f"{kind}_token_id") is None]
    if missing:
        raise UserError(
            f"model.tokenizer: {name!s} has no {', '.join(missing)} token; use a tokeniser of RoBERTa's form."
        )
    return tokenizer


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """`cls_id`, `sep_id`, `pad_id` and `mask_id`, as generation needs them."""
    return {f"{kind}_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("cls", "sep", "pad", "mask")}


def encode(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids int64 (B, max_length), always padded to that length; bool mask of real tokens; how many texts
    were cut. A cut text keeps its beginning and the closing token."""
    whole = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
    rows = [row if len(row) <= max_length else row[: max_length - 1] + row[-1:] for row in whole]
    padded = [row + [tokenizer.pad_token_id] * (max_length - len(row)) for row in rows]
    ids = torch.tensor(padded, dtype=torch.int64).reshape(len(rows), max_length)
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return ids, torch.arange(max_length) < lengths[:, None], sum(len(row) > max_length for row in whole)


def encode_one(tokenizer: "PreTrainedTokenizerBase", text: str, max_length: int) -> dict[str, Any]:
    """One text: its rows of `encode` as `ids` and `mask`, and `truncated`."""
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
    chosen = (rng.random(tokens.shape) < probability) & ~np.isin(tokens, tokenizer.all_special_ids)
    fate = rng.random(tokens.shape)
    masked = np.where(chosen & (fate < 0.8), tokenizer.mask_token_id, tokens)
    masked = np.where(chosen & (fate >= 0.9), rng.integers(len(tokenizer), size=tokens.shape), masked)
    return torch.from_numpy(masked), torch.from_numpy(np.where(chosen, tokens, -100))
