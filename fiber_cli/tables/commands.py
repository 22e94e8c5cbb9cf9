"""The commands in the headers of recipes, and the chain of runs that they make: declared there once, followed here."""

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fiber_cli.config.resolve import recipe_header, shipped_recipes
from fiber_cli.errors import UserError
from fiber_cli.tables.rows import Evaluated, Source, Trained, Tuned

#: Lines of a header with commands, in the order in which they are run; others follow in the header's own.
PARTS = ("prepare", "command", "evaluate", "all")
#: How a header writes the folder of the data sets and that of the runs.
_DATA, _RUNS = "/data", "runs"
_DATA_SETTING = "data.root="
_LAUNCHERS = ("fiber ", "torchrun ")
#: The folder of runs of `fiber odinw`, where its command names no other.
_ODINW_RUNS = "odinw13"


class HeaderCommand(NamedTuple):
    """A command of a recipe's header. part: of which line; arguments: of `fiber`."""

    recipe: str
    part: str
    written: str
    arguments: tuple[str, ...]

    @property
    def verb(self) -> str:
        """Such as "finetune"."""
        return self.arguments[0]

    @property
    def dataset(self) -> str:
        """What an evaluation is on."""
        return self.arguments[1]

    def option(self, name: str) -> str | None:
        """The value of an option; None where it is not given."""
        for word, value in zip(self.arguments, self.arguments[1:], strict=False):
            if word == name:
                return value
        return None

    def path(self, option: str) -> Path | None:
        """The path that an option names; None where it names none."""
        value = self.option(option)
        if not value:
            return None
        return Path(value)

    def run(self, option: str) -> str | None:
        """The name of the run that an option names; None where it names none."""
        value = self.option(option)
        if value is None or not value.startswith(f"{_RUNS}/"):
            return None
        return value.removeprefix(f"{_RUNS}/")

    @property
    def settings(self) -> list[str]:
        """What it puts over its recipe, but for the folder of the data sets."""
        settings = []
        for word in self.arguments:
            is_setting = "=" in word and not word.startswith("-")
            if is_setting and not word.startswith(_DATA_SETTING):
                settings.append(word)
        return settings

    @property
    def output(self) -> str:
        """The name of the run that a training makes."""
        run = self.run("--output")
        if run is not None:
            return run
        return _ODINW_RUNS if self.verb == "odinw" else self.option("--recipe") or self.recipe


class Stage(NamedTuple):
    """A training of the chain. run: the name of its folder; starts_from: that of the run whose weights it begins with,
    None where it begins with public backbones; training: with `--output`; preparation: what is made before it."""

    recipe: str
    run: str
    starts_from: str | None
    training: HeaderCommand
    preparation: tuple[HeaderCommand, ...]


@cache
def header_commands(recipe: str) -> tuple[HeaderCommand, ...]:
    """All commands of a shipped recipe's header, in the order in which they are run."""
    header = recipe_header(shipped_recipes()[recipe])
    others = [key for key, text in header.items() if key not in PARTS and text.startswith(_LAUNCHERS)]
    commands = []
    for part in (*PARTS, *others):
        if part in header:
            for written in header[part].split("&&"):
                commands.append(header_command(recipe, part, written.strip()))
    return tuple(commands)


def header_command(recipe: str, part: str, written: str) -> HeaderCommand:
    """A command as it is written, with or without a launcher."""
    words = shlex.split(written)
    first = words.index("fiber_cli" if words[0] == "torchrun" else "fiber") + 1
    return HeaderCommand(recipe, part, written, tuple(words[first:]))


def placed(arguments: Sequence[str], data: Path, runs: Path) -> list[str]:
    """Arguments of a header's command with the folders of the data sets and of the runs where they are here."""
    words = []
    for word in arguments:
        word = re.sub(rf"(^|=){_DATA}(?=/|$)", lambda match: f"{match[1]}{data}", word)
        words.append(re.sub(rf"^{_RUNS}(?=/)", lambda match: str(runs), word))
    return words


@cache
def stages() -> dict[str, Stage]:
    """The trainings of all shipped recipes by the name of their run."""
    found: dict[str, Stage] = {}
    for recipe in shipped_recipes():
        commands = header_commands(recipe)
        preparation = tuple(command for command in commands if command.part == "prepare")
        for command in commands:
            if command.verb in ("pretrain", "finetune"):
                stage = Stage(recipe, command.output, command.run("--init-from"), _into_run(command), preparation)
                found.setdefault(stage.run, stage)
    return found


def chain(run: str) -> list[Stage]:
    """The trainings that lead to a run, the first one first. Raises UserError where a header starts from a run that no
    header makes."""
    links: list[Stage] = []
    wanted: str | None = run
    while wanted is not None:
        if wanted not in stages():
            raise UserError(f"no recipe's header makes runs/{wanted}, which the chain to runs/{run} needs")
        stage = stages()[wanted]
        if stage in links:
            raise UserError(f"the headers of recipes start runs/{run} from itself")
        links.append(stage)
        wanted = stage.starts_from
    return links[::-1]


def stage_of(source: Evaluated | Trained) -> Stage | None:
    """The training whose checkpoint a figure is of; None where no header has its command."""
    for stage in stages().values():
        if stage.recipe != source.recipe:
            continue
        if stage.starts_from == source.starts_from or (source.starts_from is None and stage.training.part == "command"):
            return stage
    return None


def evaluation_command(source: Evaluated) -> HeaderCommand | None:
    """The command that measures a figure; None where no header has it, or none that makes its checkpoint. A run or a
    split that the header's evaluations do not name is measured as those that they do."""
    stage = stage_of(source)
    if stage is None:
        return None
    fitting = _evaluations(source)
    if not fitting:
        return None
    for command in fitting:
        if stage.run in (command.run("--checkpoint"), command.run("--itm-checkpoint")):
            return _with_options(command, {"--split": source.split})
    return _with_options(fitting[0], {"--split": source.split, "--checkpoint": f"{_RUNS}/{stage.run}"})


def _with_options(command: HeaderCommand, options: Mapping[str, str]) -> HeaderCommand:
    words = list(command.arguments)
    for name, value in options.items():
        if name in words:
            words[words.index(name) + 1] = value
        else:
            words += [name, value]
    return command._replace(arguments=tuple(words), written=shlex.join(["fiber", *words]))


def _into_run(command: HeaderCommand) -> HeaderCommand:
    """A training that names the folder of its run, where the header leaves it to the default."""
    if command.option("--output") is not None:
        return command
    return command._replace(arguments=(*command.arguments, "--output", f"{_RUNS}/{command.output}"))


def _evaluations(source: Evaluated) -> list[HeaderCommand]:
    """Those of the header on a figure's data and in its mode: with its split, or, after these, with none."""
    commands = []
    for command in header_commands(source.recipe):
        is_evaluation = command.verb in ("eval", "rerank") and command.dataset == source.dataset
        if is_evaluation and _mode(command) == _kind(source.mode):
            commands.append(command)
    of_split = [command for command in commands if command.option("--split") == source.split]
    return of_split + [command for command in commands if command.option("--split") is None]


def _mode(command: HeaderCommand) -> str:
    if command.verb == "rerank":
        return "rerank"
    return "itc+itm" if command.option("--itm-checkpoint") else ""


def _kind(mode: str | None) -> str:
    """A mode of retrieval as `_mode` has it: alone a checkpoint is evaluated by what it was trained for."""
    return mode if mode in ("rerank", "itc+itm") else ""


def tuning_command(source: Tuned) -> HeaderCommand | None:
    """The call of `fiber odinw` in a recipe's header; None where it has none."""
    for command in header_commands(source.recipe):
        if command.verb == "odinw" and source.starts_from in (None, command.run("--init-from")):
            return _into_run(command)
    return None


def source_command(source: Source) -> HeaderCommand | None:
    """The command that measures a figure; None where the training has it, and where no header has a command."""
    if isinstance(source, Evaluated):
        return evaluation_command(source)
    return tuning_command(source) if isinstance(source, Tuned) else None


def source_runs(source: Source) -> list[str]:
    """The runs whose checkpoints a figure is of, or that a training or `fiber odinw` has it of."""
    if isinstance(source, Trained):
        stage = stage_of(source)
        return [] if stage is None else [stage.run]
    command = source_command(source)
    if command is None:
        return []
    named = [command.run(option) for option in ("--checkpoint", "--itm-checkpoint", "--init-from")]
    return [run for run in named if run is not None]
