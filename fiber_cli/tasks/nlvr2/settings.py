"""Settings of visual reasoning."""

from dataclasses import dataclass
from typing import Literal

from fiber_cli.settings import TaskSettings


@dataclass(frozen=True)
class Nlvr2Settings(TaskSettings):
    """Visual reasoning: is a statement true of two images, or of one (paper section 3.3)."""

    name: Literal["nlvr2"]


def nlvr2_metrics(settings: Nlvr2Settings) -> tuple[str, ...]:
    return "nlvr2/accuracy", "nlvr2/consistency"
