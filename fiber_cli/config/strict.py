"""YAML nodes into frozen dataclasses, with every error collected and named by place, key, value and mend.

A field's metadata gives its one-line `doc` and its limits (`gt`, `ge`, `lt`, `le`), see `settings.option`. Where a
section has one of several forms, the field's type is `Annotated[Base, OneOf(tag, forms)]`: the first field of a form is
its tag, a `Literal` of the names that it stands for.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from fiber_cli.config.yaml_nodes import COMMAND_LINE, empty_mapping, is_null, place
from fiber_cli.errors import DeclarationError
from fiber_cli.parsing import plain
from fiber_cli.settings import field_types, former_names, out_of_range

UNIONS = (typing.Union, types.UnionType)
#: Characters of a message.
_LONGEST = 2000
NO_LIMITS: Mapping[str, Any] = types.MappingProxyType({})
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


@dataclass(frozen=True)
class OneOf:
    """A section's forms: name → dataclass, told apart by the field `tag`. A form may be loaded when it is asked for."""

    tag: str
    forms: Mapping[str, type[Any]]


def whole_forms(choices: OneOf) -> dict[str, type[Any]]:
    """The forms by name, without those whose declaration is wrong: these end the commands that ask for them, and no
    others."""
    forms = {}
    for name in choices.forms:
        with suppress(DeclarationError):
            forms[name] = choices.forms[name]
    return forms


def unknown(what: str, name: str, valid: Iterable[str], hint: str | None = None) -> str:
    """`unknown <what> 'name' (did you mean 'x'?); valid: x, y, z`; `hint` where no valid name is near."""
    valid = list(valid)
    near = next(iter(difflib.get_close_matches(name, valid, n=1)), hint)
    mend = f" (did you mean {near!r}?)" if near else ""
    return f"unknown {what} {name!r}{mend}; valid: {', '.join(valid)}"


def one_of(kind: Any) -> OneOf | None:
    """The forms that a type has, where it is a section of several."""
    if typing.get_origin(kind) is typing.Annotated:
        for mark in typing.get_args(kind)[1:]:
            if isinstance(mark, OneOf):
                return mark
    return None


def describe(kind: Any) -> str:
    """A type in words, for the reference."""
    choices = one_of(kind)
    if choices is not None:
        return "mapping: " + ", ".join(f"`{name}`" for name in choices.forms)
    origin, args = _container(kind), typing.get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in UNIONS:
        return " or ".join(describe(choice) for choice in args)
    if origin is tuple and args[-1] is ...:
        return f"list of {describe(args[0])}"
    if origin is tuple:
        return ", ".join(describe(item) for item in args)
    if origin is types.NoneType:
        return "null"
    return TYPE_NAMES[origin]


def _container(kind: Any) -> Any:
    """`dict` of `dict[str, Any]`; a type without parameters itself."""
    return typing.get_origin(kind) or kind


class Builder:
    """Turns nodes into values of the annotated types and collects every error in `errors`.

    `bad` holds the dotted paths that failed (their value is None), `places` where each given path stands.
    `elsewhere` maps a key to its full path, to tell a key that is right but in the wrong section.
    """

    def __init__(self, elsewhere: Mapping[str, str]):
        self.errors: list[str] = []
        self.bad: set[str] = set()
        self.places: dict[str, str] = {}
        self.elsewhere = elsewhere

    def fail(self, path: str, node: yaml.Node, message: str) -> None:
        """Notes the error; None stands for the value."""
        if len(message) > _LONGEST:
            message = message[:_LONGEST] + " …"  # of values that aliases multiply
        self.bad.add(path)
        self.errors.append(f"{place(node)}: {path or 'recipe'}: {message}")

    def build(self, kind: Any, node: yaml.Node, path: str, limits: Mapping[str, Any] = NO_LIMITS) -> Any:
        """The node's value as `kind`, or None after `fail`."""
        self.places[path] = place(node)
        choices = one_of(kind)
        if choices is not None:
            return self.form(choices, node, path)
        if dataclasses.is_dataclass(kind):
            return self.record(typing.cast("type[Any]", kind), node, path)
        origin, args = _container(kind), typing.get_args(kind)
        if types.NoneType in args and is_null(node):
            return None
        if origin in UNIONS:
            return self.choice(args, node, path, limits)
        if origin is tuple:
            return self.items(args, node, path, limits)
        if origin is Literal:
            return self.literal(args, node, path)
        return self.scalar(origin, node, path, limits)

    def choice(self, kinds: tuple[Any, ...], node: yaml.Node, path: str, limits: Mapping[str, Any]) -> Any:
        """A value of one of several types."""
        kind = _choose(kinds, node)
        others = [describe(other) for other in kinds if other not in (kind, types.NoneType)]
        if _container(kind) is Literal:
            return self.literal(typing.get_args(kind), node, path, others)
        if kind in TYPE_NAMES:
            return self.scalar(kind, node, path, limits, others)
        return self.build(kind, node, path, limits)

    def literal(self, values: tuple[Any, ...], node: yaml.Node, path: str, others: Sequence[str] = ()) -> Any:
        """One of the values. others: the types, in words, that the setting may have instead."""
        given = plain(node)
        for value in values:
            # Compared with its type: True equals 1, but is no ZeRO stage.
            if type(value) is type(given) and value == given:
                return value
        beside = "".join(f", or {other}" for other in others)
        self.fail(path, node, unknown("value", str(given), map(str, values)) + beside)
        return None

    def scalar(
        self, kind: type[Any], node: yaml.Node, path: str, limits: Mapping[str, Any], others: Sequence[str] = ()
    ) -> Any:
        """A number within its limits, a text, a truth value, or a mapping as it is. others: see `literal`."""
        value = plain(node)
        if kind is float and type(value) is int:
            value = float(value)
        elif kind is int and type(value) is float and value.is_integer():
            value = int(value)
        problem = _problem(kind, value, limits, others)
        if problem is None:
            return value
        self.fail(path, node, problem)
        return None

    def items(
        self, args: tuple[Any, ...], node: yaml.Node, path: str, limits: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        """A list, of any length where the last argument is an ellipsis."""
        if not isinstance(node, yaml.SequenceNode):
            self.fail(path, node, f"wanted a list, got {plain(node)!r}")
            return None
        kinds = [args[0]] * len(node.value) if args[-1] is ... else list(args)
        if len(kinds) != len(node.value):
            self.fail(path, node, f"wanted a list of {len(kinds)}, got {plain(node)!r}")
            return None
        values = []
        for number, (kind, item) in enumerate(zip(kinds, node.value, strict=True)):
            values.append(self.build(kind, item, f"{path}.{number}", limits))
        return tuple(values)

    def form(self, choices: OneOf, node: yaml.Node, path: str) -> Any:
        """A mapping in the form that its tag names."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(path, node, f"wanted a mapping with {choices.tag!r}, got {plain(node)!r}")
            return None
        tag = next((value for key, value in node.value if key.value == choices.tag), None)
        if tag is None:
            self.fail(path, node, f"{choices.tag!r} is missing; one of {', '.join(choices.forms)}")
            return None
        name = str(plain(tag))
        if name not in list(choices.forms):
            self.fail(path, tag, unknown(choices.tag, name, choices.forms))
            return None
        return self.record(choices.forms[name], node, path)

    def record(self, settings: type[Any], node: yaml.Node, path: str) -> Any:
        """A mapping as a dataclass."""
        if is_null(node):
            node = empty_mapping(node.start_mark)
        if not isinstance(node, yaml.MappingNode):
            self.fail(path, node, f"wanted a mapping, got {plain(node)!r}")
            return None
        prefix = f"{path}." if path else ""
        values = self.given(settings, node, prefix)
        kinds = field_types(settings)
        for field in dataclasses.fields(settings):
            if field.name not in values and _is_required(field):
                values[field.name] = self.missing(field, kinds[field.name], node, prefix + field.name)
        return settings(**values)

    def given(self, settings: type[Any], node: yaml.MappingNode, prefix: str) -> dict[str, Any]:
        """The values of the keys that stand in a mapping."""
        fields = {field.name: field for field in dataclasses.fields(settings)}
        kinds = field_types(settings)
        former = former_names(settings)
        values: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = str(plain(key_node))
            key = former.get(key, key)
            if key in first and not _is_override(key_node, first[key]):
                self.fail(prefix + key, key_node, f"given twice, first at {place(first[key])}")
            elif key not in fields:
                path = self.elsewhere.get(key)
                self.fail(prefix + key, key_node, unknown("key", key, fields, None if path == prefix + key else path))
            else:
                field = fields[key]
                values[key] = self.build(kinds[key], value_node, prefix + key, field.metadata)
            first.setdefault(key, key_node)
        return values

    def missing(self, field: "dataclasses.Field[Any]", kind: Any, node: yaml.Node, path: str) -> Any:
        """What stands for a required setting that is not given: of a section, its errors."""
        if dataclasses.is_dataclass(kind) or one_of(kind) is not None:
            return self.build(kind, empty_mapping(node.start_mark), path)
        self.fail(path, node, f"missing ({field.metadata['doc'].rstrip('.')})")
        return None


def _is_override(later: yaml.Node, earlier: yaml.Node) -> bool:
    """Whether the command line gives a setting that the file has under its other name."""
    return place(later) == COMMAND_LINE != place(earlier)


def _choose(args: tuple[Any, ...], node: yaml.Node) -> Any:
    """Which type of a union a node is: of text one that lists words, where none takes any; of lists and mappings one
    that takes them; of other single values the first."""
    choices = [kind for kind in args if kind is not types.NoneType]
    if isinstance(plain(node), str) and str not in choices:
        for kind in choices:
            if _container(kind) is Literal:
                return kind
    wanted: type[Any] | None = None
    if isinstance(node, yaml.SequenceNode):
        wanted = tuple
    elif isinstance(node, yaml.MappingNode):
        wanted = dict
    for kind in choices:
        if _container(kind) is wanted:
            return kind
    return choices[0]


def _problem(kind: type[Any], value: Any, limits: Mapping[str, Any], others: Sequence[str]) -> str | None:
    """What is wrong with a single value. others: the types, in words, that it may have instead."""
    if type(value) is not kind:
        wanted = " or ".join([TYPE_NAMES[kind], *others])
        return f"wanted {wanted}, got {value!r}"
    if kind is float and not math.isfinite(value):
        return f"wanted a finite number, got {value!r}"
    return out_of_range(value, limits)


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
