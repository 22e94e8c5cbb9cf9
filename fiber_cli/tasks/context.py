"""What a task knows of its run or checkpoint, beside the weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from fiber_cli.model.config import FiberConfig
from fiber_cli.settings import TaskSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Settings = TypeVar("Settings", bound=TaskSettings)


@dataclass(frozen=True)
class TaskContext(Generic[Settings]):
    """settings: the recipe's `task` section. model: sizes, the image size (height, width) among them. text_length:
    tokens a text. labels: the answers of VQA, the category names of detection data; None where the task has none."""

    settings: Settings
    model: FiberConfig
    tokenizer: "PreTrainedTokenizerBase"
    text_length: int
    labels: tuple[str, ...] | None = None
