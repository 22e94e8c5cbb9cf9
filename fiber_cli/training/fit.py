"""The training loop: fit → step → forward and backward (the last two in `run`)."""

import dataclasses
import time
from contextlib import closing
from pathlib import Path

import torch

from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.identity import checkpoint_identity
from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.agreement import failing_together, require_agreement, require_shared_folder
from fiber_cli.distributed.collectives import any_rank, is_main, world_size
from fiber_cli.distributed.group import init_from_env
from fiber_cli.distributed.peers import telling_ended_processes
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.training.comparisons import comparison_line
from fiber_cli.training.environment import versions
from fiber_cli.training.log import RunLog
from fiber_cli.training.progress import Progress
from fiber_cli.training.resume import check_same_recipe, recipe_facts
from fiber_cli.training.run import Run
from fiber_cli.training.signals import StopRequest
from fiber_cli.training.work import Work, work


@telling_ended_processes()
def fit(recipe: Recipe, output: str | Path, *, resume: bool = False, init_from: str | Path | None = None) -> int:
    """Run a recipe in the folder `output`; returns EXIT_OK, or EXIT_STOPPED after a signal, when all is
    saved.

    resume: continue exactly from the folder's newest checkpoint, or from the start where there is none yet.
    init_from: start from a checkpoint's weights. Raises UserError for what cannot be used: data, weights,
    folder.
    """
    init_from_env(always=True)
    settings = recipe_facts(recipe)
    of_data = {name: value for name, value in settings.items() if name.startswith("data.")}
    require_agreement(lambda: versions() | {"--resume": str(resume)} | _without(settings, of_data))
    if recipe.runtime.threads:
        torch.set_num_threads(recipe.runtime.threads)
    output = Path(output)
    require_shared_folder(output)
    with failing_together():
        recipe.runtime.micro_steps(world_size())  # checked before anything is read
        init_from = _first_weights(output, resume, init_from)
        begun = _has_begun(output)
        # A run that goes on has its own model, whatever has become of the one that it began with.
        planned = work(recipe, output if begun else init_from, fresh=not begun)
    # The settings come after what the data are, which says more.
    require_agreement(lambda: planned.data_facts() | of_data | _start_facts(output, begun, init_from))
    return train(recipe, planned, output, resume=resume)


def _without(settings: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in others}


def _start_facts(output: Path, begun: bool, init_from: str | Path | None) -> dict[str, str]:
    """Which checkpoint is continued, or begun with."""
    start = None
    if begun:
        start = resolve(output, latest=True)
    elif init_from is not None:
        start = resolve(init_from)
    return {"the checkpoint to start from": "none" if start is None else checkpoint_identity(start)}


def _first_weights(output: Path, resume: bool, init_from: str | Path | None) -> str | Path | None:
    """What a run starts from that has saved nothing yet. Rank 0 notes it."""
    note = output / "init_from"
    if init_from is not None and is_main():
        # The checkpoint itself: its run may go on and have a better one by then.
        checkpoint = resolve(init_from)
        output.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{checkpoint.resolve()}\n", encoding="utf-8")
    elif resume and note.is_file():
        # Where the run was killed before its first checkpoint it starts again from the same weights.
        return note.read_text(encoding="utf-8").strip()
    return init_from


def train(recipe: Recipe, work: Work, output: Path, *, resume: bool = False) -> int:
    """The loop of `fit`, on given work."""
    begun = _has_begun(output)
    if begun and not resume:
        raise UserError(f"{output} already holds a run; continue it with --resume or choose another --output")
    if begun:
        check_same_recipe(recipe, output / "recipe.yaml")
    run = Run(recipe, work, output)
    if begun:
        run.load(resolve(output, latest=True) / "state")
    log = RunLog(output, recipe, start=run.progress.step, total=work.steps)
    progress = run.progress
    # Closed here, because a frame that an error report keeps would keep the loader and its workers.
    with StopRequest() as stop, log, closing(work.batches(progress.step)) as batches:
        if begun:
            log.say(f"resumed at step {progress.step}")
        elif resume:
            log.say(f"{output} holds no checkpoint yet: starting afresh")
        compared = comparison_line(work.task, recipe.runtime, world_size())
        if compared:
            log.say(compared)
        last_logged = dataclasses.replace(progress)
        while not run.done:
            began = time.monotonic()
            outcome = run.step(batches)
            progress.step += 1
            progress.seconds += time.monotonic() - began
            log.advance()
            run.guard(outcome)
            if _is_due(run, recipe.log.every):
                log.write(run.record(outcome) | {"images_per_second": _images_per_second(run, last_logged)})
                last_logged = dataclasses.replace(progress)
            due = work.validate is not None and _is_due(run, _validation_interval(recipe, work))
            improved = due and run.validate(log)
            stopping = any_rank(stop.asked)
            if improved or stopping or _is_due(run, recipe.log.save_every):
                run.save()
            if stopping and not run.done:
                log.say(f"stopped at step {progress.step}; everything is saved, --resume continues")
                return EXIT_STOPPED
        if progress.step < work.steps:
            stale = progress.stale
            log.say(f"ended at step {progress.step}: {stale} validations without a better {recipe.log.keep_best}")
        log.finish(run.summary())
    return EXIT_OK


def _has_begun(output: Path) -> bool:
    return (output / "checkpoints" / "latest").is_file()


def _is_due(run: Run, every: int | None) -> bool:
    """Whether something that comes every so many steps, and at the end, comes now."""
    return run.done or (every is not None and run.progress.step % every == 0)


def _validation_interval(recipe: Recipe, work: Work) -> int | None:
    """Steps between validations."""
    every = recipe.log.validate_every
    return work.steps_per_epoch if every == "epoch" else every


def _images_per_second(run: Run, since: Progress) -> float:
    steps = run.progress.step - since.step
    return steps * run.recipe.runtime.global_batch / (run.progress.seconds - since.seconds)
