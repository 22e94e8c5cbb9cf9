"""config.json of a checkpoint directory: enough to rebuild the task and its input, and not its weights.

Format 2 holds the settings of the task that belong to the model and to the reader under the names that recipes have for
them. Format 1, of version 0.1.0, kept some of the reader's settings beside the preprocessing and what follows from the
tokenizer beside the settings; it is read, and no longer written.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fiber_cli.checkpoints.typed import checked
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.model.config import FiberConfig
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.settings import Owner, TaskSettings, former_names, out_of_range, owned
from fiber_cli.tasks import declared

FORMAT = 2
#: Tokens a text.
MOST_TOKENS = 2**16
CONFIG_FILE = "config.json"
#: What format 1 kept of a caption task that follows from the tokenizer and the text length.
_DERIVED_IN_FORMAT_1 = ("max_length", "cls_id", "sep_id", "pad_id", "mask_id")


@dataclass(frozen=True)
class CheckpointConfig:
    """model: sizes, the image size (height, width) among them. task: settings; those of the run alone have their
    defaults. text_length: tokens a text. labels: see `TaskContext`. tokenizer: the name that the recipe gave it.
    small_letters: whether no text of training had a capital, so that what is typed is read in small letters too."""

    model: FiberConfig
    task: TaskSettings
    text_length: int
    labels: tuple[str, ...] | None
    tokenizer: str
    small_letters: bool = False

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        task = {"name": self.task.name, **owned(self.task, Owner.MODEL, Owner.READER)}
        preprocessing = {"image_size": list(self.model.image_size), "text_length": self.text_length}
        return {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "task": task,
            "preprocessing": preprocessing,
            "labels": None if self.labels is None else list(self.labels),
            "tokenizer": self.tokenizer,
            "small_letters": self.small_letters,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Inverse of `to_json`, and of what format 1 had. Raises KeyError, TypeError, ValueError or UserError for
        content of another form."""
        preprocessing = content["preprocessing"]
        task = dict(content["task"])
        if content["format"] == 1:
            task = _task_of_format_1(task, preprocessing)
        labels = content["labels"]
        model = FiberConfig.from_dict(content["model"])
        text_length = int(preprocessing["text_length"])
        if not 1 <= text_length <= MOST_TOKENS:
            raise UserError(f"config.json: text_length {text_length}: must be from 1 to {MOST_TOKENS:,}")
        of_reader = preprocessing.get("image_size", model.image_size)
        # Written twice, for readers of either section.
        if _sides(of_reader) != _sides(model.image_size):
            raise UserError(
                f"config.json: model.image_size {list(model.image_size)} and preprocessing.image_size {of_reader} "
                "contradict each other; put the side that the model was trained with in both"
            )
        return cls(
            model=model,
            task=_task_settings(task),
            text_length=text_length,
            labels=None if labels is None else tuple(labels),
            tokenizer=str(content["tokenizer"]),
            # Checkpoints from before do not say it.
            small_letters=bool(content.get("small_letters", False)),
        )


def read_config(path: Path) -> CheckpointConfig:
    """config.json of a checkpoint directory. Raises UserError where it is missing, damaged, or of another version."""
    file = Path(path) / CONFIG_FILE
    try:
        content = parse_json(read_regular(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; is {path} a checkpoint directory?") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); use another checkpoint of the run") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version not in (1, FORMAT):
        raise UserError(
            f"{file} has format version {version!r}, not {FORMAT} or 1; use the program version that wrote it"
        )
    try:
        return checked(CheckpointConfig.from_json(content))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except WRONG_CONTENT as error:
        raise UserError(f"{file} does not describe a model of this version: {error}") from error


def had_small_letters(path: Path) -> bool:
    """`small_letters` of a checkpoint directory, whatever else its config.json has. Raises OSError or ValueError."""
    content = parse_json(read_regular(path / CONFIG_FILE))
    return isinstance(content, dict) and content.get("small_letters") is True


def _sides(size: Any) -> list[int]:
    """Height and width, of which a square has one."""
    return [size, size] if isinstance(size, int) else list(size)


def _task_of_format_1(task: dict[str, Any], preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The settings of a task as format 2 has them."""
    settings = {name: value for name, value in task.items() if name not in _DERIVED_IN_FORMAT_1}
    if "short_side" in preprocessing:
        settings["short_sides"] = [preprocessing["short_side"]]
        settings["longest_side"] = preprocessing["longest_side"]
        settings["published_names"] = preprocessing["published_names"]
    return settings


def _out_of_range(value: Any, limits: Mapping[str, Any]) -> str | None:
    """What is wrong with the numbers of a setting."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float):
            problem = out_of_range(number, limits)
            if problem is not None or not abs(number) < math.inf:
                return problem or f"{number} is not finite"
    return None


def _task_settings(stored: dict[str, Any]) -> TaskSettings:
    """The settings under their present names; TypeError for one that the task does not have."""
    settings: type[Any] = declared(stored["name"]).settings
    former = former_names(settings)
    values = {}
    for name, value in stored.items():
        values[former.get(name, name)] = tuple(value) if isinstance(value, list) else value
    for setting in dataclasses.fields(settings):
        problem = _out_of_range(values.get(setting.name), setting.metadata)
        if problem is not None:
            raise ValueError(f"task.{setting.name}: {problem}")
    known = {setting.name for setting in dataclasses.fields(settings)}
    unknown = values.keys() - known
    if unknown:
        raise TypeError(f"task {stored['name']!r} has no setting {', '.join(sorted(unknown))}")
    task: TaskSettings = settings(**values)
    return task
