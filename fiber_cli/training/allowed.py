"""Whether a recipe can be trained on so many ranks, as far as its own rules cannot say: one answer for the training,
`--dry-run` and `fiber plan`."""

from fiber_cli.config.recipe import Recipe, warmup_steps
from fiber_cli.tasks.base import Task
from fiber_cli.training.comparisons import check_comparisons
from fiber_cli.training.deepspeed_config import deepspeed_config
from fiber_cli.training.deepspeed_engine import check_config


def check_trainable(recipe: Recipe, task: Task, steps: int | None, world: int) -> None:
    """Raises UserError where a recipe cannot be trained on the ranks, by which its batch divides. task: the recipe's,
    with or without weights; steps: of the run, None where they are not known."""
    if recipe.deepspeed:
        check_config(deepspeed_config(recipe, world))
    if steps is not None:
        warmup_steps(recipe.optim.warmup, steps)
    check_comparisons(task, recipe.runtime, world)
