"""Settings of visual entailment."""

from dataclasses import dataclass
from typing import Literal

from fiber_cli.settings import Owner, TaskSettings, option


@dataclass(frozen=True)
class EntailmentSettings(TaskSettings):
    """Visual entailment."""

    name: Literal["entailment"]
    label_smoothing: float = option("Share of the target that all answers get.", 0.0, ge=0, lt=1, owner=Owner.MODEL)
    neutral: float = option("Chance of a statement about another picture.", 0.33, ge=0, le=1, owner=Owner.READER)


def entailment_metrics(settings: EntailmentSettings) -> tuple[str, ...]:
    return ("entailment/accuracy",)
