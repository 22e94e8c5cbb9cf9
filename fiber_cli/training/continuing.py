"""With which batch a run goes on, and whether it may, on as many ranks as before or on others."""

from dataclasses import replace
from pathlib import Path

from fiber_cli.checkpoints.digests import STATE_FOLDER
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.run_files import RECIPE
from fiber_cli.config.recipe import Recipe, RuntimeSettings
from fiber_cli.errors import UserError
from fiber_cli.training.resume import check_same_recipe, stored_recipe
from fiber_cli.training.state import RunState, read_state


def with_batch_of_run(recipe: Recipe, output: Path, world: int) -> Recipe:
    """The recipe with the batch of the run in a folder, which goes on on `world` ranks, in micro-batches no larger than
    the recipe's; a recipe that is not the run's has its own nearest batch, see `RuntimeSettings.on_ranks`. Raises
    UserError where the ranks do not divide the run's batch."""
    try:
        state = read_state(resolve(output, latest=True) / STATE_FOLDER)
    except UserError:
        return recipe.on_ranks(world)  # told when all of it is read, by the digests first
    given, own = recipe.runtime, stored_recipe(output / RECIPE).runtime
    on_ranks = len(state.ranks)
    if not _is_of_run(given, own, state, same_ranks=on_ranks == world):
        return recipe.on_ranks(world)
    if on_ranks == world:
        runtime = given.on_ranks(world)
        if given.global_batch != own.global_batch:
            runtime = replace(given, global_batch=own.global_batch, micro_batch=own.micro_batch)
        return replace(recipe, runtime=runtime)
    share, rest = divmod(own.global_batch, world)
    if rest:
        raise UserError(
            f"{output}: its batch of {own.global_batch} does not divide by {world} ranks: go on with "
            f"{_fitting_ranks(own.global_batch, world)}, or begin a new run from its weights with --init-from {output}"
        )
    sizes = [size for size in range(1, min(given.micro_batch, share) + 1) if share % size == 0]
    return replace(recipe, runtime=replace(given, global_batch=own.global_batch, micro_batch=sizes[-1]))


def _is_of_run(given: RuntimeSettings, own: RuntimeSettings, state: RunState, *, same_ranks: bool) -> bool:
    """Whether a recipe's batch is the run's own, or the one that its ranks made that of."""
    if given.global_batch == own.global_batch:
        return True
    asked = state.asked
    if asked is None:  # of a version that did not keep it
        return given.on_ranks(len(state.ranks)).global_batch == own.global_batch
    is_micro_batch_free = not same_ranks
    return given.global_batch == asked.global_batch and (is_micro_batch_free or given.micro_batch == asked.micro_batch)


def _fitting_ranks(batch: int, world: int) -> str:
    """The nearest numbers of ranks that divide a batch, as words of the command."""
    fitting = [count for count in range(1, batch + 1) if batch % count == 0]
    fewer = [count for count in fitting if count < world][-1:]
    more = [count for count in fitting if count > world][:1]
    return " or ".join(f"--nproc {count}" for count in fewer + more)


def check_continuation(recipe: Recipe, steps: int, output: Path, world: int) -> int:
    """On how many ranks the run in a folder was. steps: at which it would end now. Raises UserError where it cannot go
    on with the recipe."""
    try:
        state = read_state(resolve(output, latest=True) / STATE_FOLDER)
    except UserError:
        # Told when all of it is read, by the digests first.
        check_same_recipe(recipe, output / RECIPE)
        return world
    same_ranks = len(state.ranks) == world
    check_same_recipe(recipe, output / RECIPE, same_ranks=same_ranks, step=state.progress.step, steps=steps)
    return len(state.ranks)
