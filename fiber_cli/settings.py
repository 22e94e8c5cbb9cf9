"""What the frozen dataclasses of a recipe are made of.

Every setting is a field with its meaning, its limits and its owner, so that nothing else sorts settings by name: the
reference of `fiber recipes schema`, the parser, `config.json` and the constructors read these fields.
"""

import dataclasses
import operator
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Any, TypeVar

from fiber_cli.errors import EXIT_USAGE, DeclarationError, UserError

Declared = TypeVar("Declared")
#: Limit of a setting → what holds for it, in code and in words.
LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "gt": (operator.gt, "greater than"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "less than"),
    "le": (operator.le, "at most"),
}


class RecipeError(UserError):
    """A recipe that cannot be used."""

    exit_code = EXIT_USAGE


class Owner(StrEnum):
    """Whose a setting is. Those of the model and of the reader are stored with the weights."""

    #: An argument of the module's constructor.
    MODEL = "model"
    #: How data becomes the module's input, in training and in evaluation.
    READER = "reader"
    #: Of the training run alone, such as the path of a file that it reads.
    RUN = "run"


def option(
    doc: str,
    default: Any = dataclasses.MISSING,
    *,
    factory: Any = dataclasses.MISSING,
    owner: Owner | None = None,
    formerly: str | None = None,
    **metadata: Any,
) -> Any:
    """A field with its one-line meaning, its limits (see `LIMITS`), and `path=True` where it names files, with
    `made_by`, where a command of the program writes them.

    owner: needed in settings of tasks. formerly: the name that older recipes and checkpoints have for it.
    """
    described = {"doc": doc, "owner": owner, "formerly": formerly, **metadata}
    return field(default=default, default_factory=factory, metadata=described)


@dataclass(frozen=True)
class TaskSettings:
    """The `task` section of a recipe; `name` says of which task."""

    name: str

    @property
    def switched_off(self) -> frozenset[type[object]]:
        """The abilities (`tasks.abilities`) of the task's declaration that these settings leave out."""
        return frozenset()


def path_settings(kind: type[Any]) -> tuple[str, ...]:
    """The settings of a dataclass of them that name files or folders, in their order."""
    return tuple(setting.name for setting in dataclasses.fields(kind) if setting.metadata.get("path"))


def paths_in(value: Any) -> Iterator[str]:
    """The paths in the value of such a setting: one, all in a list or a mapping of them, none of null."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value.values()
    else:
        yield from value or ()


#: Settings of an entry of any kind: which source it is, how it is mixed with others and what it leaves out. They are no
#: arguments of the source's constructor.
OF_EVERY_ENTRY = frozenset({"kind", "weight", "during", "exclude"})


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """An entry of `data.train` or `data.val`; `kind` says of which format."""

    kind: str
    weight: float = option("Times that an epoch holds this source; 0.5 = a random half of it.", 1.0, gt=0)
    during: tuple[float, float] = option(
        "From where to where of an epoch its samples come, such as [0, 0.2]: with one epoch a curriculum.",
        (0.0, 1.0),
        ge=0,
        le=1,
    )
    exclude: str | tuple[str, ...] | None = option(
        "Images left out: lists of ids, image hashes, JSON files of data sets (Karpathy's: all but train); globs.",
        None,
        path=True,
    )

    @classmethod
    def path_names(cls) -> tuple[str, ...]:
        """The settings that say where the source's files lie, in their order."""
        return tuple(name for name in path_settings(cls) if name not in OF_EVERY_ENTRY)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the source's constructor: all settings but those of every entry and what is null."""
        arguments = {}
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if setting.name not in OF_EVERY_ENTRY and value is not None:
                arguments[setting.name] = value
        return arguments


#: Of whole numbers that have no limit of their own: more than anything is counted in.
LARGEST = 10**12


def out_of_range(value: Any, limits: Mapping[str, Any]) -> str | None:
    """What is wrong with a number beside the limits of its field's metadata, in words."""
    for key, (holds, words) in LIMITS.items():
        if key in limits and not holds(value, limits[key]):
            return f"{value!r} is out of range, must be {words} {limits[key]}"
    if isinstance(value, int) and "le" not in limits and "lt" not in limits and abs(value) > LARGEST:
        return f"{value!r} is out of range, must be at most {LARGEST:,}"
    return None


def owned(settings: TaskSettings, *owners: Owner) -> dict[str, Any]:
    """The settings that belong to one of `owners`, by name."""
    return {setting.name: getattr(settings, setting.name) for setting in _of_owners(settings, owners)}


def _of_owners(settings: TaskSettings, owners: tuple[Owner, ...]) -> Iterator[dataclasses.Field[Any]]:
    for setting in dataclasses.fields(settings):
        if setting.metadata.get("owner") in owners:
            yield setting


def field_types(settings: type[Any]) -> dict[str, Any]:
    """Field → type of a dataclass, `Annotated` as it is, also where its module postpones annotations
    (`from __future__ import annotations`), whose fields have texts as types. Raises DeclarationError for an annotation
    that names nothing at run time."""
    try:
        return typing.get_type_hints(settings, include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{settings.__module__}.{settings.__qualname__}: the type of a field cannot be read ({error}); import what "
            "it names at the top of the file, not under TYPE_CHECKING or in a function"
        ) from error


def load_named(module: str, name: str, *, where: str) -> Any:
    """`name` of a module. Raises DeclarationError, `where` in front, where there is no such module or name in it."""
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        # A package that the module itself needs is missing under its own name.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise DeclarationError(f"{where}: there is no module {error.name}") from error
    if name not in vars(loaded):
        raise DeclarationError(f"{where}: {module} has no {name}")
    return vars(loaded)[name]


def load_declaration(package: str, table: str, key: str, line: str, *, form: str, kind: type[Declared]) -> Declared:
    """What the line `key: line` of a table in a package's `__init__.py` declares. Raises DeclarationError for a line
    that is not of `form`, such as "module:DECLARATION", or leads to nothing of this kind."""
    where = f"the line {key!r}: {line!r} of {table} in {package.replace('.', '/')}/__init__.py"
    module, colon, name = line.partition(":")
    if not (module and colon and name):
        raise DeclarationError(f"{where}: give {form}")
    declaration = load_named(f"{package}.{module}", name, where=where)
    if not isinstance(declaration, kind):
        raise DeclarationError(f"{where}: {name} is no {kind.__name__}")
    return declaration


def former_names(settings: type[Any]) -> dict[str, str]:
    """Former name → present name of the settings of a dataclass that were renamed."""
    renamed = {}
    for setting in dataclasses.fields(settings):
        former = setting.metadata.get("formerly")
        if former is not None:
            renamed[former] = setting.name
    return renamed
