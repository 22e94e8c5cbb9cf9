"""The declaration of a data format: everything that the rest of the program needs to know of it."""

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fiber_cli.data.source import Source
from fiber_cli.errors import DeclarationError
from fiber_cli.settings import OF_EVERY_ENTRY, SourceSettings, field_types


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of source that recipes can name.

    settings: its entry in a recipe, whose own fields are the arguments of the source's constructor.
    source: its reader; what tasks can use it for follows from the classes of `data.source` that it is derived from.
    Raises DeclarationError where these three do not belong together.
    """

    kind: str
    settings: type[SourceSettings]
    source: type[Source]

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise DeclarationError(f"format {self.kind!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        fields = {setting.name: setting for setting in dataclasses.fields(self.settings)}
        # A contributor may not have run a type checker.
        source: Any = self.source
        settings = self.settings.__name__
        if not (isinstance(source, type) and issubclass(source, Source)):
            yield f"source: {source!r} is no Source of fiber_cli/data/source.py"
            return
        if "kind" not in vars(self.settings).get("__annotations__", {}):
            yield f"{settings} needs a field of its own, kind: Literal[{self.kind!r}]"
        kinds = typing.get_args(field_types(self.settings)["kind"])
        if self.kind not in kinds:
            yield f"{settings}.kind is a Literal of {kinds}, without it"
        undocumented = [name for name, setting in fields.items() if name != "kind" and "doc" not in setting.metadata]
        if undocumented:
            yield f"{', '.join(undocumented)} need an option() that says what they mean"
        if inspect.isabstract(self.source):
            missing = ", ".join(sorted(self.source.__abstractmethods__))
            yield f"{self.source.__name__} lacks {missing}"
        parameters = inspect.signature(self.source).parameters
        unknown = fields.keys() - parameters.keys() - OF_EVERY_ENTRY
        if unknown:
            yield f"{self.source.__name__} has no argument {', '.join(sorted(unknown))}"
        for parameter in parameters.values():
            is_needed = parameter.default is parameter.empty
            is_several = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if is_needed and not is_several and parameter.name not in fields:
                yield f"{source.__name__} needs the argument {parameter.name}, which no setting of {settings} gives"

    def can_be_read_as(self, wanted: type[Source]) -> bool:
        """Whether the format's samples are what a task wants."""
        return issubclass(self.source, wanted)
