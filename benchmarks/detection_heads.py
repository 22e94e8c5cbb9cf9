"""Heads that find boxes and align them with words, at equal steps on built-in scenes: ATSS with DynamicHead as
published, and torchvision's RetinaNet and Faster R-CNN over the same pyramid.

    python -m benchmarks.detection_heads --json benchmarks/results/detection_heads.json
    python -m benchmarks.detection_heads optim.steps=2000 --runs runs/longer

`fiber ablate detection_heads` trains them one after another; the same command again goes on where it was. Settings, as
SECTION.KEY=VALUE, are put over the recipe's. Then steps of all heads take turns on one batch: forward, backward and
AdamW on one thread, in seconds of the processor, which other jobs beside it do not lengthen; medians. Parameters of the
head are those of the pyramid and what stands on it. With several seeds the figures are means.
The paper (section 3.3): "our method can be combined easily with other object detectors such as Faster R-CNN and
RetinaNet"; it shows none.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import hardware, write
from fiber_cli.checkpoints.directory import choose
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.training.work import Work, work

RECIPE = "detection_heads"
METRICS = {"AP": "detection/ap", "AP50": "detection/ap50"}


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The comparison that `fiber ablate` writes."""
    command = [sys.executable, "-m", "fiber_cli", "ablate", RECIPE, *args.settings]
    command += ["--init-from", args.init_from, "--output", str(args.runs), "--nproc", args.nproc]
    if args.seeds:
        command += ["--seeds", args.seeds]
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)
    compared: dict[str, Any] = json.loads((args.runs / "comparison.json").read_text(encoding="utf-8"))
    return compared


def weights_digest(checkpoint: str) -> str:
    """SHA-256 of the weights that every head starts on."""
    with (choose(checkpoint).path / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def step_seconds(tasks: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """Seconds of the processor of every step but the first, by the head's name."""
    torch.set_num_threads(1)
    batch = next(next(iter(tasks.values())).batches(0))
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    optimizers = {name: torch.optim.AdamW(each.task.parameters(), lr=1e-5) for name, each in tasks.items()}
    for number in range(repeats + 1):
        for name, each in tasks.items():
            start = time.process_time()
            each.task.train()(batch)["loss"].backward()
            optimizers[name].step()
            optimizers[name].zero_grad(set_to_none=True)
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="SECTION.KEY=VALUE, put over the recipe")
    parser.add_argument("--init-from", default="builtin/retrieval", help="checkpoint that every head starts on")
    parser.add_argument("--seeds", help="other seeds than the grid's, with commas")
    parser.add_argument("--nproc", default="1", help="processes of each run")
    parser.add_argument("--runs", type=Path, default=Path("runs/detection_heads"), help="folder of all runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each head")
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_intermixed_args()
    compared = train(args)
    tasks = {}
    for variant in compared["variants"]:
        settings = [*args.settings, *variant["settings"], "log.validate_every=null", "log.keep_best=null"]
        tasks[variant["name"]] = work(resolve_recipe(RECIPE, settings), args.init_from)
    seconds = step_seconds(tasks, args.repeats)
    recipe = resolve_recipe(RECIPE, args.settings)
    heads = {}
    for variant in compared["variants"]:
        parameters = next(iter(variant["runs"].values()))["parameters"]
        figures = {name: variant["mean"][metric]["mean"] for name, metric in METRICS.items()}
        heads[variant["name"]] = {
            **figures,
            "head_parameters": parameters["heads"],
            "parameters": parameters["total"],
            "processor_seconds_a_step": statistics.median(seconds[variant["name"]]),
            "all_seconds": seconds[variant["name"]],
            "settings": variant["settings"],
            "runs": variant["runs"],
        }
    report = {
        "command": " ".join(["python -m benchmarks.detection_heads", *sys.argv[1:]]),
        "hardware": hardware(torch.device("cpu")),
        "torch": torch.__version__,
        "init_from": args.init_from,
        "init_from_sha256": weights_digest(args.init_from),
        "steps": recipe.optim.steps,
        "images_a_step": recipe.runtime.global_batch,
        "seeds": compared["seeds"],
        "heads": heads,
    }
    print(f"{report['steps']} steps of {report['images_a_step']} images, from {args.init_from}, one thread")
    print(f"{'':24} {'AP':>6} {'AP50':>6} {'head':>12} {'model':>12} {'s a step':>9}")
    for name, head in heads.items():
        print(
            f"{name:24} {head['AP']:6.1f} {head['AP50']:6.1f} {head['head_parameters']:12,} {head['parameters']:12,} "
            f"{head['processor_seconds_a_step']:9.3f}"
        )
    write(report, args.json)


if __name__ == "__main__":
    main()
