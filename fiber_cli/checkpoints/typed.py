"""Whether what was read from a file has the types that the dataclasses say."""

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from fiber_cli.settings import field_types

Checked = TypeVar("Checked")
_UNIONS = (typing.Union, types.UnionType)


def checked(value: Checked) -> Checked:
    """A dataclass whose fields, at any depth, have their types. Raises TypeError that names the first that has not."""
    _check(value, "")
    return value


def _check(section: Any, path: str) -> None:
    kinds = field_types(type(section))
    for setting in dataclasses.fields(section):
        name = f"{path}{setting.name}"
        value = getattr(section, setting.name)
        if dataclasses.is_dataclass(value):
            _check(value, f"{name}.")
        elif not _fits(value, kinds[setting.name]):
            raise TypeError(f"{name} is {value!r:.60}, of another type")


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Annotated:
        return _fits(value, arguments[0])
    if origin is Literal:
        return value in arguments
    if origin in _UNIONS:
        return any(_fits(value, choice) for choice in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and _all_fit(value, arguments)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(origin, type) or isinstance(value, origin)


def _all_fit(values: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    if len(kinds) == 2 and kinds[1] is ...:
        return all(_fits(value, kinds[0]) for value in values)
    return len(values) == len(kinds) and all(map(_fits, values, kinds))
