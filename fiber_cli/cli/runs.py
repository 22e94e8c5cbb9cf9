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


def checkpoint_for(wanted: "Wanted", named: str | None) -> Path:
    """The checkpoint that is named, of `builtin` the shipped one that can do what is wanted, or without a name the run
    of `find_run`. UserError where there is none."""
    return find_run(wanted) if named is None else named_for(wanted, named)


def named_for(wanted: "Wanted", named: str) -> Path:
    """What is named, on this machine, fetched where it is elsewhere (`remote.local`), and of `builtin` the directory of
    the shipped checkpoint that can do what is wanted, which loading it tells. UserError where there is none."""
    from fiber_cli.checkpoints.runs import choose_shipped
    from fiber_cli.checkpoints.shipped import name_in

    return choose_shipped(wanted) if name_in(named) == "" else _here(named)


def named_to_start(task: str, named: str) -> Path:
    """The same for the checkpoint that training a task begins with."""
    from fiber_cli.checkpoints.shipped import name_in
    from fiber_cli.checkpoints.starting import shipped_to_start

    return shipped_to_start(task) if name_in(named) == "" else _here(named)


def _here(named: str) -> Path:
    from fiber_cli.checkpoints.remote import local
    from fiber_cli.checkpoints.shipped import name_in

    return Path(named) if name_in(named) else local(named)


def find_run(wanted: "Wanted") -> Path:
    """The folder of the run below runs/ that does best what is wanted; which and why is said on standard error.
    UserError where there is none."""
    from fiber_cli.checkpoints.runs import choose_run

    chosen = choose_run(wanted)
    _say(wanted, chosen)
    return chosen.run.folder


def checkpoint_with(ability: type[Ability], what: str, named: str | None, *, latest: bool = False) -> Path:
    """`checkpoint_for` an ability, whatever the data; what: is done with it, in words; latest: see `Wanted`."""
    from fiber_cli.checkpoints.runs import Wanted

    return checkpoint_for(Wanted(what, tasks_with(ability), ability, latest=latest), named)


def retrieval_models(checkpoint: str | None, itm_checkpoint: str | None, itc: "Wanted", itm: "Wanted") -> Models:
    """A dual encoder and what scores pairs, which may be one: those that are named, as `named_for` has them, and runs
    for what is missing, said on standard error. UserError where there is none."""
    from fiber_cli.checkpoints.config import read_config
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.checkpoints.runs import can, choose_run

    named = None if checkpoint is None else named_for(itc, checkpoint)
    named_itm = None if itm_checkpoint is None else named_for(itm, itm_checkpoint)
    if named is not None and named_itm is None:
        config = read_config(resolve(named, latest=itc.latest))
        has_itc, has_itm = can(config, Embedding), can(config, Matching)
        if has_itc and not has_itm:
            return Models(named, find_run(itm))
        if has_itm and not has_itc:
            return Models(find_run(itc), named)
        return Models(named)
    if named is not None:
        return Models(named, named_itm)
    encoder = choose_run(itc)
    _say(itc, encoder)
    if named_itm is not None:
        return Models(encoder.run.folder, named_itm)
    scorer = choose_run(itm)
    if scorer.run.folder == encoder.run.folder:
        return Models(encoder.run.folder)
    _say(itm, scorer)
    return Models(encoder.run.folder, scorer.run.folder)


def _say(wanted: "Wanted", chosen: "Chosen") -> None:
    if is_first_rank():
        say(f"{wanted.option.removeprefix('--')}: {chosen.run.folder}, {chosen.reason}")
