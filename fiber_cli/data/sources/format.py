"""The declaration of a data format: everything that the rest of the program needs to know of it."""

import dataclasses
import inspect
import typing
from dataclasses import dataclass

from fiber_cli.data.source import Source
from fiber_cli.settings import SourceSettings


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of source that recipes can name.

    settings: its entry in a recipe, whose fields but `kind` and `weight` are the arguments of the source's constructor.
    source: its reader; what tasks can use it for follows from the classes of `data.source` that it is derived from.
    Raises TypeError where these three do not belong together.
    """

    kind: str
    settings: type[SourceSettings]
    source: type[Source]

    def __post_init__(self) -> None:
        fields = {setting.name: setting for setting in dataclasses.fields(self.settings)}
        kinds = typing.get_args(fields["kind"].type)
        if self.kind not in kinds:
            raise TypeError(f"format {self.kind!r}: {self.settings.__name__}.kind is a Literal of {kinds}, without it")
        undocumented = [name for name, setting in fields.items() if name != "kind" and "doc" not in setting.metadata]
        if undocumented:
            names = ", ".join(undocumented)
            raise TypeError(f"format {self.kind!r}: {names} need an option() that says what they mean")
        if inspect.isabstract(self.source):
            missing = ", ".join(sorted(self.source.__abstractmethods__))
            raise TypeError(f"format {self.kind!r}: {self.source.__name__} lacks {missing}")
        parameters = inspect.signature(self.source).parameters
        unknown = fields.keys() - parameters.keys() - {"kind", "weight"}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise TypeError(f"format {self.kind!r}: {self.source.__name__} has no argument {names}")

    def can_be_read_as(self, wanted: type[Source]) -> bool:
        """Whether the format's samples are what a task wants."""
        return issubclass(self.source, wanted)
