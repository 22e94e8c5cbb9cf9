"""YAML into frozen dataclasses, with every error collected and named by place, key, value and mend.

A field's metadata gives its one-line `doc` and its limits (`gt`, `ge`, `lt`, `le`). The first field of each
member of a union of dataclasses is its tag, a `Literal` of the names that it stands for. Scalars follow YAML 1.2:
`1e-5` is a number, and only `true` and `false` are truth values.
"""

import dataclasses
import difflib
import math
import operator
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

COMMAND_LINE = "command line"
TAG = "tag:yaml.org,2002:"
UNIONS = (typing.Union, types.UnionType)
LIMITS = {
    "gt": (operator.gt, "greater than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


class Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalar rules of YAML 1.2's core schema."""

    yaml_implicit_resolvers = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    Loader.add_implicit_resolver(TAG + _tag, re.compile(f"(?:{_pattern})$"), list(_first))


def compose(text: str, name: str) -> yaml.Node:
    """The node tree of one document; an empty document is a null. `name` is what `place` calls the source.

    Raises yaml.YAMLError.
    """
    loader = Loader(text)
    loader.name = name
    empty = yaml.ScalarNode(f"{TAG}null", "", loader.get_mark())
    try:
        return loader.get_single_node() or empty
    finally:
        loader.dispose()


def place(node: yaml.Node) -> str:
    """`file:line`, or the command line."""
    mark = node.start_mark
    return mark.name if mark.name == COMMAND_LINE else f"{mark.name}:{mark.line + 1}"


def plain(node: yaml.Node) -> Any:
    """The node as dicts, lists and scalars."""
    if isinstance(node, yaml.MappingNode):
        return {str(plain(key)): plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    match node.tag.removeprefix(TAG):
        case "null":
            return None
        case "bool":
            return node.value.lower() == "true"
        case "int":
            return int(node.value.replace("_", ""))
        case "float":
            return float(re.sub(r"\.(?=[a-z])", "", node.value.lower().replace("_", "")))
    return node.value


def override(root: yaml.Node, text: str) -> str | None:
    """Sets `section.key=value` or `list.0.key=value` in the tree; returns what is wrong with it, or None."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return f"{COMMAND_LINE}: {text!r} is not of the form section.key=value"
    try:
        graft(root, keys, compose(value, COMMAND_LINE))
    except yaml.YAMLError as error:
        return f"{COMMAND_LINE}: {path}: {value!r} is not valid YAML: {reason(error)}"
    except LookupError as error:
        return f"{COMMAND_LINE}: {path}: {error.args[0]}"
    return None


def graft(node: yaml.Node, keys: list[str], new: yaml.Node) -> yaml.Node:
    """`node` with `new` at `keys`; mappings not there yet are made. Raises LookupError(what is wrong)."""
    if not keys:
        return new
    key, rest = keys[0], keys[1:]
    if is_null(node):
        node = empty_mapping(new.start_mark)
    if isinstance(node, yaml.MappingNode):
        for i, (name, child) in enumerate(node.value):
            if name.value == key:
                node.value[i] = (name, graft(child, rest, new))
                return node
        name = yaml.ScalarNode(f"{TAG}str", key, new.start_mark)
        node.value.append((name, graft(empty_mapping(new.start_mark), rest, new)))
    elif isinstance(node, yaml.SequenceNode):
        if not key.isdecimal() or int(key) >= len(node.value):
            raise LookupError(f"the list has {len(node.value)} items, counted from 0; there is no {key!r}")
        node.value[int(key)] = graft(node.value[int(key)], rest, new)
    else:
        raise LookupError(f"{node.value!r} is a single value, it has no {key!r}")
    return node


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and plain(node) is None


def empty_mapping(mark: yaml.Mark) -> yaml.MappingNode:
    return yaml.MappingNode(f"{TAG}map", [], mark)


def reason(error: yaml.YAMLError) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())


def unknown(what: str, name: str, valid: Iterable[str], hint: str | None = None) -> str:
    """`unknown <what> 'name' (did you mean 'x'?); valid: x, y, z`; `hint` where no valid name is near."""
    valid = list(valid)
    near = next(iter(difflib.get_close_matches(name, valid, n=1)), hint)
    mend = f" (did you mean {near!r}?)" if near else ""
    return f"unknown {what} {name!r}{mend}; valid: {', '.join(valid)}"


def forms(kind: Any) -> dict[str, type]:
    """Tag → dataclass of a union of dataclasses, "" → a dataclass that stands alone; empty for other types."""
    if dataclasses.is_dataclass(kind):
        return {"": kind}
    classes = typing.get_args(kind) if typing.get_origin(kind) in UNIONS else ()
    if not all(map(dataclasses.is_dataclass, classes)):
        return {}
    return {tag: c for c in classes for tag in typing.get_args(dataclasses.fields(c)[0].type)}


def describe(kind: Any) -> str:
    """A type in words, for the reference."""
    args = typing.get_args(kind)
    if tagged := forms(kind):
        return "mapping: " + ", ".join(f"`{tag}`" for tag in tagged)
    if typing.get_origin(kind) is Literal:
        return ", ".join(f"`{a}`" for a in args)
    if typing.get_origin(kind) in UNIONS:
        return " or ".join(map(describe, args))
    if typing.get_origin(kind) is tuple:
        return f"list of {describe(args[0])}" if args[-1] is ... else ", ".join(map(describe, args))
    return {types.NoneType: "null", **TYPE_NAMES}[kind]


class Builder:
    """Turns nodes into values of the annotated types and collects every error in `errors`.

    `bad` holds the dotted paths that failed (their value is None), `places` where each given path stands.
    `elsewhere` maps a key to its full path, to tell a key that is right but in the wrong section.
    """

    def __init__(self, elsewhere: dict[str, str]):
        self.errors: list[str] = []
        self.bad: set[str] = set()
        self.places: dict[str, str] = {}
        self.elsewhere = elsewhere

    def fail(self, path: str, node: yaml.Node, message: str) -> None:
        """Notes the error; its None stands for the value."""
        self.bad.add(path)
        self.errors.append(f"{place(node)}: {path or 'recipe'}: {message}")

    def build(self, kind: Any, node: yaml.Node, path: str, limits: Mapping = {}) -> Any:
        """The node's value as `kind`, or None after `fail`."""
        self.places[path] = place(node)
        if classes := forms(kind):
            return self.record(classes[""], node, path) if "" in classes else self.tagged(classes, node, path)
        args = typing.get_args(kind)
        if types.NoneType in args and is_null(node):
            return None
        if typing.get_origin(kind) in UNIONS:
            # Of lists and mappings one that takes them, of single values the first.
            choices = [a for a in args if a is not types.NoneType]
            wanted = {yaml.SequenceNode: tuple, yaml.MappingNode: dict}.get(type(node))
            fitting = [a for a in choices if (typing.get_origin(a) or a) is wanted]
            return self.build((fitting or choices)[0], node, path, limits)
        if typing.get_origin(kind) is tuple:
            return self.items(args, node, path, limits)
        value = plain(node)
        if typing.get_origin(kind) is Literal:
            # Compared with its type: True equals 1, but is no ZeRO stage.
            if (type(value), value) not in [(type(a), a) for a in args]:
                return self.fail(path, node, unknown("value", str(value), map(str, args)))
            return value
        return self.scalar(kind, value, node, path, limits)

    def scalar(self, kind: type, value: Any, node: yaml.Node, path: str, limits: Mapping) -> Any:
        if kind is float and type(value) is int:
            value = float(value)
        elif kind is int and type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not kind:
            return self.fail(path, node, f"wanted {TYPE_NAMES[kind]}, got {value!r}")
        if kind is float and not math.isfinite(value):
            return self.fail(path, node, f"wanted a finite number, got {value!r}")
        for key, (holds, words) in LIMITS.items():
            if key in limits and not holds(value, limits[key]):
                return self.fail(path, node, f"{value!r} is out of range, must be {words} {limits[key]}")
        return value

    def items(self, args: tuple, node: yaml.Node, path: str, limits: Mapping) -> tuple | None:
        if not isinstance(node, yaml.SequenceNode):
            return self.fail(path, node, f"wanted a list, got {plain(node)!r}")
        kinds = [args[0]] * len(node.value) if args[-1] is ... else args
        if len(kinds) != len(node.value):
            return self.fail(path, node, f"wanted a list of {len(kinds)}, got {plain(node)!r}")
        pairs = enumerate(zip(kinds, node.value, strict=True))
        return tuple(self.build(k, n, f"{path}.{i}", limits) for i, (k, n) in pairs)

    def tagged(self, classes: dict[str, type], node: yaml.Node, path: str) -> Any:
        tag = dataclasses.fields(next(iter(classes.values())))[0].name
        if not isinstance(node, yaml.MappingNode):
            return self.fail(path, node, f"wanted a mapping with {tag!r}, got {plain(node)!r}")
        given = next((value for key, value in node.value if key.value == tag), None)
        if given is None:
            return self.fail(path, node, f"{tag!r} is missing; one of {', '.join(classes)}")
        name = str(plain(given))
        if name not in classes:
            return self.fail(path, given, unknown(tag, name, classes))
        return self.record(classes[name], node, path)

    def record(self, cls: type, node: yaml.Node, path: str) -> Any:
        if is_null(node):
            node = empty_mapping(node.start_mark)
        if not isinstance(node, yaml.MappingNode):
            return self.fail(path, node, f"wanted a mapping, got {plain(node)!r}")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        prefix = f"{path}." if path else ""
        for key_node, value_node in node.value:
            key = str(plain(key_node))
            if key in first:
                self.fail(prefix + key, key_node, f"given twice, first at {place(first[key])}")
            elif key not in fields:
                self.fail(prefix + key, key_node, unknown("key", key, fields, self.elsewhere.get(key)))
            else:
                values[key] = self.build(fields[key].type, value_node, prefix + key, fields[key].metadata)
            first.setdefault(key, key_node)
        for name, f in fields.items():
            if name in values or {f.default, f.default_factory} != {dataclasses.MISSING}:
                continue
            if forms(f.type):
                values[name] = self.build(f.type, empty_mapping(node.start_mark), prefix + name)
            else:
                values[name] = self.fail(prefix + name, node, f"missing ({f.metadata['doc'].rstrip('.')})")
        return cls(**values)
