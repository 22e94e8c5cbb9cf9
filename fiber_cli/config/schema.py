"""The reference of all settings, `fiber recipes schema`."""

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fiber_cli.config.recipe import DataSettings, Recipe
from fiber_cli.config.strict import OneOf, describe, one_of, whole_forms
from fiber_cli.settings import LIMITS, field_types


class _Section(NamedTuple):
    """A part of the reference: what it is called, the names that choose it, and its settings."""

    title: str
    names: list[str]
    settings: type[Any]


def schema_markdown() -> str:
    """The reference of all sections and keys."""
    lines = ["# Recipe reference", ""]
    single = [field for field in dataclasses.fields(Recipe) if not _is_section(field)]
    lines += _table(single, field_types(Recipe))
    for section in _sections():
        named = ", ".join(f"`{name}`" for name in section.names)
        title = f"{section.title}: {named}" if named else section.title
        about = " ".join((section.settings.__doc__ or "").split())
        lines += ["", f"## {title}", "", about, ""]
        lines += _table(dataclasses.fields(section.settings), field_types(section.settings))
    return "\n".join(lines) + "\n"


def _is_section(field: "dataclasses.Field[Any]") -> bool:
    return dataclasses.is_dataclass(field.type) or one_of(field.type) is not None


def _sections() -> Iterator[_Section]:
    for field in dataclasses.fields(Recipe):
        choices = one_of(field.type)
        if choices is not None:
            yield from _forms(f"`{field.name}`", choices)
        elif dataclasses.is_dataclass(field.type):
            yield _Section(f"`{field.name}`", [], typing.cast("type[Any]", field.type))
        if field.type is DataSettings:
            yield from _forms("an item of `data.train` or `data.val`", _sources())


def _sources() -> OneOf:
    entries = next(field for field in dataclasses.fields(DataSettings) if field.name == "train")
    choices = one_of(typing.get_args(entries.type)[0])
    assert choices is not None
    return choices


def _forms(title: str, choices: OneOf) -> Iterator[_Section]:
    """A form once, with all names that choose it."""
    names_of: dict[type[Any], list[str]] = {}
    for name, settings in whole_forms(choices).items():
        names_of.setdefault(settings, []).append(name)
    for settings, names in names_of.items():
        yield _Section(title, names, settings)


def _table(fields: "Iterable[dataclasses.Field[Any]]", kinds: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | type and limits | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields:
        limits = [f"{words} {field.metadata[key]}" for key, (_, words) in LIMITS.items() if key in field.metadata]
        kind = ", ".join([describe(kinds[field.name]), *limits])
        meaning = field.metadata.get("doc", "Says which form of this section it is.")
        yield f"| `{field.name}` | {kind} | {_default(field)} | {meaning} |"


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    if field.default is dataclasses.MISSING:
        return "required"
    return f"`{json.dumps(field.default)}`"
