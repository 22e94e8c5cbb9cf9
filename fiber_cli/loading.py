"""From a checkpoint directory to a task that is ready to predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from fiber_cli import checkpoint
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig
from fiber_cli.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Loaded(NamedTuple):
    """A task in evaluation mode on the CPU, its tokeniser, config.json, and the directory they are from."""

    task: nn.Module
    tokenizer: PreTrainedTokenizerBase
    config: dict[str, Any]
    path: Path

    @property
    def name(self) -> str:
        """The task's name in `TASKS`."""
        return self.config["task"]["name"]

    @property
    def text_length(self) -> int:
        return self.config["preprocessing"]["text_length"]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return tuple(self.config["preprocessing"]["image_size"])

    @property
    def sides(self) -> tuple[int, int]:
        """The shorter side, and the most that the longer one may have, of images for region-level tasks."""
        return self.config["preprocessing"]["short_side"], self.config["preprocessing"]["longest_side"]

    @property
    def labels(self) -> list[str] | None:
        """The answers of VQA; the category names that detection was trained on."""
        return self.config["labels"]

    @property
    def fingerprint(self) -> str:
        """What tells this checkpoint's weights from others'."""
        return checkpoint.fingerprint(self.path)


def load(path: str | Path) -> Loaded:
    """The task of a checkpoint directory, or of what `checkpoint.resolve` finds for `path`. Raises UserError."""
    path = checkpoint.resolve(path)
    config = checkpoint.load_config(path)
    settings = dict(config["task"])
    name = settings.pop("name")
    if name not in TASKS:
        raise UserError(f"{path}: task {name!r} is unknown to this version; it knows {', '.join(TASKS)}")
    if name == "vqa":
        settings["labels"] = len(config["labels"])
    try:
        task = TASKS[name](FiberConfig.from_dict(config["model"]), **settings)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path / 'config.json'} does not describe a model of this version: {error}") from error
    checkpoint.load_into(task, checkpoint.load_weights(path))
    return Loaded(task.eval(), load_tokenizer(path / "tokenizer"), config, path)
