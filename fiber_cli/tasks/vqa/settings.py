"""Settings of visual question answering."""

from dataclasses import dataclass
from typing import Literal

from fiber_cli.settings import Owner, TaskSettings, option


@dataclass(frozen=True)
class VqaSettings(TaskSettings):
    """Visual question answering (paper section 3.3)."""

    name: Literal["vqa"]
    answers: str | None = option(
        "Vocabulary made by `fiber vqa-answers`, below data.root or here; null = the built-in scenes'.",
        None,
        path=True,
        made_by="vqa-answers",
        owner=Owner.RUN,
    )


def vqa_metrics(settings: VqaSettings) -> tuple[str, ...]:
    return ("vqa/accuracy",)
