"""Runs below the current folder and their checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fiber_cli.cli.processes import is_first_rank
from fiber_cli.printing import say
from fiber_cli.tasks import tasks_with
from fiber_cli.tasks.abilities import Ability, Embedding, Matching

if TYPE_CHECKING:
    from fiber_cli.checkpoints.runs import Chosen, Wanted


class Models(NamedTuple):
    """Checkpoints or runs. checkpoint: what is asked, of retrieval the dual encoder; itm_checkpoint: scores pairs; None
    where the first does."""

    checkpoint: Path
    itm_checkpoint: Path | None = None


def checkpoint_for(wanted: "Wanted", named: Path | None) -> Path:
    """The checkpoint that is named, of `builtin` the shipped one that can do what is wanted, or without a name the run
    of `find_run`. UserError where there is none."""
    return find_run(wanted) if named is None else named_for(wanted, named)


def named_for(wanted: "Wanted", named: Path) -> Path:
    """What is named, and of `builtin` the directory of the shipped checkpoint that can do what is wanted, which loading
    it tells. UserError where none can."""
    from fiber_cli.checkpoints.runs import choose_shipped
    from fiber_cli.checkpoints.shipped import name_in

    return choose_shipped(wanted) if name_in(named) == "" else named


def named_to_start(task: str, named: Path) -> Path:
    """The same for the checkpoint that training a task begins with."""
    from fiber_cli.checkpoints.shipped import name_in
    from fiber_cli.checkpoints.starting import shipped_to_start

    return shipped_to_start(task) if name_in(named) == "" else named


def find_run(wanted: "Wanted") -> Path:
    """The folder of the run below runs/ that does best what is wanted; which and why is said on standard error.
    UserError where there is none."""
    from fiber_cli.checkpoints.runs import choose_run

    chosen = choose_run(wanted)
    _say(wanted, chosen)
    return chosen.run.folder


def checkpoint_with(ability: type[Ability], what: str, named: Path | None, *, latest: bool = False) -> Path:
    """`checkpoint_for` an ability, whatever the data; what: is done with it, in words; latest: see `Wanted`."""
    from fiber_cli.checkpoints.runs import Wanted

    return checkpoint_for(Wanted(what, tasks_with(ability), ability, latest=latest), named)


def retrieval_models(checkpoint: Path | None, itm_checkpoint: Path | None, itc: "Wanted", itm: "Wanted") -> Models:
    """A dual encoder and what scores pairs, which may be one: those that are named, as `named_for` has them, and runs
    for what is missing, said on standard error. UserError where there is none."""
    from fiber_cli.checkpoints.config import read_config
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.checkpoints.runs import can, choose_run

    if checkpoint is not None:
        checkpoint = named_for(itc, checkpoint)
    if itm_checkpoint is not None:
        itm_checkpoint = named_for(itm, itm_checkpoint)
    if checkpoint is not None and itm_checkpoint is None:
        config = read_config(resolve(checkpoint, latest=itc.latest))
        has_itc, has_itm = can(config, Embedding), can(config, Matching)
        if has_itc and not has_itm:
            return Models(checkpoint, find_run(itm))
        if has_itm and not has_itc:
            return Models(find_run(itc), checkpoint)
        return Models(checkpoint)
    if checkpoint is not None:
        return Models(checkpoint, itm_checkpoint)
    encoder = choose_run(itc)
    _say(itc, encoder)
    if itm_checkpoint is not None:
        return Models(encoder.run.folder, itm_checkpoint)
    scorer = choose_run(itm)
    if scorer.run.folder == encoder.run.folder:
        return Models(encoder.run.folder)
    _say(itm, scorer)
    return Models(encoder.run.folder, scorer.run.folder)


def _say(wanted: "Wanted", chosen: "Chosen") -> None:
    if is_first_rank():
        say(f"{wanted.option.removeprefix('--')}: {chosen.run.folder}, {chosen.reason}")


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint directory is of; None where it stands alone, as shipped ones do."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
