"""The training loop: fit → step → forward and backward (the last two in `run`)."""

import dataclasses
import time
from contextlib import closing
from pathlib import Path

import torch

from fiber_cli.checkpoints.directory import check_name, resolve
from fiber_cli.checkpoints.identity import checkpoint_identity
from fiber_cli.checkpoints.weights import load_into, load_weights
from fiber_cli.config.recipe import Recipe, RuntimeSettings
from fiber_cli.data.workers import prepare_workers
from fiber_cli.distributed.agreement import failing_together, require_agreement, require_shared_folder
from fiber_cli.distributed.collectives import any_rank, world_size
from fiber_cli.distributed.group import init_from_env
from fiber_cli.distributed.peers import telling_ended_processes
from fiber_cli.distributed.together import asked_of_main, locked_by_all
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError, first_names
from fiber_cli.model.precision import allow_tf32
from fiber_cli.training.allowed import check_trainable
from fiber_cli.training.comparisons import batch_line, comparison_line
from fiber_cli.training.continuing import check_continuation, with_batch_of_run
from fiber_cli.training.deepspeed_config import deepspeed_config
from fiber_cli.training.deepspeed_engine import check_config
from fiber_cli.training.device_rate import share_of_an_image
from fiber_cli.training.environment import versions
from fiber_cli.training.log import RunLog
from fiber_cli.training.progress import Progress
from fiber_cli.training.resume import recipe_facts
from fiber_cli.training.run import Run
from fiber_cli.training.run_folder import check_output, has_checkpoint, read_init_from, write_init_from
from fiber_cli.training.signals import StopRequest
from fiber_cli.training.work import Work, work

#: Of the data that have changed since a stop.
_CHANGES_SHOWN = 3


@telling_ended_processes()
def fit(recipe: Recipe, output: str | Path, *, resume: bool = False, init_from: str | Path | None = None) -> int:
    """Run a recipe in the folder `output`; returns EXIT_OK, or EXIT_STOPPED after a signal, when all is
    saved.

    resume: continue exactly from the folder's newest checkpoint, or from the start where there is none yet.
    init_from: start from a checkpoint's weights. Raises UserError for what cannot be used: data, weights,
    folder.
    """
    init_from_env(always=True)
    asked = recipe.runtime
    settings = recipe_facts(recipe)
    of_data = {name: value for name, value in settings.items() if name.startswith("data.")}
    require_agreement(lambda: versions() | {"--resume": str(resume)} | _without(settings, of_data))
    output = Path(output)
    # Each rank keeps what it was told of the data, which the ranks compare once they have read it.
    runtime = asked_of_main(lambda: _on_these_ranks(recipe, output if resume else None))
    recipe = dataclasses.replace(recipe, runtime=runtime)
    if recipe.runtime.threads:
        torch.set_num_threads(recipe.runtime.threads)
    allow_tf32(recipe.runtime.tf32)
    with failing_together():
        if recipe.deepspeed:
            check_config(deepspeed_config(recipe, world_size()))
        check_name(output)
        # Before the folder is made; each rank looks at what it was given.
        given = None if init_from is None else resolve(init_from)
    require_agreement(lambda: _start_facts(given))
    # Before the lock too, which leaves a file in the folder.
    asked_of_main(lambda: check_output(output, resume=resume))
    require_shared_folder(output)
    with locked_by_all(output, goes_on=resume):
        begun = asked_of_main(lambda: check_output(output, resume=resume))
        start = output if begun else asked_of_main(lambda: _first_weights(output, given, resume=resume))
        with failing_together():
            # A run that goes on has its own model, whatever has become of the one that it began with.
            planned = work(recipe, start, fresh=not begun)
            check_trainable(recipe, planned.task, planned.steps, world_size())
        # The settings come after what the data are, which says more.
        require_agreement(lambda: planned.data_facts | of_data | _start_facts(start))
        prepare_workers(recipe.data.workers)
        share = share_of_an_image(recipe)
        return train(recipe, planned, output, resume=resume, asked=asked, share=share)


def _on_these_ranks(recipe: Recipe, continued: Path | None) -> RuntimeSettings:
    """The settings with the batch that these ranks have. continued: the folder of the run that goes on, if one does."""
    if continued is not None and check_output(continued, resume=True):
        return with_batch_of_run(recipe, continued, world_size()).runtime
    return recipe.runtime.on_ranks(world_size())


def _without(settings: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in others}


def _start_facts(start: Path | None) -> dict[str, str]:
    """Which checkpoint is begun with, or of a run continued."""
    identity = "none" if start is None else checkpoint_identity(resolve(start, latest=True))
    return {"the checkpoint to start from": identity}


def _first_weights(output: Path, given: Path | None, *, resume: bool) -> Path | None:
    """The checkpoint that a run starts from: the one that was given, itself, as its run may go on and have a better one
    by the time that this one starts again; of a run killed before its first checkpoint the same as before."""
    if given is None and resume:
        return read_init_from(output)
    checkpoint = None if given is None else given.resolve()
    write_init_from(output, checkpoint)
    return checkpoint


def train(
    recipe: Recipe,
    work: Work,
    output: Path,
    *,
    resume: bool = False,
    asked: RuntimeSettings | None = None,
    share: float | None = None,
) -> int:
    """The loop of `fit`, on given work. asked: what the recipe says of the batch, where the ranks change it. share: see
    `share_of_an_image`."""
    begun = asked_of_main(lambda: has_checkpoint(output))
    if begun and not resume:
        raise UserError(f"{output} already holds a run; continue it with --resume or choose another --output")
    on_ranks = world_size()
    if begun:
        on_ranks = asked_of_main(lambda: check_continuation(recipe, work.steps, output, world_size()))
        if on_ranks != world_size() and recipe.runtime.zero_stage:
            with failing_together():
                load_into(work.task, load_weights(resolve(output, latest=True)))
    run = Run(recipe, work, output, asked)
    if begun:
        run.load(resolve(output, latest=True))
    log = _open_log(run)
    progress = run.progress
    # Closed here, because a frame that an error report keeps would keep the loader and its workers.
    batches_of_run = closing(work.batches(progress.step))
    with StopRequest() as stop, log, batches_of_run as batches, run.saving_to_the_end():
        if begun:
            log.say(f"resumed at step {progress.step}{_other_ranks(on_ranks, recipe)}")
            changed_data = run.changed_data()
            if changed_data:
                log.say(
                    "the data are others than before the stop, and the run goes on otherwise than without it: "
                    + first_names(changed_data, _CHANGES_SHOWN)
                )
        elif resume:
            log.say(f"{output} holds no checkpoint yet: starting afresh")
        changed = batch_line(asked or recipe.runtime, recipe.runtime, world_size())
        if changed:
            log.say(changed)
        if run.compilation.line:
            log.say(run.compilation.line)
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
                record = run.record(outcome) | _pace(run, last_logged, share)
                with failing_together():
                    run.check_checkpoints()
                    log.write(record)
                last_logged = dataclasses.replace(progress)
            due = work.validate is not None and _is_due(run, _validation_interval(recipe, work))
            improved = due and run.validate(log)
            run.advance_saving()
            stopping = any_rank(stop.asked)
            if improved or stopping or _is_due(run, recipe.log.save_every):
                with failing_together():
                    log.check_folder()
                run.save()
            if stopping and not run.done:
                run.finish_saving()
                log.say(f"stopped at step {progress.step}; everything is saved, --resume continues")
                return EXIT_STOPPED
        run.finish_saving()
        if progress.step < work.steps:
            stale = progress.stale
            log.say(f"ended at step {progress.step}: {stale} validations without a better {recipe.log.keep_best}")
        summary = run.summary()
        if changed and asked:
            summary["global_batch_asked"] = asked.global_batch
        with failing_together():
            log.finish(summary)
    return EXIT_OK


def _other_ranks(before: int, recipe: Recipe) -> str:
    """What is said where a run goes on on other ranks than before."""
    if before == world_size():
        return ""
    averages = "; AdamW's averages begin anew, as ZeRO had them in shards" if recipe.runtime.zero_stage else ""
    return f" on {world_size()} ranks, before on {before}: not to the bit what it would have been there{averages}"


def _open_log(run: Run) -> RunLog:
    """What a run writes first, after all else has been done that can fail."""
    with failing_together():
        log = RunLog(run.output, run.recipe, start=run.progress.step, total=run.work.steps)
    return log


def _is_due(run: Run, every: int | None) -> bool:
    """Whether something that comes every so many steps, and at the end, comes now."""
    return run.done or (every is not None and run.progress.step % every == 0)


def _validation_interval(recipe: Recipe, work: Work) -> int | None:
    """Steps between validations."""
    every = recipe.log.validate_every
    return work.steps_per_epoch if every == "epoch" else every


def _pace(run: Run, since: Progress, share: float | None) -> dict[str, float]:
    """How fast the steps since then went, which share of their time went by waiting for data, in percent, and which
    share of the device's rate was reached, with the share that an image takes."""
    images = (run.progress.step - since.step) * run.recipe.runtime.global_batch
    seconds = run.progress.seconds - since.seconds
    pace = {"images_per_second": images / seconds, "data_wait": 100 * run.seconds_waited() / seconds}
    return pace if share is None else pace | {"device_share": share * images / seconds}
