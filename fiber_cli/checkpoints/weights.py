"""Weights by name: of a file, of a module, and from the one into the other, strictly and without an unpickler."""

import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.serialization
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fiber_cli.checkpoints.weights_header import unreadable
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.regular_files import check_regular

#: Names under which trainers keep the state dict, in the order in which they are looked for: Lightning,
#: maskrcnn-benchmark, DeepSpeed.
WRAPPERS = ("state_dict", "model", "module")
#: Of each kind of what does not fit, in an error.
_SHOWN = 4
#: So many wrappers one in another.
_DEEPEST = 4
#: Classes of Python's own that trainers save options with.
_HARMLESS = (
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "object", "set", "str", "tuple")),
    "argparse.Namespace",
    "collections.defaultdict",
    "datetime.datetime",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
)


def float32(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, floating point as float32."""
    converted = {}
    for name, value in weights.items():
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        converted[name] = value.detach().to("cpu", dtype).contiguous()
    return converted


def load_weights(path: Path) -> dict[str, Tensor]:
    """`stored_weights`, floating point as float32: fewer bits, as checkpoints that are shipped have, are widened, which
    is exact."""
    return float32(stored_weights(path))


def stored_weights(path: Path) -> dict[str, Tensor]:
    """model.safetensors of a checkpoint directory: parameter name → tensor on the CPU, read where it is looked at.
    Floating types of more bits than float32 would have to be cut and are a UserError."""
    file = Path(path) / "model.safetensors"
    weights = read_tensors(file)
    for name, value in weights.items():
        if value.is_floating_point() and torch.finfo(value.dtype).bits > torch.finfo(torch.float32).bits:
            raise UserError(f"{file}: {name} is {value.dtype}, not float32 or a narrower type; save it as float32")
    return weights


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU."""
    try:
        check_regular(file)
        return load_file(file)
    except (SafetensorError, OSError, RuntimeError, *WRONG_CONTENT) as error:
        raise unreadable(file, error) from error


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.ckpt`, `.pt`, `.pth` or `.bin` file, read with the restricted unpickler, or the tensors of
    a `.safetensors` file.

    It may be the whole content or stand under one of WRAPPERS, or one in another; the prefix `module.` is taken off.
    What trainers save beside it may be of their own classes: nothing of those is imported or run, and what they held is
    not read. Raises UserError for a file that is missing, damaged or holds no state dict, and for one that names
    Python's own functions.
    """
    if path.suffix == ".safetensors":
        return _without_module(read_tensors(path))
    try:
        check_regular(path)
        content = _restricted_load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint file") from error
    except Exception as error:  # torch raises several kinds for damaged or unsafe files
        raise UserError(
            f"{path}: not readable as a checkpoint of plain tensors ({type(error).__name__}: {_reason(error)}); "
            "if it holds other objects, save its state dict alone first"
        ) from error
    state = _unwrapped(content)
    if state is None:
        raise UserError(f"{path}: holds no state dict (a mapping from names to tensors)")
    for name, tensor in state.items():
        if tensor.layout != torch.strided or _bytes(tensor) > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} {tuple(tensor.shape)} has more numbers than the file holds of it")
    return _without_module(state)


def _reason(error: Exception) -> str:
    """What torch says of a file, without how to run what it holds, with which it goes on."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused is not None:
        return f"it names {refused[1]}, which is not called"
    told = re.search(r"WeightsUnpickler error: (.+)", str(error))
    if told is not None:
        return told[1]
    first = next(iter(str(error).splitlines()), "")
    return first.partition(" In PyTorch")[0].partition(" This file can still be loaded")[0]


def _restricted_load(path: Path) -> Any:
    """The content of a file of torch's, with something empty in place of every object of a class that is not torch's.
    Files of before torch 1.6 are read without such objects."""
    if not zipfile.is_zipfile(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    inert: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(path):
        module = name.partition(".")[0]
        # Functions of Python itself have no place in a checkpoint: whatever names them is refused.
        if module not in sys.stdlib_module_names or name in _HARMLESS:
            kind = _InertArray if module == "numpy" else _InertMapping
            inert.append((type(name, (kind,), {}), name))
    with torch.serialization.safe_globals(inert):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


class _InertMapping:
    """Stands for a class or a function of a trainer: called with anything it gives a dictionary, which the restricted
    unpickler lets take in an object's attributes or items."""

    def __new__(cls, *arguments: object, **named: object) -> Any:
        return OrderedDict()


class _InertArray:
    """Stands for what numpy's arrays and numbers are made of, whose state is no dictionary."""

    def __new__(cls, *arguments: object, **named: object) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _unwrapped(content: object) -> dict[str, Tensor] | None:
    """The state dict in what a file holds; None where there is none."""
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            return None
        if content and all(map(_is_named_tensor, content.items())):
            return content
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), None)
    return None


def _without_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def _is_named_tensor(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, a tied one once; what `directory.save` writes and `load_into`
    fills."""
    weights = {}
    seen = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            weights[name] = value
    return weights


class Unmatched(NamedTuple):
    """Names on one side only: `fresh` ones keep the module's values, `dropped` ones of the weights are left out."""

    fresh: list[str]
    dropped: list[str]


def load_into(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    expect_missing: Collection[str] = (),
    expect_unexpected: Collection[str] = (),
) -> Unmatched:
    """Copy `weights` into `module`, strictly, see `compare`. UserError where they do not fit, and then nothing has been
    copied."""
    unmatched = compare(module, weights, expect_missing=expect_missing, expect_unexpected=expect_unexpected)
    with torch.no_grad():
        for name, value in named_weights(module).items():
            if name in weights:
                value.copy_(weights[name])
    return unmatched


def compare(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    expect_missing: Collection[str] = (),
    expect_unexpected: Collection[str] = (),
) -> Unmatched:
    """Every key must be on both sides with the same shape, except names that start with one of the given prefixes:
    `expect_missing` keep the module's values, `expect_unexpected` are left out; returned are the names of these two
    kinds. UserError lists what differs beyond them."""
    ours = named_weights(module)
    unmatched = Unmatched(sorted(ours.keys() - weights.keys()), sorted(weights.keys() - ours.keys()))
    common = sorted(ours.keys() & weights.keys())
    missing = _without_prefixes(unmatched.fresh, expect_missing)
    unexpected = _without_prefixes(unmatched.dropped, expect_unexpected)
    mismatched = [name for name in common if ours[name].shape != weights[name].shape]
    if missing or unexpected or mismatched:
        lines = [f"missing: {name} {tuple(ours[name].shape)}" for name in missing[:_SHOWN]]
        lines += [f"unexpected: {name} {tuple(weights[name].shape)}" for name in unexpected[:_SHOWN]]
        for name in mismatched[:_SHOWN]:
            theirs, expected = tuple(weights[name].shape), tuple(ours[name].shape)
            lines.append(f"shape: {name} {theirs} in the weights, {expected} in the model")
        more = len(missing) + len(unexpected) + len(mismatched) - len(lines)
        if more:
            lines.append(f"and {more} more")
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(mismatched)} of another shape"
        raise UserError(
            f"the weights do not fit the model: {counts}; set the model section as it was when they were trained",
            *lines,
        )
    return unmatched


def _without_prefixes(names: Iterable[str], prefixes: Collection[str]) -> list[str]:
    """Those of the names that start with none of the prefixes."""
    expected = tuple(prefixes)
    return [name for name in names if not name.startswith(expected)]
