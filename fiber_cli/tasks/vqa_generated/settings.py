"""Settings of visual question answering by generation."""

from dataclasses import dataclass
from typing import Literal

from fiber_cli.settings import Owner, TaskSettings, option


@dataclass(frozen=True)
class GeneratedVqaSettings(TaskSettings):
    """Visual question answering with generated answers, out of no list (the paper's open-ended setting)."""

    name: Literal["vqa_generated"]
    answer_length: int = option(
        "Tokens of an answer, its end included; longer ones are cut and counted.", 10, ge=2, owner=Owner.MODEL
    )
    beam: int = option("Beam width.", 3, ge=1, owner=Owner.MODEL)


def generated_vqa_metrics(settings: GeneratedVqaSettings) -> tuple[str, ...]:
    return ("vqa/accuracy",)
