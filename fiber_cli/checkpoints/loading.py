"""From a checkpoint directory to a task that is ready to predict."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig
from fiber_cli.tasks import TASKS
from fiber_cli.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Loaded(NamedTuple):
    """A task in evaluation mode on the CPU, its tokeniser, config.json, and the directory they are from."""

    task: nn.Module
    tokenizer: "PreTrainedTokenizerBase"
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
    def labels(self) -> list[str] | None:
        """The answers of VQA; the category names that detection was trained on."""
        return self.config["labels"]

    @property
    def fingerprint(self) -> str:
        """What tells this checkpoint's weights from all others: a digest of their file."""
        with (self.path / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).hexdigest()[:32]


def new_task(config: dict[str, Any]) -> Task:
    """The task that a checkpoint's config.json describes, with fresh weights."""
    settings = dict(config["task"])
    name = settings.pop("name")
    if name == "vqa":
        settings["labels"] = len(config["labels"])
    return TASKS[name](FiberConfig.from_dict(config["model"]), **settings)


def load(path: str | Path) -> Loaded:
    """The task of a checkpoint directory, or of what `checkpoint.resolve` finds for `path`. Raises UserError."""
    path = checkpoint.resolve(path)
    config = checkpoint.load_config(path)
    name = config["task"]["name"]
    if name not in TASKS:
        raise UserError(f"{path}: task {name!r} is unknown to this version; it knows {', '.join(TASKS)}")
    try:
        task = new_task(config)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path / 'config.json'} does not describe a model of this version: {error}") from error
    checkpoint.load_into(task, checkpoint.load_weights(path))
    return Loaded(task.eval(), load_tokenizer(path / "tokenizer"), config, path)
