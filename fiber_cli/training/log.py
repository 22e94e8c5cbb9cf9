"""What a run shows and writes: progress, recipe.yaml, metrics.jsonl, TensorBoard, Weights & Biases,
curves.png, summary.json.

Only rank 0 does any of it; on the other ranks every call does nothing.
"""

import json
import math
import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

import fiber_cli
from fiber_cli.distributed import collectives as dist
from fiber_cli.checkpoints.directory import replace
from fiber_cli.errors import UserError, optional
from fiber_cli.config.settings import Recipe

#: Settings that may differ between a run and its continuation.
FREE_ON_RESUME = ("log.", "data.workers", "name")
#: Of the logged numbers, those on the progress line, in this order; losses come first.
SHOWN = ("lr", "images_per_second", "skipped")


class RunLog(ExitStack):
    """The log of a run in `output` that continues from step `start` and is to end at `total`.

    Lines of metrics.jsonl past `start`, left by a run that was killed, are dropped.
    """

    def __init__(self, output: Path, recipe: Recipe, *, start: int, total: int):
        super().__init__()
        self.output, self.file, self._images = output, output / "metrics.jsonl", recipe.runtime.global_batch
        self._on, self._board, self._wandb = dist.is_main(), None, None
        if not self._on:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        replace(output / "recipe.yaml", recipe.to_yaml())
        kept = [record for record in read_metrics(self.file) if record["step"] <= start]
        replace(self.file, "".join(json.dumps(record) + "\n" for record in kept))
        self._stream = self.enter_context(self.file.open("a", encoding="utf-8", buffering=1))
        if recipe.log.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = self.enter_context(SummaryWriter(str(self.output / "tensorboard"), purge_step=start + 1))
        if recipe.log.wandb is not None:
            self._wandb = _start_wandb(recipe.log.wandb, recipe.name, self.output)
            self.callback(self._wandb.finish)
        # Bars are for screens: in a file each redraw would be a line.
        self._live = sys.stderr.isatty()
        bar = {"total": total, "initial": start, "unit": "step", "dynamic_ncols": True}
        self._bar = self.enter_context(tqdm(**bar, disable=not self._live))

    def advance(self) -> None:
        """One step done."""
        if self._on:
            self._bar.update()

    def say(self, text: str) -> None:
        """A line for the reader."""
        if self._on:
            self._bar.write(text, file=sys.stderr) if self._live else print(text, file=sys.stderr, flush=True)

    def write(self, record: Mapping[str, Any], *, show: bool = True) -> None:
        """Append a record with a "step" to metrics.jsonl and the dashboards; numbers that are not finite
        become null."""
        if not self._on:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._stream.write(json.dumps(clean) + "\n")
        numbers = {k: v for k, v in clean.items() if isinstance(v, int | float) and k != "step"}
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(key, value, record["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=record["step"])
        if show:
            losses = [key for key in numbers if key.endswith("loss")]
            line = "  ".join(f"{key} {numbers[key]:.4g}" for key in [*losses, *SHOWN] if key in numbers)
            if self._live:
                self._bar.set_postfix_str(line)
            else:
                left = (self._bar.total - record["step"]) * self._images / numbers["images_per_second"]
                self.say(f"step {record['step']}/{self._bar.total}  {line}  ETA {timedelta(seconds=round(left))}")

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and curves.png of a run that is complete."""
        if self._on:
            replace(self.output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
            draw_curves(read_metrics(self.file), self.output / "curves.png")


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line cut by a kill is left out. Empty where there is no file."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    # What a kill cut has no newline after it, so it is the last piece; a whole file ends in an empty one.
    return [json.loads(line) for line in lines[:-1]]


def draw_curves(records: list[dict[str, Any]], file: Path) -> None:
    """A picture of losses, validation metrics and learning rate over the steps."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(key for record in records for key in record))
    panels = {
        "losses": [k for k in names if k.endswith("loss")],
        "validation (%)": [k for k in names if "/" in k],
        "learning rate": ["lr"],
    }
    panels = {title: keys for title, keys in panels.items() if not set(names).isdisjoint(keys)}
    if not panels:
        return
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for key in keys:
            points = [(r["step"], r[key]) for r in records if r.get(key) is not None]
            axes.plot(*zip(*points), label=key) if points else None
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)


def environment() -> dict[str, Any]:
    """Hardware and versions, for the summary."""
    cuda = torch.cuda.is_available()
    return {
        "ranks": dist.world_size(),
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads_per_rank": torch.get_num_threads(),
        "fiber": fiber_cli.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _start_wandb(project: str, name: str, output: Path) -> Any:
    wandb = optional("wandb", "log.wandb is set but wandb is not installed: `pip install wandb`, or set log.wandb=null")
    # The folder stands for the run, so that a resumed one continues its curves.
    identity = output.resolve().as_posix().strip("/").replace("/", "-")[-120:]
    return wandb.init(project=project, name=name, dir=str(output), id=identity, resume="allow")


def check_same_recipe(recipe: Recipe, file: Path) -> None:
    """Raises UserError with every setting that differs from the run's; one that its recipe does not know is new."""
    try:
        stored = _flat(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read ({error}), so that the run cannot be continued safely") from error
    given = _flat(yaml.safe_load(recipe.to_yaml()))
    stored = given | stored
    differ = [
        f"{key}: {stored.get(key)!r} in the run, {given.get(key)!r} now"
        for key in sorted(stored.keys() | given.keys())
        if stored.get(key) != given.get(key) and not key.startswith(FREE_ON_RESUME)
    ]
    if differ:
        raise UserError(
            f"--resume continues a run with the same recipe; {len(differ)} settings differ from {file} "
            "(give the same ones, or start another run with --init-from):\n  " + "\n  ".join(differ)
        )


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
