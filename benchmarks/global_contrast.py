"""The contrast of a whole batch in 8 micro-batches, beside that of one batch and beside that of each micro-batch alone.

    python -m benchmarks.global_contrast                     # a small model on drawn scenes; minutes on one core
    python -m benchmarks.global_contrast --cost-only         # the operations of a step of base alone

Three trainings by ITC with the same data, weights and seeds: 64 pairs at once, 8 x 8 pairs with
task.compare_over=global_batch, and 8 x 8 with micro_step, where ITC tells 8 pairs apart. Validation: 200 unseen scenes
of one thing, found by their captions. The first two should learn the same but for rounding. The cost is what a step
with all objectives takes: operations of base, counted without computing, and processor seconds of a small model,
both without reading.
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure
import torch
from torch import Tensor

from benchmarks.coarse_step import random_batch
from benchmarks.common import options, write
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.training.counting import Counting, Undrawn
from fiber_cli.training.fit import fit
from fiber_cli.training.records import read_records

PAIRS, MICRO_BATCH = 64, 8
VARIANTS = {
    "one batch of 64": ("micro_step", PAIRS),
    "8 x 8, all compared": ("global_batch", MICRO_BATCH),
    "8 x 8, each compared alone": ("micro_step", MICRO_BATCH),
}
METRICS = ("itc/ir@1", "itc/ir@5", "itc/ir@10")
DRAWN = "itc/ir@10"
#: Of the small training.
SETTINGS = (
    "model.preset=mini",
    "model.dropout=0",
    "model.drop_path=0",
    "task.mlm=0",
    "task.itm=0",
    "task.itm_negatives=random",
    "task.mlm_pairs=null",
    "task.itm_pairs=null",
    "data.workers=0",
    "data.train=[{kind: scenes, split: train, count: 20000, objects: [1, 1]}]",
    "data.val=[{kind: scenes, split: val, count: 200, objects: [1, 1]}]",
    "optim.lr=1e-3",
    "optim.warmup=0.1",
    f"runtime.global_batch={PAIRS}",
    "runtime.threads=1",
    "log.keep_best=null",
    "log.save_every=100000",
)
#: Pairs of base that are counted at a time; what more take follows from them.
COUNTED = 4


def train(folder: Path, steps: int, every: int) -> dict[str, list[dict[str, float]]]:
    """The validations of each variant."""
    curves = {}
    for name, (compare_over, micro_batch) in VARIANTS.items():
        changes = [*SETTINGS, f"task.compare_over={compare_over}", f"runtime.micro_batch={micro_batch}"]
        changes += [f"optim.steps={steps}", f"log.validate_every={every}", f"log.every={every}"]
        output = folder / name.replace(" ", "-").replace(",", "")
        fit(resolve_recipe("tiny", changes), output)
        records = read_records(output / "metrics.jsonl")
        curves[name] = []
        for record in records:
            if DRAWN in record:
                curves[name].append({key: record[key] for key in ("step", *METRICS)})
    return curves


def micro_batches(config: FiberConfig, micro_batch: int, pairs: int) -> Iterator[dict[str, Any]]:
    for number in range(pairs // micro_batch):
        yield random_batch(config, micro_batch, length=40) | {"seed": number}


def step(task: CoarseTask, batches: Iterator[dict[str, Any]], count: int) -> None:
    """Forward and backward of an optimiser step."""
    for each in task.passes(batches, count):
        batch = each.batch if each.compute is None else each.batch | {"compute": each.compute}
        with torch.set_grad_enabled(each.has_graph):
            outputs: dict[str, Tensor] = task(batch)
        if each.has_graph:
            (outputs["loss"] / count).backward()


def operations(config: FiberConfig) -> dict[str, float]:
    """GFLOP a pair of a step, with all objectives."""
    counted = {}
    for name, (compare_over, micro_batch) in VARIANTS.items():
        with Undrawn():
            task = CoarseTask(config, compare_over=compare_over)
        task.train()
        # A micro-batch of 1/8 of the pairs, as there.
        pairs = COUNTED * PAIRS // MICRO_BATCH if micro_batch == PAIRS else 2 * COUNTED
        size = pairs if micro_batch == PAIRS else COUNTED
        batches = list(micro_batches(config, size, pairs))
        counting = Counting([*task.parameters(), *task.buffers()])
        with counting:
            step(task, iter(batches), len(batches))
        counted[name] = counting.operations / pairs / 1e9
    return counted


def seconds(repeats: int) -> dict[str, float]:
    """Processor seconds of a step of the small model, the least of several."""
    config = dataclasses.replace(PRESETS["tiny"], image_size=(64, 64))
    least = dict.fromkeys(VARIANTS, float("inf"))
    for _ in range(repeats):
        for name, (compare_over, micro_batch) in VARIANTS.items():
            task = CoarseTask(config, compare_over=compare_over)
            batches = list(micro_batches(config, micro_batch, PAIRS))
            began = time.process_time()
            step(task, iter(batches), len(batches))
            least[name] = min(least[name], time.process_time() - began)
    return least


def picture(curves: dict[str, list[dict[str, float]]], file: Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    # Of the same course: both are to be seen.
    looks: tuple[dict[str, Any], ...] = ({"linewidth": 6, "alpha": 0.4}, {"linestyle": "--"}, {})
    for (name, points), look in zip(curves.items(), looks, strict=True):
        axes.plot([each["step"] for each in points], [each[DRAWN] for each in points], marker=".", label=name, **look)
    axes.set(xlabel="step of 64 pairs", ylabel="IR@10 of 200 unseen scenes, %", ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--every", type=int, default=15, help="steps between validations")
    parser.add_argument("--repeats", type=int, default=5, help="of the small step that is timed")
    parser.add_argument("--picture", type=Path, help="draw the learning curves into this file")
    parser.add_argument("--cost-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"pairs": PAIRS, "micro_batch": MICRO_BATCH, "preset": args.preset}
    counted = operations(PRESETS[args.preset])
    report["gflop_a_pair"] = counted
    report["operations_ratio"] = counted["8 x 8, all compared"] / counted["one batch of 64"]
    report["processor_seconds_a_step"] = seconds(args.repeats)
    if not args.cost_only:
        with tempfile.TemporaryDirectory() as folder:
            report["curves"] = train(Path(folder), args.steps, args.every)
        if args.picture:
            picture(report["curves"], args.picture)
    write(report, args.json)


if __name__ == "__main__":
    main()
