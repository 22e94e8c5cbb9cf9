"""What a run shows and writes: progress, recipe.yaml, metrics.jsonl, TensorBoard, Weights & Biases,
curves.png, summary.json.

Only rank 0 does any of it; on the other ranks every call does nothing.
"""

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fiber_cli.characters import UNPRINTED, one_line
from fiber_cli.checkpoints.run_files import BOARD, CURVES, METRICS, RECIPE, SUMMARY
from fiber_cli.checkpoints.writing import remove_unfinished
from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import UserError, optional
from fiber_cli.outputs import LEDGER, Outputs
from fiber_cli.printing import say
from fiber_cli.text_files import dump_json
from fiber_cli.training.appended import AppendedFile
from fiber_cli.training.curves import curves
from fiber_cli.training.records import drop_records, read_records
from fiber_cli.training.resume import differing_settings

if TYPE_CHECKING:
    from fiber_cli.training.board import Board

#: Of the logged numbers, those on the progress line, in this order; losses come first.
ON_THE_LINE = ("lr", "images_per_second", "data_wait", "device_share", "skipped")


#: What Weights & Biases take in no identity of a run, and what is no text.
_NOT_IN_AN_IDENTITY = re.compile(f"[/:;,#?'\\x00-\\x1f{UNPRINTED}]")


class RunLog(ExitStack):
    """The log of a run in `output` that continues from step `start` and is to end at `total`.

    Lines of metrics.jsonl past `start`, left by a run that was killed, are dropped. A recipe.yaml that the user has
    changed stays as it is. Nothing is written before what can fail for other reasons than the disk has been done.
    Raises UserError and OSError.
    """

    def __init__(self, output: Path, recipe: Recipe, *, start: int, total: int):
        super().__init__()
        self.output = output
        self.file = output / METRICS
        self._images_per_step = recipe.runtime.global_batch
        self._total = total
        self._is_main = is_main()
        if not self._is_main:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        remove_unfinished(output)
        # A version that kept no list of its files wrote this run.
        is_older = start > 0 and not (output / LEDGER).exists()
        self._outputs = Outputs(force=is_older)
        for name in (SUMMARY, CURVES):
            self._check_own(output / name)
        # Gives way again where what follows fails.
        with ExitStack() as opened:
            self._open(opened, recipe, start)
            self.push(opened.pop_all())
        # Bars are for screens: in a file each redraw would be a line.
        self._on_screen = sys.stderr.isatty()
        bar: tqdm[Any] = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True, disable=not self._on_screen)
        self._bar = self.enter_context(bar)

    def _open(self, opened: ExitStack, recipe: Recipe, start: int) -> None:
        self._wandb = None if recipe.log.wandb is None else self._start_wandb(recipe.log.wandb, recipe.name)
        if self._wandb is not None:
            opened.callback(self._wandb.finish)
        self._keep_recipe(recipe)
        drop_records(self.file, start)
        self._stream = opened.enter_context(AppendedFile(self.file))
        self._board = opened.enter_context(self._open_board(start)) if recipe.log.tensorboard else None

    def _check_own(self, file: Path) -> None:
        """Raises UserError where a file that the end of the run will write is another's."""
        is_own = self._outputs.force or self._outputs.wrote(file)
        if file.is_dir() or (os.path.lexists(file) and not is_own):
            raise UserError(f"{file} is not fiber's, or has been changed since it was written: move it away")

    def _keep_recipe(self, recipe: Recipe) -> None:
        """recipe.yaml, where it is not there or fiber's own; a user's stays, and what it says otherwise is told."""
        file = self.output / RECIPE
        if not file.exists() or self._outputs.wrote(file):
            self._outputs.write(file, recipe.to_yaml())
            return
        differing = differing_settings(recipe, file)
        if differing:
            changes = "; ".join(differing)
            say(f"{file} has been changed, or is of an earlier version, and stays as it is: {changes}")

    def _open_board(self, start: int) -> "Board":
        from fiber_cli.training.board import Board

        if os.path.lexists(self.output / BOARD) and not (self.output / BOARD).is_dir():
            raise UserError(f"{self.output / BOARD} is not a folder: move it away")
        return Board(self.output / BOARD, start=start + 1)

    def _start_wandb(self, project: str, name: str) -> Any:
        wandb = optional(
            "wandb", "log.wandb is set but wandb is not installed: `pip install wandb`, or set log.wandb=null"
        )
        # The folder stands for the run, so that a resumed one continues its curves.
        path = self.output.resolve().as_posix()
        identity = _NOT_IN_AN_IDENTITY.sub("-", path.strip("/"))[-120:]
        return wandb.init(project=project, name=name, dir=str(self.output), id=identity, resume="allow")

    def advance(self) -> None:
        """One step done."""
        if self._is_main:
            self._bar.update()

    def say(self, text: str) -> None:
        """A line for the reader."""
        if not self._is_main:
            return
        if self._on_screen:
            self._bar.write(one_line(text), file=sys.stderr)
        else:
            say(text)

    def write(self, record: Mapping[str, Any], *, show: bool = True) -> None:
        """Append a record with a "step" to metrics.jsonl and the dashboards; numbers that are not finite
        become null. Raises OSError, and UserError where the files are gone."""
        if not self._is_main:
            return
        finite = {name: _finite_or_none(value) for name, value in record.items()}
        self._stream.write(json.dumps(finite).encode() + b"\n")
        numbers = {}
        for name, value in finite.items():
            if name != "step" and isinstance(value, int | float):
                numbers[name] = value
        if self._board is not None:
            self._board.add(numbers, record["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=record["step"])
        if show:
            self._show(record["step"], numbers)

    def check_folder(self) -> None:
        """Raises UserError where the folder has been removed, moved or replaced while the run writes into it."""
        if self._is_main:
            self._stream.check()

    def _show(self, step: int, numbers: dict[str, float]) -> None:
        losses = [name for name in numbers if name.endswith("loss")]
        names = [name for name in (*losses, *ON_THE_LINE) if name in numbers]
        line = "  ".join(f"{name} {numbers[name]:.4g}" for name in names)
        if self._on_screen:
            self._bar.set_postfix_str(line)
            return
        images_left = (self._total - step) * self._images_per_step
        seconds = round(images_left / numbers["images_per_second"])
        self.say(f"step {step}/{self._total}  {line}  ETA {timedelta(seconds=seconds)}")

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and curves.png of a run that is complete. Raises UserError."""
        if not self._is_main:
            return
        self.check_folder()
        picture = curves(read_records(self.file))
        if picture is not None:
            self._outputs.write(self.output / CURVES, picture)
        # The last one: it says that the run is complete.
        self._outputs.write(self.output / SUMMARY, dump_json(summary, indent=2) + "\n")


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
