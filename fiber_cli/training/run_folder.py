"""What an output folder holds before a run writes into it: nothing, a run, what a start that failed has left, or what
is somebody else's. Reads names and small files and loads no torch."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from fiber_cli.checkpoints.run_files import (
    BOARD,
    CHECKPOINTS,
    CURVES,
    INIT_FROM,
    METRICS,
    POINTERS,
    RECIPE,
    SUMMARY,
    WANDB,
)
from fiber_cli.errors import UserError, first_names
from fiber_cli.outputs import LEDGER, LOCK, OWNER, Outputs
from fiber_cli.parsing import parse_yaml
from fiber_cli.regular_files import check_regular
from fiber_cli.text_files import decode_text
from fiber_cli.training.records import read_records

#: What a run writes: of these names none may be another's when it goes on.
WRITTEN = (INIT_FROM, RECIPE, METRICS, CURVES, SUMMARY, CHECKPOINTS, BOARD)
_HIDDEN = re.compile(
    r"\.fiber-[0-9]+-[0-9]+\.tmp.*|\.\w+(\.\w+)?\.tmp|\.ranks-[0-9a-f]+|"
    + "|".join(map(re.escape, (LOCK, OWNER, LEDGER)))
)
_STEP = re.compile(r"step-[0-9]+")
_UNFINISHED = re.compile(r"\.(step-[0-9]+|latest|best)\.tmp")
#: More than any path.
_NOTE_BYTES = 1 << 13


def check_output(output: Path, *, resume: bool) -> bool:
    """Whether the folder holds a run with a checkpoint, which only `resume` may continue. Raises UserError for a folder
    that is no place for a run: a new one wants nothing there but what a start that failed has left, one that goes on
    nothing under the names of its own files that it did not write."""
    if not os.path.lexists(output):
        return False
    if not output.is_dir():
        raise UserError(f"{output} is not a folder: give another --output")
    checkpoints = output / CHECKPOINTS
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        raise UserError(f"{checkpoints} is not a folder: move it away, or give another --output")
    if has_checkpoint(output):
        if not resume:
            raise UserError(f"{output} already holds a run: pass --resume to continue it, or another --output")
        return True
    foreign = sorted(_foreign(output, resume=resume))
    if foreign and resume:
        raise UserError(
            f"{output} holds no run that can go on: it has no checkpoint, and fiber did not write its "
            f"{first_names(foreign)}; give the --output of a run, or start a new one elsewhere without --resume"
        )
    if foreign:
        raise UserError(
            f"{output} is not empty, it holds {first_names(foreign)}: pass --resume to continue a run, or another "
            "--output"
        )
    return False


def is_new(output: Path) -> bool:
    """Whether a new run may begin in the folder. Raises UserError for a folder that is no place for a run."""
    try:
        return not check_output(output, resume=False)
    except UserError:
        check_output(output, resume=True)
        return False


def has_checkpoint(output: Path) -> bool:
    """Whether a run has got as far as a checkpoint, complete or damaged."""
    return any(_is_checkpoint(path) for path in _entries(output / CHECKPOINTS))


def _is_checkpoint(path: Path) -> bool:
    if path.name in POINTERS:
        return True
    return _STEP.fullmatch(path.name) is not None and (path / "config.json").is_file()


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _foreign(output: Path, *, resume: bool) -> Iterator[str]:
    """What in a folder without a checkpoint is not left over from a start of fiber's."""
    outputs = Outputs()
    for path in _entries(output):
        is_of_a_run = path.name in WRITTEN
        if resume and not is_of_a_run:
            continue
        if not _is_left_over(path, outputs, resume=resume):
            yield path.name


def _is_left_over(path: Path, outputs: Outputs, *, resume: bool) -> bool:
    """Whether a start of fiber's that came to no checkpoint wrote it."""
    if path.name == METRICS:
        return _is_record_of_a_start(path, resume=resume)
    if path.name == CHECKPOINTS:
        return all(_UNFINISHED.fullmatch(entry.name) for entry in _entries(path))
    if path.name == BOARD:
        return path.is_dir() and all(".tfevents." in entry.name for entry in _entries(path))
    if path.name == WANDB:
        return path.is_dir()
    if path.name in (INIT_FROM, RECIPE):
        return outputs.wrote(path) or (resume and _is_of_a_version_before(path))
    return _HIDDEN.fullmatch(path.name) is not None


def _is_record_of_a_start(file: Path, *, resume: bool) -> bool:
    """Whether nothing is lost where a run writes this metrics.jsonl: without a record for a new run, with records of
    steps that are made again for one that goes on."""
    try:
        records = read_records(file)
    except UserError:
        return False
    return resume or not records


def _is_of_a_version_before(file: Path) -> bool:
    """Whether a version that kept no list of its files wrote it, as far as its form tells."""
    if not file.is_file() or (file.parent / LEDGER).exists():
        return False
    try:
        text = decode_text(file.read_bytes())
        if file.name == INIT_FROM:
            return os.path.isabs(text.strip()) and text.count("\n") == 1
        return yaml.safe_dump(parse_yaml(text), sort_keys=False, width=110) == text
    except (OSError, ValueError, yaml.YAMLError):
        return False


def write_init_from(output: Path, checkpoint: Path | None) -> None:
    """Note the checkpoint that a new run starts from, None for none, so that it starts from the same where it is killed
    before its first checkpoint. Raises UserError."""
    note = output / INIT_FROM
    if checkpoint is not None:
        Outputs().write(note, os.fsencode(checkpoint) + b"\n")
    elif os.path.lexists(note):
        note.unlink()  # of a start that failed


def read_init_from(output: Path) -> Path | None:
    """The checkpoint that the run in a folder started from, None where it started from none. Raises UserError for a
    note that names nothing."""
    note = output / INIT_FROM
    if not os.path.lexists(note):
        return None
    mend = "write the path of the checkpoint that the run started from into it"
    try:
        check_regular(note)
        with note.open("rb") as stream:
            name = stream.read(_NOTE_BYTES).decode("utf-8", "surrogateescape").removesuffix("\n")
    except OSError as error:
        raise UserError(f"{note} cannot be read: {error.strerror}; {mend}") from error
    if not os.path.isabs(name) or "\n" in name or "\0" in name:
        raise UserError(f"{note} is damaged: it names no checkpoint; {mend}")
    if not Path(name).exists():
        raise UserError(f"{note} names {name}, which is not there; put it back, or {mend}")
    return Path(name)
