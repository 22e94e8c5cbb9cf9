"""What a run shows and writes: progress, recipe.yaml, metrics.jsonl, TensorBoard, Weights & Biases,
curves.png, summary.json.

Only rank 0 does any of it; on the other ranks every call does nothing.
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fiber_cli.characters import UNPRINTED, one_line
from fiber_cli.checkpoints.directory import replace
from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import UserError, optional
from fiber_cli.printing import say
from fiber_cli.text_files import dump_json
from fiber_cli.training.curves import Record, draw_curves, read_metrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Of the logged numbers, those on the progress line, in this order; losses come first.
ON_THE_LINE = ("lr", "images_per_second", "skipped")


#: What Weights & Biases take in no identity of a run, and what is no text.
_NOT_IN_AN_IDENTITY = re.compile(f"[/:;,#?'\\x00-\\x1f{UNPRINTED}]")


class RunLog(ExitStack):
    """The log of a run in `output` that continues from step `start` and is to end at `total`.

    Lines of metrics.jsonl past `start`, left by a run that was killed, are dropped.
    """

    def __init__(self, output: Path, recipe: Recipe, *, start: int, total: int):
        super().__init__()
        self.output = output
        self.file = output / "metrics.jsonl"
        self._images_per_step = recipe.runtime.global_batch
        self._total = total
        self._is_main = is_main()
        if not self._is_main:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        replace(output / "recipe.yaml", recipe.to_yaml())
        earlier = [record for record in read_metrics(self.file) if record["step"] <= start]
        replace(self.file, "".join(json.dumps(record) + "\n" for record in earlier))
        self._stream = self.enter_context(self.file.open("a", encoding="utf-8", buffering=1))
        self._board = self._open_board(start) if recipe.log.tensorboard else None
        self._wandb = None if recipe.log.wandb is None else self._start_wandb(recipe.log.wandb, recipe.name)
        # Bars are for screens: in a file each redraw would be a line.
        self._on_screen = sys.stderr.isatty()
        bar: tqdm[Any] = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True, disable=not self._on_screen)
        self._bar = self.enter_context(bar)

    def _open_board(self, start: int) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        folder = self.output / "tensorboard"
        try:
            return self.enter_context(SummaryWriter(str(folder), purge_step=start + 1))
        except UnicodeEncodeError:
            raise UserError(
                f"log.tensorboard: TensorBoard writes into no folder whose name is not UTF-8, as {folder} is; give "
                "another --output or set log.tensorboard=false"
            ) from None

    def _start_wandb(self, project: str, name: str) -> Any:
        wandb = optional(
            "wandb", "log.wandb is set but wandb is not installed: `pip install wandb`, or set log.wandb=null"
        )
        # The folder stands for the run, so that a resumed one continues its curves.
        path = self.output.resolve().as_posix()
        identity = _NOT_IN_AN_IDENTITY.sub("-", path.strip("/"))[-120:]
        run = wandb.init(project=project, name=name, dir=str(self.output), id=identity, resume="allow")
        self.callback(run.finish)
        return run

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
        become null."""
        if not self._is_main:
            return
        finite = {name: _finite_or_none(value) for name, value in record.items()}
        self._stream.write(json.dumps(finite) + "\n")
        numbers = {}
        for name, value in finite.items():
            if name != "step" and isinstance(value, int | float):
                numbers[name] = value
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, record["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=record["step"])
        if show:
            self._show(record["step"], numbers)

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
        """Write summary.json and curves.png of a run that is complete."""
        if not self._is_main:
            return
        text = dump_json(summary, indent=2)
        replace(self.output / "summary.json", text + "\n")
        records: list[Record] = read_metrics(self.file)
        draw_curves(records, self.output / "curves.png")


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
