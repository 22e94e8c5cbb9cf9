"""Whether a run may go on with a recipe."""

from pathlib import Path
from typing import Any

import yaml

from fiber_cli.config.recipe import Recipe, warmup_steps
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_yaml
from fiber_cli.text_files import read_text

#: Settings that may differ between a run and its continuation.
FREE_ON_RESUME: tuple[str, ...] = ("log.", "data.workers", "name", "runtime.compile")
#: Those that may also differ where the ranks are more or fewer than before.
FREE_ON_OTHER_RANKS = ("runtime.micro_batch", "runtime.activation_checkpointing")
#: How long a run is, and the schedules whose rate does not depend on it.
LENGTH = ("optim.steps", "optim.epochs")
OPEN_SCHEDULES = ("constant", "plateau")


def check_same_recipe(recipe: Recipe, file: Path, *, same_ranks: bool = True, step: int = 0, steps: int = 0) -> None:
    """Raises UserError with every setting that differs from the run's, whose recipe is in `file`.

    same_ranks: as many ranks as before. step: where the run stands; steps: at which it would end now.
    """
    stored = stored_recipe(file)
    free = FREE_ON_RESUME
    if not same_ranks:
        free += FREE_ON_OTHER_RANKS
    why_no_longer = None
    if _is_longer(recipe, stored):
        why_no_longer = _why_no_longer(recipe, step, steps)
        if why_no_longer is None:
            free += LENGTH
    differing = [each for each in _differing(recipe, stored) if not each.startswith(free)]
    if differing:
        reasons = [] if why_no_longer is None else [why_no_longer]
        raise UserError(
            f"--resume continues a run with the same recipe; {len(differing)} settings differ from {file} "
            "(give the same ones, or start another run with --init-from):",
            *differing,
            *reasons,
        )


def _is_longer(recipe: Recipe, stored: Recipe) -> bool:
    """Whether the recipe has more steps, or more epochs, than the run's."""
    before, now = stored.optim, recipe.optim
    if before.steps is not None and now.steps is not None:
        return now.steps > before.steps
    if before.epochs is not None and now.epochs is not None:
        return now.epochs > before.epochs
    return False


def _why_no_longer(recipe: Recipe, step: int, steps: int) -> str | None:
    """Why a run cannot be made longer; None where no rate of the steps that it has made would have been another."""
    schedule = recipe.optim.schedule
    if schedule not in OPEN_SCHEDULES:
        return (
            f"optim.schedule={schedule} falls towards the end that the run was begun with; a run can be made longer "
            f"with {' or '.join(OPEN_SCHEDULES)}"
        )
    warmup = warmup_steps(recipe.optim.warmup, steps)
    if 0 < recipe.optim.warmup < 1 and step < warmup:
        return (
            f"optim.warmup={recipe.optim.warmup:g} is a share of the run, now {warmup} steps, and it stands at {step}: "
            "it can be made longer once it is past them"
        )
    return None


def differing_settings(recipe: Recipe, file: Path) -> list[str]:
    """Every setting that differs from the run's, whose recipe is in `file`, with both values. Raises UserError where it
    cannot be read.

    The file is read as any recipe is: a setting that it does not know has its default, and one that it has under a
    former name is the same setting.
    """
    return _differing(recipe, stored_recipe(file))


def stored_recipe(file: Path) -> Recipe:
    """The recipe that a run is of. Raises UserError where it cannot be read."""
    try:
        text = read_text(file)
        return parse_recipe(text, str(file), _in_present_words(text))
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from error
    except UserError as error:
        raise _unreadable(file, " ".join(str(error).split())) from error


def _differing(recipe: Recipe, stored: Recipe) -> list[str]:
    before, now = _flat(stored), _flat(recipe)
    differing = []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            differing.append(f"{key}: {before.get(key)!r} in the run, {now.get(key)!r} now")
    return differing


def _in_present_words(text: str) -> list[str]:
    """What is put over a stored recipe of the time when the preset `mini` was called `small`: stored recipes have
    every setting, and `model.window` came with the present `small`."""
    try:
        stored = parse_yaml(text)
    except yaml.YAMLError:
        return []  # parsing the recipe says where
    if not isinstance(stored, dict):
        return []
    model = stored.get("model")
    if isinstance(model, dict) and model.get("preset") == "small" and "window" not in model:
        return ["model.preset=mini"]
    return []


def _unreadable(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} cannot be read ({reason}), so that the run cannot be continued safely; put back the file that the run "
        "was started with"
    )


def recipe_facts(recipe: Recipe) -> dict[str, str]:
    """Every setting with its value in words, those of sources too, for what all ranks must have the same."""
    facts: dict[str, str] = {}
    for name, value in _flat(recipe).items():
        if name in ("data.train", "data.val"):
            for number, source in enumerate(value):
                facts |= {f"{name}[{number}].{setting}": repr(given) for setting, given in source.items()}
        else:
            facts[name] = repr(value)
    return facts


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Dotted name → value, as YAML has it."""
    flat: dict[str, Any] = {}

    def add(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                add(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    add(parse_yaml(recipe.to_yaml()), "")
    return flat
