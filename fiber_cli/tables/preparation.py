"""What is made before a training from its data alone: VQA's answers, CIDEr's document frequencies."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fiber_cli.config.recipe import Recipe
from fiber_cli.settings import TaskSettings
from fiber_cli.tables.commands import HeaderCommand, Stage

#: Below the folder of the runs: what commands make, where the folder of the data has it not.
PREPARED = "prepared"


class Prepared(NamedTuple):
    """A file that a command makes, where `--output` names it. setting: what names it in the training."""

    command: HeaderCommand
    file: Path
    setting: str


def prepared_files(stage: Stage, recipe: Recipe, data: Path, runs: Path) -> Iterator[Prepared]:
    """The files that a training wants beside the runs. Not those that its recipe does not name, or that lie where it
    looks for them."""
    for command in stage.preparation:
        setting = _setting_made_by(recipe.task, command.verb)
        path = vars(recipe.task)[setting] if setting is not None else None
        if path is None:
            continue
        # From the root: of a relative path a recipe takes that below the folder of the data.
        file = runs.absolute() / PREPARED / os.path.relpath(path, data)
        if file.is_file() or not os.path.isfile(path):
            yield Prepared(command, file, f"task.{setting}={file}")


def _setting_made_by(task: TaskSettings, verb: str) -> str | None:
    """The setting of a task that names what a command makes."""
    for setting in dataclasses.fields(task):
        if setting.metadata.get("made_by") == verb:
            return setting.name
    return None
