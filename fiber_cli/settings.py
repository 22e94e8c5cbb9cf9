"""What the frozen dataclasses of a recipe are made of.

Every setting is a field with its meaning, its limits and its owner, so that nothing else sorts settings by name: the
reference of `fiber recipes schema`, the parser, `config.json` and the constructors read these fields.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fiber_cli.errors import EXIT_USAGE, UserError


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
    """A field with its one-line meaning, its limits (see `config.strict`), and `path=True` where it names files, with
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


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """An entry of `data.train` or `data.val`; `kind` says of which format."""

    kind: str
    weight: float = option("Times that an epoch holds this source; 0.5 = a random half of it.", 1.0, gt=0)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the source's constructor: all settings but the kind, the weight and what is null."""
        arguments = {}
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if setting.name not in ("kind", "weight") and value is not None:
                arguments[setting.name] = value
        return arguments


def owned(settings: TaskSettings, *owners: Owner) -> dict[str, Any]:
    """The settings that belong to one of `owners`, by name."""
    return {setting.name: getattr(settings, setting.name) for setting in _of_owners(settings, owners)}


def _of_owners(settings: TaskSettings, owners: tuple[Owner, ...]) -> Iterator[dataclasses.Field[Any]]:
    for setting in dataclasses.fields(settings):
        if setting.metadata.get("owner") in owners:
            yield setting


def former_names(settings: type[Any]) -> dict[str, str]:
    """Former name → present name of the settings of a dataclass that were renamed."""
    renamed = {}
    for setting in dataclasses.fields(settings):
        former = setting.metadata.get("formerly")
        if former is not None:
            renamed[former] = setting.name
    return renamed
