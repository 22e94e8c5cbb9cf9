"""Settings in a module that postpones annotations, so that the types of their fields are texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiber_cli.settings import Owner, SourceSettings, TaskSettings, option

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class LateSettings(TaskSettings):
    """Of a task."""

    name: Literal["late"]
    luck: float = option("Of the guesser.", 0.5, ge=0, le=1, owner=Owner.MODEL)
    sides: tuple[int, ...] | None = option("Of the dice.", None, ge=1, owner=Owner.READER)


@dataclass(frozen=True)
class UnreadableSettings(TaskSettings):
    """Of a task, with a type that there is for type checkers alone."""

    name: Literal["unreadable"]
    luck: Decimal = option("Of the guesser.", owner=Owner.MODEL)


@dataclass(frozen=True)
class LateTextsSettings(SourceSettings):
    """Of a source."""

    kind: Literal["texts"]
    path: str = option("A file.", path=True)
    length: int = option("How many.", 3, ge=1)
