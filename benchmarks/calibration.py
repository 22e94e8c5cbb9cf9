"""Thresholds of a checkpoint chosen again, as the validation of its training chooses them today; weights stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.digests import digests_of, files_of, write_digests
from fiber_cli.checkpoints.loading import load
from fiber_cli.config.recipe import Recipe
from fiber_cli.data.files import read_json
from fiber_cli.distributed.device import device
from fiber_cli.model.precision import settled
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.text_files import dump_json
from fiber_cli.training.work import open_sources


class Calibration(NamedTuple):
    """settings: of the checkpoint's task, those that validation chooses, null where it chose none; metrics: all that it
    measured."""

    settings: dict[str, float | None]
    metrics: dict[str, float]


def calibrate(checkpoint: Path, recipe: Recipe) -> Calibration:
    """What the validation of a recipe chooses for a checkpoint; what the recipe gives stays. Raises UserError."""
    loaded = load(checkpoint)
    sources = open_sources(recipe.data.val, recipe.data)
    evaluate = loaded.declaration.evaluation.load()
    evaluation = evaluate(sources, loaded.context, EvaluationOptions(calibrate=True))
    options = PredictOptions(recipe.runtime.micro_batch, 0, settled(recipe.runtime.precision, device()))
    metrics = evaluation.measure(loaded.task, options).metrics
    settings: dict[str, Any] = {name: getattr(recipe.task, name) for name in loaded.declaration.calibrated}
    settings |= loaded.declaration.calibrated_values(recipe.task, metrics)
    return Calibration(settings, metrics)


def store(checkpoint: Path, settings: Mapping[str, float | None]) -> None:
    """Put settings of the task into a checkpoint's config.json, and its digest into the list of them. Raises
    UserError."""
    file = checkpoint / CONFIG_FILE
    content = read_json(file, "the configuration of a checkpoint")
    content["task"] |= settings
    file.write_text(dump_json(content, indent=2) + "\n", encoding="utf-8")
    write_digests(checkpoint, digests_of(checkpoint, files_of(checkpoint, state=False)))
