"""What a caller gives a method, held against the method's own type hints before anything is done with it.

A hint of this file is a type with the `Kind` of what is one; a `Literal` needs none. `checked` makes a method hold its
arguments against them.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import numpy as np
import torch

from fiber_cli.errors import UserError

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Kind:
    """What an argument may be. wanted: in words; accepts: whether a value is one."""

    wanted: str
    accepts: Callable[[Any], bool]

    def __repr__(self) -> str:
        return self.wanted  # as `help` shows the hint

    def read(self, name: str, value: Any) -> Any:
        """The argument's value, a number of numpy's as Python's; UserError, by its name, for none of the kind."""
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, np.floating):  # longer than Python's
            plain = float(plain)
        if not self.accepts(plain):
            raise refusal(name, value, self.wanted)
        return plain


def refusal(name: str, value: object, wanted: str) -> UserError:
    """That an argument is not what is wanted."""
    return UserError(f"{name}={value!r:.80}: give {wanted}")


class TextsKind(Kind):
    """One text, which stays as it is, or several, which become a list."""

    def read(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value
        texts = items_of(value)
        if texts is None:
            raise refusal(name, value, self.wanted)
        return [TEXT.read(f"{name}[{number}]", text) for number, text in enumerate(texts)]


def items_of(items: Any) -> list[Any] | None:
    """The items of what can be gone through, if only once. None where there are none to go through, and of mappings and
    bytes, whose keys and numbers nobody means."""
    if isinstance(items, Mapping | bytes | bytearray | memoryview):
        return None
    try:
        iterator = iter(items)
    except TypeError:
        return None
    return list(iterator)


def instance_of(kinds: type | tuple[type, ...], wanted: str) -> Kind:
    """Objects of a class, or of one of several."""
    return Kind(wanted, partial(_is_instance, kinds=kinds))


def one_of(choices: Sequence[str]) -> Kind:
    """These texts alone."""
    *others, last = [f'"{choice}"' for choice in choices]
    return Kind(f"{', '.join(others)} or {last}", partial(_is_among, choices=choices))


def _is_among(value: Any, *, choices: Sequence[str]) -> bool:
    return isinstance(value, str) and value in choices


def _is_instance(value: Any, *, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds)


def _is_whole(value: Any, *, least: int) -> bool:
    """Of truth values, which Python counts among the numbers, none is."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any, *, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_path(value: Any) -> bool:
    """No system has a file without a name, or with a NUL in it."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(path, str) and path != "" and "\0" not in path


def _is_chunk(value: Any) -> bool:
    return _is_whole(value, least=1) or (isinstance(value, str) and value == "auto")


TEXT = instance_of(str, "a text")
_FINITE = partial(_is_number, least=-sys.float_info.max, most=sys.float_info.max)
_DEVICE = 'a name such as "cpu" or "cuda:1", or a torch.device'

Count = Annotated[int, Kind("a whole number from 1", partial(_is_whole, least=1))]
CountFromZero = Annotated[int, Kind("a whole number from 0", partial(_is_whole, least=0))]
Share = Annotated[float, Kind("a number from 0 to 1", partial(_is_number, least=0, most=1))]
Score = Annotated[float, Kind("a number that is finite", _FINITE)]
Flag = Annotated[bool, instance_of(bool, "True or False")]
Text = Annotated[str, TEXT]
#: A method gets several, a list or whatever else can be gone through, as a list.
Texts = Annotated[str | Sequence[str], TextsKind("a text, or a list of texts", TEXT.accepts)]
Chunk = Annotated[int | str, Kind('the number of labels in a prompt, from 1, or "auto"', _is_chunk)]
FilePath = Annotated[str | os.PathLike[str], Kind("a path", _is_path)]
Device = Annotated[str | torch.device, instance_of((str, torch.device), _DEVICE)]


def checked(method: Method) -> Method:
    """A method that gets its arguments as their hints say; UserError, by its name, for one that is not so."""
    signature = inspect.signature(method)
    kinds: dict[str, Kind] = {}
    optional: set[str] = set()
    for name, parameter in signature.parameters.items():
        alternatives = get_args(parameter.annotation)
        if NoneType in alternatives:
            optional.add(name)
        for hint in (parameter.annotation, *alternatives):
            if get_origin(hint) is Annotated:
                kinds[name] = hint.__metadata__[0]
            elif get_origin(hint) is Literal:
                kinds[name] = one_of(get_args(hint))

    @functools.wraps(method)
    def check(*arguments: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(*arguments, **named)
        except TypeError:
            return method(*arguments, **named)  # Python says what is missing or unknown
        for name, value in bound.arguments.items():
            is_left_open = value is None and name in optional
            if name in kinds and not is_left_open:
                bound.arguments[name] = kinds[name].read(name, value)
        return method(*bound.args, **bound.kwargs)

    return cast(Method, check)
