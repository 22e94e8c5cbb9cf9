"""First weights of a run: another run's checkpoint, or public backbones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fiber_cli.checkpoints.backbones import load_roberta, load_swin, load_towers
from fiber_cli.checkpoints.config import read_config
from fiber_cli.checkpoints.digests import check
from fiber_cli.checkpoints.directory import Choice, choose
from fiber_cli.checkpoints.loading import saved_tokenizer
from fiber_cli.checkpoints.positions import POSITION_EMBEDDING, fit_positions
from fiber_cli.checkpoints.weights import load_into, load_weights, named_weights
from fiber_cli.config.recipe import ModelSettings
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import UserError, first_names
from fiber_cli.printing import say
from fiber_cli.tasks import declared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext
from fiber_cli.training.model_sizes import differing_sizes


def initialise(task: Task, context: TaskContext[Any], path: str | Path) -> None:
    """Weights of another run's checkpoint, and a word on what is new, what is left out and what was resized.

    Raises UserError where tokenisers or weights do not fit.
    """
    choice = choose(path)
    path = choice.path
    _check_tokenizer(path, context)
    weights = load_weights(path)
    fitted = fit_positions(weights, task)
    changes = declared(context.settings.name).init_from
    dropped_prefixes = (*changes.dropped, *task.without_place)
    try:
        # A model that learned no positions before may learn them now.
        expected = (*changes.fresh, f"encoder.{POSITION_EMBEDDING}")
        fresh, dropped = load_into(task, fitted, expect_missing=expected, expect_unexpected=dropped_prefixes)
    except UserError as error:
        source = read_config(path).task.name
        message = f"{path}, a checkpoint of {source}, cannot start {context.settings.name}: {error.message}"
        differing = differing_sizes(read_config(path).model, context.model)
        if differing:
            message += f": it has {first_names(differing)}"
        raise UserError(message, *error.details) from error
    if not is_main():
        return
    resized = sum(fitted[name] is not weights[name] for name in weights)
    used = len(weights) - len(dropped)
    say(f"initialised from {choice}: {used} tensors, of which {resized} tables of positions were resized")
    of_other_settings = [name for name in dropped if name.startswith(task.without_place)]
    usual = [name for name in dropped if name not in of_other_settings]
    for what, names in (("new", fresh), ("left out", usual)):
        say(f"  {what}: {', '.join(names) or 'none'}")
    if of_other_settings:
        in_words = ", ".join(of_other_settings)
        say(f"  left out, because task has other settings than the checkpoint's: {in_words}")


def load_backbones(task: Task, model: ModelSettings) -> None:
    """The public weights that a recipe names for the two towers. Raises UserError."""
    if model.swin:
        load_swin(task.encoder, model.swin)
    if model.roberta:
        load_roberta(task.encoder, model.roberta)


def initialise_towers(task: Task, context: TaskContext[Any], source: str) -> None:
    """The two towers of another run's checkpoint, `model.towers`, and of its heads what the task has in the same sizes;
    fusion keeps its own start. Raises UserError where there is no such checkpoint, and where tokenisers or towers do
    not fit."""
    choice = chosen_towers(source)
    with _told_of_towers():
        check(choice.path)
    _check_tokenizer(choice.path, context)
    weights = load_weights(choice.path)
    load_towers(task.encoder, weights, str(choice.path))
    taken, fresh = _load_heads(task, weights)
    if is_main():
        say(f"towers from {choice}; fusion is new")
        say(f"  heads from there: {', '.join(taken) or 'none'}")
        say(f"  new: {', '.join(fresh) or 'none'}")


def chosen_towers(source: str) -> Choice:
    """The checkpoint that `model.towers` names. Raises UserError where there is none."""
    with _told_of_towers():
        return choose(source)


@contextmanager
def _told_of_towers() -> Iterator[None]:
    """Inside, a UserError says which setting it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"model.towers: {error.message}", *error.details) from error


def _load_heads(task: Task, weights: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Fill what is not the encoder's, head by head, from weights of the same names and shapes. The heads that are, and
    those that keep their start."""
    heads: dict[str, dict[str, Tensor]] = {}
    for name, value in named_weights(task).items():
        head, _, _ = name.partition(".")
        if head != "encoder":
            heads.setdefault(head, {})[name] = value
    taken, fresh = [], []
    for head, ours in heads.items():
        if any(name not in weights or weights[name].shape != value.shape for name, value in ours.items()):
            fresh.append(head)
            continue
        taken.append(head)
        with torch.no_grad():
            for name, value in ours.items():
                value.copy_(weights[name])
    return taken, fresh


def _check_tokenizer(path: Path, context: TaskContext[Any]) -> None:
    other = saved_tokenizer(path)
    if other.get_vocab() != context.tokenizer.get_vocab():
        raise UserError(
            f"{path}: its tokeniser is not the recipe's, so that its word embeddings would stand for other words; "
            f"set model.tokenizer to {path / 'tokenizer'}"
        )
