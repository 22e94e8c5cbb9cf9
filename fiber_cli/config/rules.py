"""Rules between settings: right alone and wrong together. Those of a task stand in its declaration."""

from collections.abc import Iterator

from fiber_cli.config.deepspeed_names import problems
from fiber_cli.config.recipe import Recipe, warmup_steps
from fiber_cli.data.sources import source_format, whole_formats
from fiber_cli.settings import RecipeError
from fiber_cli.tasks import declared
from fiber_cli.tasks.declaration import Rule, TaskDeclaration, rule

#: DeepSpeed's keys that are not for the passthrough: they follow from the other sections.
OWNED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "optimizer",
    "scheduler",
    "fp16",
    "bf16",
)


@rule("model.image_size")
def image_size_fits_the_windows(recipe: Recipe) -> str | None:
    size = recipe.model.image_size
    return f"{size} is not a multiple of 32" if size and size % 32 else None


@rule("model.tokenizer", "model.roberta")
def weights_have_their_own_words(recipe: Recipe) -> str | None:
    weights = recipe.model.roberta
    if weights and recipe.model.tokenizer == "builtin":
        return f"the weights {weights!r} need their own tokenizer, not the built-in one"
    return None


@rule("model.towers", "model.swin", "model.roberta")
def towers_begin_with_one_thing(recipe: Recipe) -> str | None:
    model = recipe.model
    if model.towers and (model.swin or model.roberta):
        return "towers are the weights of both: set swin and roberta to null, or towers"
    return None


@rule("model.fusion", "model.fusion_layers")
def no_fusion_has_no_layers(recipe: Recipe) -> str | None:
    model = recipe.model
    if model.fusion == "none" and model.fusion_layers:
        return f"none with fusion_layers={model.fusion_layers}: leave one of them out"
    return None


@rule("data.train")
def a_source_is_named(recipe: Recipe) -> str | None:
    return None if recipe.data.train else "names no source"


@rule("task.name", "data.train", "data.val")
def the_task_can_read_its_sources(recipe: Recipe) -> str | None:
    declaration = declared(recipe.task.name)
    wrong = set()
    for source in (*recipe.data.train, *recipe.data.val):
        if source is not None and not declaration.can_read(source_format(source.kind).source):
            wrong.add(source.kind)
    if not wrong:
        return None
    usable = ", ".join(kinds_for(declaration))
    return f"{declaration.name} cannot use sources of kind {', '.join(sorted(wrong))}; it uses {usable}"


@rule("optim", "optim.steps", "optim.epochs")
def the_length_is_given_once(recipe: Recipe) -> str | None:
    steps, epochs = recipe.optim.steps, recipe.optim.epochs
    if (steps is None) == (epochs is None):
        return f"steps={steps} and epochs={epochs}: give exactly one of them"
    return None


@rule("optim.warmup")
def warmup_is_a_share_or_whole_steps(recipe: Recipe) -> str | None:
    warmup = recipe.optim.warmup
    return f"{warmup}: from 1 on it counts whole steps" if warmup > 1 and warmup % 1 else None


@rule("optim.warmup", "optim.steps")
def warmup_ends_before_the_run(recipe: Recipe) -> str | None:
    if recipe.optim.steps is None:
        return None
    try:
        warmup_steps(recipe.optim.warmup, recipe.optim.steps)
    except RecipeError as error:
        return str(error).removeprefix("optim.warmup: ")
    return None


@rule("runtime.global_batch", "runtime.micro_batch", "runtime")
def batches_divide(recipe: Recipe) -> str | None:
    try:
        recipe.runtime.micro_steps(1)
    except RecipeError as error:
        return str(error).removeprefix("runtime.global_batch: ")
    return None


@rule("runtime.ema", "runtime.zero_stage")
def moving_average_needs_whole_parameters(recipe: Recipe) -> str | None:
    if recipe.runtime.ema and recipe.runtime.zero_stage == 3:
        return "needs whole parameters on every rank: set runtime.zero_stage to at most 2, or ema to null"
    return None


@rule("runtime.compile", "runtime.zero_stage")
def compiled_blocks_have_their_weights(recipe: Recipe) -> str | None:
    if recipe.runtime.compile is True and recipe.runtime.zero_stage == 3:
        return (
            "true under ZeRO 3, which gathers the weights of a block when it is called: set runtime.zero_stage to at "
            "most 2, or compile to auto or false"
        )
    return None


@rule("runtime.offload", "runtime.zero_stage")
def offloading_needs_sharding(recipe: Recipe) -> str | None:
    if recipe.runtime.offload == "cpu" and recipe.runtime.zero_stage == 0:
        return "DeepSpeed offloads sharded state only: set runtime.zero_stage to 1, 2 or 3"
    return None


@rule("runtime.norms", "runtime.precision")
def low_norms_have_a_precision(recipe: Recipe) -> str | None:
    return _no_low_precision(recipe) if recipe.runtime.norms == "low" else None


@rule("runtime.deformable", "runtime.precision")
def low_products_have_a_precision(recipe: Recipe) -> str | None:
    return _no_low_precision(recipe) if recipe.runtime.deformable == "low" else None


def _no_low_precision(recipe: Recipe) -> str | None:
    if recipe.runtime.precision != "fp32":
        return None
    return "low is the precision of the run, which is fp32: set runtime.precision to bf16 or fp16, or this to fp32"


@rule("log.validate_every", "data.val")
def validation_needs_data(recipe: Recipe) -> str | None:
    if recipe.log.validate_every and not recipe.data.val:
        return "there is nothing to validate on: name sources in data.val"
    return None


@rule("log.keep_best", "log.validate_every")
def the_best_needs_validation(recipe: Recipe) -> str | None:
    if recipe.log.keep_best and not recipe.log.validate_every:
        return "needs validation: set log.validate_every"
    return None


@rule("log.keep_best", "log.stop_after")
def stopping_needs_a_metric(recipe: Recipe) -> str | None:
    if recipe.log.stop_after and not recipe.log.keep_best:
        return "log.stop_after goes by it: name a metric of the validation"
    return None


@rule("log.keep_best", "optim.schedule")
def plateau_needs_a_metric(recipe: Recipe) -> str | None:
    if recipe.optim.schedule == "plateau" and not recipe.log.keep_best:
        return "optim.schedule=plateau goes by it: name a metric of the validation"
    return None


@rule("log.keep_best", "task")
def the_task_has_the_metric(recipe: Recipe) -> str | None:
    metric = recipe.log.keep_best
    metrics = declared(recipe.task.name).metric_names(recipe.task)
    if metric is None or metric in metrics:
        return None
    return f"{metric!r} is no metric of this {recipe.task.name} task; it has {', '.join(metrics)}"


@rule("log.stop_after", "optim.patience", "optim.schedule")
def the_run_outlasts_a_plateau(recipe: Recipe) -> str | None:
    stop_after, patience = recipe.log.stop_after, recipe.optim.patience
    if recipe.optim.schedule == "plateau" and stop_after and stop_after <= patience:
        return f"ends the run before optim.patience={patience} lowers the rate: set it higher"
    return None


@rule("deepspeed")
def the_passthrough_leaves_sections_alone(recipe: Recipe) -> str | None:
    if any(key in recipe.deepspeed for key in OWNED):
        return f"leave out what follows from the other sections: {', '.join(OWNED)}"
    return None


@rule("deepspeed")
def the_passthrough_is_deepspeeds(recipe: Recipe) -> str | None:
    given = {name: value for name, value in recipe.deepspeed.items() if name not in OWNED}
    return "; ".join(problems(given)) or None


RULES = (
    image_size_fits_the_windows,
    weights_have_their_own_words,
    towers_begin_with_one_thing,
    no_fusion_has_no_layers,
    a_source_is_named,
    the_task_can_read_its_sources,
    the_length_is_given_once,
    warmup_is_a_share_or_whole_steps,
    warmup_ends_before_the_run,
    batches_divide,
    moving_average_needs_whole_parameters,
    compiled_blocks_have_their_weights,
    offloading_needs_sharding,
    low_norms_have_a_precision,
    low_products_have_a_precision,
    validation_needs_data,
    the_best_needs_validation,
    stopping_needs_a_metric,
    plateau_needs_a_metric,
    the_task_has_the_metric,
    the_run_outlasts_a_plateau,
    the_passthrough_leaves_sections_alone,
    the_passthrough_is_deepspeeds,
)


def kinds_for(declaration: TaskDeclaration) -> list[str]:
    """The kinds of source that a task can use."""
    return [each.kind for each in whole_formats() if declaration.can_read(each.source)]


def broken_rules(recipe: Recipe, bad: set[str]) -> Iterator[tuple[str, str]]:
    """(key to blame, `key: what is wrong`); `bad` holds the keys that are wrong by themselves."""
    rules: tuple[Rule, ...] = RULES
    if recipe.task is not None and "task" not in bad:
        rules += declared(recipe.task.name).rules
    for each in rules:
        if any(_touches(key, wrong) for key in each.keys for wrong in bad):
            continue
        problem = each.problem(recipe)
        if problem is not None:
            blamed = each.keys[0]
            yield blamed, f"{blamed}: {problem}"


def _touches(key: str, wrong: str) -> bool:
    return f"{key}.".startswith(f"{wrong}.")
