"""From a checkpoint directory to a task that is ready to predict."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fiber_cli.checkpoints import shipped
from fiber_cli.checkpoints.config import CheckpointConfig, read_config
from fiber_cli.checkpoints.digests import TOKENIZER_FOLDER, check
from fiber_cli.checkpoints.directory import check_name, choose
from fiber_cli.checkpoints.runs import shipped_with
from fiber_cli.checkpoints.unfilled import filled
from fiber_cli.checkpoints.weights import stored_weights
from fiber_cli.data.quick_tokenizer import read_quickly
from fiber_cli.data.text import load_tokenizer, read_small_letters
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import WRONG_CONTENT, DeclarationError, UserError
from fiber_cli.printing import say
from fiber_cli.tasks import declared, tasks_with
from fiber_cli.tasks.abilities import Ability
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.declaration import TaskDeclaration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AbilityType = TypeVar("AbilityType", bound=Ability)


class Loaded(NamedTuple):
    """A task in evaluation mode on the CPU, what it knows of its input, config.json, and the directory of them all."""

    task: Task
    context: TaskContext[Any]
    config: CheckpointConfig
    path: Path

    @property
    def declaration(self) -> TaskDeclaration:
        return declared(self.name)

    @property
    def name(self) -> str:
        """The task's name in `TASKS`."""
        return self.config.task.name

    @property
    def fingerprint(self) -> str:
        """What tells this checkpoint's weights from all others: a digest of their file."""
        with (self.path / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).hexdigest()[:32]

    def can(self, ability: type[Ability]) -> bool:
        """Whether the task has an ability, and its settings do not switch it off."""
        task: object = self.task
        return isinstance(task, ability) and ability not in self.task.switched_off

    def ability(self, ability: type[AbilityType]) -> AbilityType:
        """The task as something that has an ability. Raises UserError, naming the tasks that have it, where it has
        not."""
        task: object = self.task
        if isinstance(task, ability) and ability not in self.task.switched_off:
            return task
        others = "".join(f", or {name}" for name in shipped_with(ability))
        raise UserError(
            f"{shipped.label(self.path)} is a checkpoint of {self.name}, without {ability.needs}; use one of "
            f"{commands_for(ability)}{others}"
        )


def commands_for(ability: type[Ability]) -> str:
    """The commands that train tasks with an ability, in words."""
    commands = [f"`fiber {declared(name).verb} {name}`" for name in tasks_with(ability)]
    *others, last = commands
    return f"{', '.join(others)} or {last}" if others else last


def new_task(context: TaskContext[Any]) -> Task:
    """A task with fresh weights. Raises DeclarationError where its declaration is not true of its module."""
    declaration = declared(context.settings.name)
    return declaration.load_module().from_context(context)


def saved_tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint directory. Raises UserError where it is missing or damaged."""
    folder = path / TOKENIZER_FOLDER
    try:
        if not folder.is_dir():
            raise UserError("it is not a folder")
        tokenizer = load_tokenizer(folder)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise UserError("it knows no words")  # as the library reads some damaged files
        return tokenizer
    except UserError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} cannot be read ({reason}); copy the whole checkpoint again") from error


def knows_small_letters(path: Path, config: CheckpointConfig) -> bool:
    """Whether a checkpoint was trained on small letters alone. Those that ship were, whatever wrote them."""
    return config.small_letters or shipped.is_shipped(path)


def load(path: str | Path, *, latest: bool = False) -> Loaded:
    """The task of a checkpoint directory, or of what `directory.choose` finds for `path`, which is then said on
    standard error. Raises UserError."""
    choice = choose(path, latest=latest)
    if choice.reason and is_main():
        say(f"checkpoint: {choice}")
    path = choice.path
    check_name(path)
    check(path)
    config = read_config(path)
    tokenizer = read_quickly(path / TOKENIZER_FOLDER) or saved_tokenizer(path)
    if knows_small_letters(path, config):
        read_small_letters(tokenizer)
    context = TaskContext(config.task, config.model, tokenizer, config.text_length, config.labels)
    weights = stored_weights(path)
    try:
        task = filled(lambda: new_task(context), weights)
    except DeclarationError:
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (RuntimeError, *WRONG_CONTENT) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path / 'config.json'} does not describe a model of this version: {reason}") from error
    return Loaded(task.eval(), context, config, path)
