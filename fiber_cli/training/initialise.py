"""First weights of a run: another run's checkpoint, or public backbones."""

from pathlib import Path
from typing import Any

from fiber_cli.checkpoints.backbones import load_roberta, load_swin
from fiber_cli.checkpoints.config import read_config
from fiber_cli.checkpoints.directory import choose
from fiber_cli.checkpoints.loading import saved_tokenizer
from fiber_cli.checkpoints.position_bias import fit_position_biases
from fiber_cli.checkpoints.weights import load_into, load_weights
from fiber_cli.config.recipe import ModelSettings
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import UserError
from fiber_cli.printing import say
from fiber_cli.tasks import declared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext


def initialise(task: Task, context: TaskContext[Any], path: str | Path) -> None:
    """Weights of another run's checkpoint, and a word on what is new, what is left out and what was resized.

    Raises UserError where tokenisers or weights do not fit.
    """
    choice = choose(path)
    path = choice.path
    other = saved_tokenizer(path)
    if other.get_vocab() != context.tokenizer.get_vocab():
        raise UserError(
            f"{path}: its tokeniser is not the recipe's, so that its word embeddings would stand for other words; "
            f"set model.tokenizer to {path / 'tokenizer'}"
        )
    weights = load_weights(path)
    fitted = fit_position_biases(weights, task)
    changes = declared(context.settings.name).init_from
    dropped_prefixes = (*changes.dropped, *task.without_place)
    try:
        fresh, dropped = load_into(task, fitted, expect_missing=changes.fresh, expect_unexpected=dropped_prefixes)
    except UserError as error:
        source = read_config(path).task.name
        message = f"{path}, a checkpoint of {source}, cannot start {context.settings.name}: {error.message}"
        raise UserError(message, *error.details) from error
    if not is_main():
        return
    resized = sum(fitted[name] is not weights[name] for name in weights)
    used = len(weights) - len(dropped)
    say(f"initialised from {choice}: {used} tensors, of which {resized} position-bias tables were resized")
    of_other_settings = [name for name in dropped if name.startswith(task.without_place)]
    usual = [name for name in dropped if name not in of_other_settings]
    for what, names in (("new", fresh), ("left out", usual)):
        say(f"  {what}: {', '.join(names) or 'none'}")
    if of_other_settings:
        say(f"  left out, because task has other settings than the checkpoint's: {', '.join(of_other_settings)}")


def load_backbones(task: Task, model: ModelSettings) -> None:
    """The public weights that a recipe names for the two towers. Raises UserError."""
    if model.swin:
        load_swin(task.encoder, model.swin)
    if model.roberta:
        load_roberta(task.encoder, model.roberta)
