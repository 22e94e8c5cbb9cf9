"""What a published file holds beyond the weights: why it has no place in ours, and what of it is kept for the way back.

Entries that no pass reads are not part of a converted checkpoint. Those that `to_published` would write otherwise than
they were stand in KEPT_FILE beside the checkpoints of the conversion, so that the way back gives every bit of them; it
names the weights that it belongs to, and is not read for any others.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.outputs import sha256_of
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import check_regular

KEPT_FILE = "published.safetensors"
#: Types of weights in published files that become float32 exactly.
_NARROW = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def differing(state: Mapping[str, Tensor], back: Mapping[str, Tensor], unread: Collection[str]) -> dict[str, Tensor]:
    """Of the entries `unread` of a published file those that the way back, `back`, would write otherwise."""
    kept = {}
    for key in unread:
        if key in state and (key not in back or not _is_same(state[key], back[key])):
            kept[key] = state[key]
    return kept


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def narrow_types(state: Mapping[str, Tensor], keys: Collection[str]) -> dict[str, str]:
    """Key → type of the weights in a published file that are narrower than float32."""
    names = {dtype: name for name, dtype in _NARROW.items()}
    return {key: names[state[key].dtype] for key in keys if key in state and state[key].dtype in names}


def write_kept(folder: Path, weights: Path, kept: Mapping[str, Tensor], types: Mapping[str, str]) -> None:
    """Write KEPT_FILE in `folder`, where there is anything to keep. weights: the model.safetensors that it belongs to;
    types: see `narrow_types`. Raises OSError."""
    if kept or types:
        metadata = {"weights": sha256_of(weights), "types": json.dumps(types)}
        tensors = {key: value.contiguous().clone() for key, value in kept.items()}
        save_file(tensors, folder / KEPT_FILE, metadata)


def restore_kept(folder: Path, weights: Path, state: dict[str, Tensor]) -> bool:
    """Put what KEPT_FILE in `folder` holds into a published state dict made of `weights`, a model.safetensors; False
    where there is no such file or it belongs to other weights. Raises UserError for one that cannot be read."""
    file = folder / KEPT_FILE
    if not file.is_file():
        return False
    try:
        check_regular(file)
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata["weights"] != sha256_of(weights):
                return False
            for key, name in parse_json(metadata["types"].encode()).items():
                state[key] = state[key].to(_NARROW[name])
            for key in stored.keys():  # noqa: SIM118 (no mapping)
                state[key] = stored.get_tensor(key)
    except (SafetensorError, OSError, *WRONG_CONTENT) as error:
        raise UserError(
            f"{file} cannot be read ({error}); remove it, and what it keeps gets its first values"
        ) from error
    return True
