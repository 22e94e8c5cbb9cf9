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


def find_run(wanted: "Wanted") -> Path:
    """The folder of the run below runs/ that does best what is wanted; which and why is said on standard error.
    UserError where there is none."""
    from fiber_cli.checkpoints.runs import choose_run

    chosen = choose_run(wanted)
    _say(wanted, chosen)
    return chosen.run.folder


def run_with(ability: type[Ability], what: str, *, latest: bool = False) -> Path:
    """The newest run with an ability, whatever its data; what: is done with it, in words; latest: see `Wanted`."""
    from fiber_cli.checkpoints.runs import Wanted

    return find_run(Wanted(what, tasks_with(ability), ability, latest=latest))


def retrieval_models(checkpoint: Path | None, itm_checkpoint: Path | None, itc: "Wanted", itm: "Wanted") -> Models:
    """A dual encoder and what scores pairs, which may be one: those that are named, and runs for what is missing, said
    on standard error. UserError where there is none."""
    from fiber_cli.checkpoints.config import read_config
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.checkpoints.runs import can, choose_run

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


def run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint directory is of, or the directory where it stands alone."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent
    return checkpoint
