"""Checkpoint directories: what lies where, and which of them is meant by a path. Loads no torch.

run/checkpoints/step-000400/
  config.json        format version, model, task, preprocessing, labels, tokenizer name
  model.safetensors  consolidated float32 weights, no tied duplicates; narrower floating types, as exported checkpoints
                     may have, are read too and widened to float32
  tokenizer/         the tokenizer's own files
  words.txt          the words of the texts of training, where they are known
  state/             only for resuming; written by the engine
  SHA256SUMS         digests of all these files, compared when they are loaded
run/checkpoints/latest   names the newest complete one
run/checkpoints/best     names the best one by the run's metric, where the recipe keeps it
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from fiber_cli import outputs
from fiber_cli.checkpoints import shipped
from fiber_cli.checkpoints.hub_names import FORMS, snapshot
from fiber_cli.checkpoints.remote import local
from fiber_cli.checkpoints.run_files import BEST, CHECKPOINTS, LATEST, POINTERS, RECIPE
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_yaml
from fiber_cli.regular_files import check_regular
from fiber_cli.text_files import NotText, decode_text, read_text

#: A checkpoint.
_STEP = re.compile(r"step-[0-9]{1,15}")
#: More than any name of a checkpoint.
_POINTER_BYTES = 1 << 10
_NAME_BYTES = 255


def check_name(folder: Path) -> None:
    """UserError for a folder whose path is not UTF-8: tokenisers and weights are neither written there nor read."""
    path = str(folder.absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{path}: not UTF-8, as the path of checkpoints must be; rename it, or give another one"
        ) from None


def replace(pointer: Path, name: str) -> None:
    """Write a file `latest` or `best` so that a kill or a crash leaves the old or the new one. Raises OSError."""
    outputs.replace(pointer, name.encode())


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _is_step(path: Path) -> bool:
    return _STEP.fullmatch(path.name) is not None and _is_complete(path)


def _is_complete(path: Path) -> bool:
    return (path / "config.json").is_file()


def steps(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return _steps_in(Path(run_dir) / CHECKPOINTS)


def _steps_in(folder: Path) -> list[Path]:
    return sorted(filter(_is_step, folder.glob("step-*")), key=_step_of)


def holds_checkpoints(folder: Path) -> bool:
    """Whether a folder is a run's checkpoints/: `latest` or `best` or a complete step lies in it."""
    return any(_is_there(folder / name) for name in POINTERS) or bool(_steps_in(folder))


def _is_there(pointer: Path) -> bool:
    """Whether something has the name of a pointer, if only a folder or a link to nothing: what is damaged is told and
    not passed over."""
    return os.path.lexists(pointer)


class Choice(NamedTuple):
    """A checkpoint directory, and why it is this one of its run, in words, or what one that ships with fiber knows, or
    that it is of the hub; "" where no other was in question."""

    path: Path
    reason: str

    def __str__(self) -> str:
        name = shipped.label(self.path)
        return f"{name}, {self.reason}" if self.reason else name


def resolve(path: str | Path, *, latest: bool = False) -> Path:
    """The checkpoint directory of `choose`."""
    return choose(path, latest=latest).path


def choose(path: str | Path, *, latest: bool = False) -> Choice:
    """The checkpoint directory meant by `path`: itself, or what the file `latest` or `best` names that `path` is, or of
    a run or a checkpoints folder the best where its recipe keeps one, else, and with latest=True, the latest. Without
    the file `latest` the newest complete step is the latest. `builtin/<name>` is one that ships with fiber; names of
    the hub and addresses are fetched, see `remote.local`.

    UserError where there is none, and for a damaged `latest` or `best`.
    """
    name = shipped.name_in(path)
    path = local(path) if name is None else shipped.find(name)
    if _is_complete(path):
        return Choice(path, _known_of(path))
    if path.name in POINTERS and _is_there(path) and holds_checkpoints(path.parent):
        return Choice(_follow(path), f"the {path.name}")
    for folder in (path, path / CHECKPOINTS):
        if holds_checkpoints(folder):
            return _choose_in(folder, latest)
    if path.is_file():
        raise UserError(f"{path} is a file; `fiber convert {path} FOLDER` makes a published checkpoint one of ours")
    problem = "holds no checkpoint" if path.exists() else "does not exist"
    raise UserError(f"{path} {problem}; give {FORMS}")


def _known_of(checkpoint: Path) -> str:
    """What is said of a checkpoint directory that was named itself: where it is from."""
    if shipped.is_shipped(checkpoint):
        return shipped.KNOWS
    return "from the hub" if snapshot(checkpoint) else ""


def _choose_in(folder: Path, latest: bool) -> Choice:
    """Of a checkpoints folder the best, where there is one and the latest is not asked for."""
    if not _is_there(folder / BEST):
        return Choice(_latest_in(folder), "the latest")
    in_words = _best_in_words(folder.parent)
    if latest:
        return Choice(_latest_in(folder), f"the latest; {in_words} is {_name_in(folder / BEST)}")
    best = _follow(folder / BEST)
    newest = _latest_name(folder)
    if best.name == newest:
        return Choice(best, f"{in_words}, and the latest")
    return Choice(best, f"{in_words}; --latest takes {newest}")


def _latest_in(folder: Path) -> Path:
    """The latest of a checkpoints folder."""
    complete = _steps_in(folder)
    if _is_there(folder / LATEST) or not complete:
        return _follow(folder / LATEST)
    return complete[-1]


def _latest_name(folder: Path) -> str:
    """The name of the latest, which need not be there; of a folder with nothing but `best` what that names."""
    if _is_there(folder / LATEST):
        return _name_in(folder / LATEST)
    complete = _steps_in(folder)
    return complete[-1].name if complete else _name_in(folder / BEST)


def _best_in_words(run_dir: Path) -> str:
    """What the recipe of a run calls best."""
    try:
        recipe = parse_yaml(read_text(run_dir / RECIPE))
        return f"the best by {recipe['log']['keep_best']}"
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return "the best"  # a copy of the checkpoints alone


def _name_in(pointer: Path) -> str:
    """The name of the checkpoint in a file `latest` or `best`. Raises UserError for one that holds no name."""
    try:
        check_regular(pointer)
        with pointer.open("rb") as stream:
            name = decode_text(stream.read(_POINTER_BYTES)).strip()
    except OSError as error:
        raise UserError(f"{pointer} cannot be read: {error.strerror}; {_mend(pointer)}") from error
    except NotText as error:
        raise UserError(f"{pointer} is damaged (not UTF-8); {_mend(pointer)}") from error
    if not name or not name.isprintable() or Path(name).name != name or len(os.fsencode(name)) > _NAME_BYTES:
        raise UserError(f"{pointer} is damaged (it names no checkpoint); {_mend(pointer)}")
    return name


def _mend(pointer: Path) -> str:
    complete = ", ".join(path.name for path in _steps_in(pointer.parent)) or "none"
    return f"write the name of a checkpoint beside it into it, or give one; complete checkpoints: {complete}"


def _follow(pointer: Path) -> Path:
    """The checkpoint that the file `latest` or `best` names."""
    target = pointer.parent / _name_in(pointer)
    if _is_complete(target):
        return target
    complete = ", ".join(path.name for path in _steps_in(pointer.parent)) or "none"
    problem = "which has no config.json" if target.exists() else "which is not there"
    raise UserError(f"{pointer} names {target.name}, {problem}; complete checkpoints: {complete}")
