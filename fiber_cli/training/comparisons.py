"""How many pairs the losses compare with each other: part of the method, and a matter of how many ranks there are.

Where a task does not compare over the global batch, only the samples of one micro-step meet, those of all ranks, and
accumulating micro-steps makes the batch of the optimiser larger and not this number.
"""

from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.errors import UserError
from fiber_cli.tasks.base import Comparison, Task


def pairs_compared(task: Task, runtime: RuntimeSettings, world: int) -> dict[str, int]:
    """Name of a comparison → among how many pairs, with `<name>_queue`, its earlier features, where it has some, and
    the `global_batch`; nothing where samples do not meet."""
    counts = {}
    for comparison in task.comparisons:
        counts[comparison.name] = pairs_met(comparison, runtime, world)
        if comparison.queue:
            counts[f"{comparison.name}_queue"] = comparison.queue
    return counts | {"global_batch": runtime.global_batch} if counts else {}


def comparison_line(task: Task, runtime: RuntimeSettings, world: int) -> str | None:
    """A line for the reader, with what would restore the global batch where fewer pairs meet; None where samples do
    not meet."""
    if not task.comparisons:
        return None
    parts = [_in_words(comparison, pairs_met(comparison, runtime, world)) for comparison in task.comparisons]
    line = f"{', '.join(parts)} (micro_batch {runtime.micro_batch} x {_ranks(world)})"
    micro_steps = runtime.micro_steps(world)
    if micro_steps == 1:
        return f"{line}, the whole global batch"
    if all(comparison.is_global for comparison in task.comparisons):
        return f"{line}, the whole global batch, by cached gradients over {micro_steps} micro-steps"
    return f"{line} of a global batch of {runtime.global_batch:,}: {_mend(task, runtime, world)}"


def pairs_met(comparison: Comparison, runtime: RuntimeSettings, world: int) -> int:
    """Among how many pairs something is compared."""
    return runtime.global_batch if comparison.is_global else runtime.micro_batch * world


def check_comparisons(task: Task, runtime: RuntimeSettings, world: int) -> None:
    """Raises UserError where fewer pairs meet than a loss needs. runtime: of a batch that the ranks divide."""
    for comparison in task.comparisons:
        pairs = pairs_met(comparison, runtime, world)
        if pairs >= comparison.least:
            continue
        ways = ["raise runtime.micro_batch", "use more ranks"]
        if comparison.global_setting and runtime.global_batch >= comparison.least:
            ways.append(f"set {comparison.global_setting}")
        elif comparison.is_global:
            ways = ["raise runtime.global_batch"]
        if comparison.off:
            ways.append(f"leave it out with {comparison.off}")
        *others, last = ways
        raise UserError(
            f"{comparison.what} {pairs} pair (micro_batch {runtime.micro_batch} x {_ranks(world)}), and needs "
            f"{comparison.least}: {', '.join(others)}, or {last}"
        )


def batch_line(asked: RuntimeSettings, runtime: RuntimeSettings, world: int) -> str | None:
    """A line for the reader where the ranks do not divide the global batch that was asked for, or did not when the run
    began."""
    if asked == runtime:
        return None
    micro_batch = "" if asked.micro_batch == runtime.micro_batch else f" in micro-batches of {runtime.micro_batch}"
    if asked.on_ranks(world) != runtime:
        return f"the run keeps its batch: runtime.global_batch={runtime.global_batch}{micro_batch}"
    return (
        f"runtime.global_batch={asked.global_batch} does not divide by micro_batch {asked.micro_batch} x "
        f"{_ranks(world)}: a batch near it that does is taken, {runtime.global_batch}{micro_batch}"
    )


def _in_words(comparison: Comparison, pairs: int) -> str:
    queue = f" and up to {comparison.queue:,} earlier features" if comparison.queue else ""
    return f"{comparison.what} {pairs:,} pairs{queue}"


def _mend(task: Task, runtime: RuntimeSettings, world: int) -> str:
    """How all pairs of the global batch meet again."""
    micro_batch = runtime.global_batch // world
    memory = (
        "" if runtime.activation_checkpointing else ", with runtime.activation_checkpointing=true if memory is short"
    )
    ways = (
        f"for all of it use {_ranks(runtime.global_batch // runtime.micro_batch)} or runtime.micro_batch={micro_batch}"
    )
    ways += memory
    missing = runtime.global_batch - runtime.micro_batch * world
    for comparison in task.comparisons:
        if comparison.queue_setting and comparison.queue < missing:
            ways += f"; {comparison.queue_setting}={missing} makes up for it with earlier features, there alone"
    settings = {comparison.global_setting for comparison in task.comparisons if comparison.global_setting}
    for setting in sorted(settings):
        ways += f"; {setting} compares them all as it is, with one more pass of the stems"
    return ways


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count:,} ranks"
