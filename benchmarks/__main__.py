"""The benchmarks that need neither data nor a training, one after another, and one table of what they measured on this
machine.

    python -m benchmarks [--out FOLDER] [--only NAME,NAME] [--small]
    python -m benchmarks --list

What each prints goes to FOLDER/<name>.log, its figures to FOLDER/<name>.json, the table to FOLDER/table.md and the
standard output. One that fails is a row that says so, and the exit status is 1. `--small` takes the smallest sizes:
whether all run, in minutes. At their full size they take hours on a CPU; `python -m benchmarks.gpu` is the one for a
GPU at hand, and without one is a row that says that it was left out. `--list` also names the other modules of this
package that can be run, and why they are not.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from fiber_cli.distributed.device import processor_name

TINY = ("--preset", "tiny")
#: Where `benchmarks.scene_queries` has its figures of one kind of query.
QUERIES = ("mean average precision", "coloured shapes")


@dataclass(frozen=True)
class Benchmark:
    """A module of this package. small: its arguments for the smallest size; figures: what the table shows of its JSON,
    label → names of the values on the way to it, numbers where they are in a list; arguments: for the full size;
    full_size_needs_gpu: that one is for a GPU alone."""

    name: str
    small: tuple[str, ...] = TINY
    figures: tuple[tuple[str, tuple[str | int, ...]], ...] = ()
    arguments: tuple[str, ...] = ()
    full_size_needs_gpu: bool = False

    def command(self, *, small: bool) -> list[str]:
        """What is given to Python."""
        return ["-m", f"benchmarks.{self.name}", *(self.small if small else self.arguments)]


BENCHMARKS = (
    Benchmark(
        "coarse_step",
        (*TINY, "--batch", "4"),
        (
            ("operations of those from the pixels", ("operations_ratio",)),
            ("time", ("time_ratio",)),
            ("seconds", ("ways", "shared stems", "seconds")),
        ),
    ),
    Benchmark(
        "rerank",
        (*TINY, "--images", "4", "--texts", "8", "--sample", "8"),
        (("times fewer operations", ("operations_ratio",)), ("times faster", ("time_ratio",))),
        ("--images", "2", "--texts", "64", "--sample", "32"),
    ),
    Benchmark(
        "caption",
        (*TINY, "--batch", "1", "--length", "5"),
        (
            ("seconds with a cache", ("search_seconds", "cache")),
            ("recomputing the prefix", ("search_seconds", "prefix")),
        ),
    ),
    Benchmark(
        "detect",
        (*TINY, "--short", "160", "--longest", "256", "--chunks", "2"),
        (
            ("times faster with one image stem", ("ways", "shared stem", "times_faster")),
            ("with full prompts", ("ways", "packed", "times_faster")),
        ),
    ),
    Benchmark(
        "fusion_cost",
        (*TINY, "--short", "160", "--longest", "256", "--repeats", "1"),
        (
            ("time of a step with fusion in the backbone", ("ways", "fusion in backbone", "time_ratio")),
            ("with deep fusion in the head", ("ways", "deep fusion in head", "time_ratio")),
        ),
        ("--short", "480", "--longest", "800", "--repeats", "2"),
    ),
    Benchmark(
        "fusion_place",
        TINY,
        (
            ("parameters in the backbone", ("places", "in the backbone", "parameters")),
            ("on top", ("places", "on top", "parameters")),
        ),
    ),
    Benchmark(
        "global_contrast",
        (*TINY, "--steps", "4", "--every", "2", "--repeats", "1"),
        (("operations of a step beside one batch", ("operations_ratio",)),),
    ),
    Benchmark(
        "decode",
        ("--size", "64", "--seconds", "0.2"),
        (
            ("photographs of 640 x 480 a second, decoded and resized", ("images_per_second", 3, "resize")),
            ("with RandAugment", ("images_per_second", 3, "randaugment")),
        ),
    ),
    Benchmark(
        "worker_starts",
        ("--workers", "1"),
        (
            ("s to the first batch of the second loader, forked alone", ("alone", "first_batch_seconds", 1)),
            ("from the server in a group", ("group", "first_batch_seconds", 1)),
            ("processor s of the server", ("group", "server_seconds")),
        ),
    ),
    Benchmark(
        "large_data",
        ("--images", "320", "--samples", "200", "--vectors", "1000"),
        (
            ("ms a query for the best alone", ("search", "sorting", "best_ms")),
            ("sorting all", ("search", "sorting", "all_sorted_ms")),
        ),
    ),
    Benchmark(
        "precision",
        (*TINY, "--rounds", "1"),
        (
            ("times faster than padded fp32: detection in fp32", ("speeds", "detection", "times_faster", "fp32")),
            ("in bf16", ("speeds", "detection", "times_faster", "bf16")),
            ("16 captions by ITC in fp32", ("speeds", "16 captions by ITC", "times_faster", "fp32")),
            ("a caption in bf16", ("speeds", "a caption", "times_faster", "bf16")),
        ),
        ("--rounds", "2"),
    ),
    Benchmark(
        "startup",
        ("--only", "import torch", "--only", "fiber detect", "--repeats", "1"),
        (
            ("CPU seconds of fiber detect", ("seconds", "fiber detect", "now")),
            ("of import torch alone", ("seconds", "import torch", "now")),
        ),
    ),
    Benchmark(
        "scoring",
        ("--images", "50", "--detections", "20", "--lvis-images", "20"),
        (("times faster than pycocotools", ("time_ratio",)), ("largest difference", ("largest_difference",))),
    ),
    Benchmark(
        "padding",
        (*TINY, "--steps", "1", "--micro-batches", "8"),
        (
            ("area of micro-batches as pictures come, of those by shape", ("rows", -1, "area_ratio")),
            ("time", ("rows", -1, "time_ratio")),
        ),
    ),
    Benchmark(
        "compile_graphs",
        (*TINY, "--sizes", "3"),
        (
            ("graphs after the first size", ("graphs_after_each_size", 0)),
            ("after the last", ("graphs_after_each_size", -1)),
        ),
    ),
    Benchmark(
        "launches",
        figures=(
            ("operations of a coarse step", ("steps", "coarse, 2 pairs, plain", "total")),
            ("of a fine step", ("steps", "fine, 2 x 800 x 1088, plain", "total")),
        ),
    ),
    Benchmark(
        "scene_queries",
        ("builtin/retrieval", "--count", "20"),
        (
            ("average precision of queries by ITC", (*QUERIES, "itc")),
            ("of the best 20 re-ranked", (*QUERIES, "rerank-20")),
            ("of a random order", (*QUERIES, "chance")),
        ),
        ("builtin/retrieval", "--split", "test"),
    ),
    Benchmark(
        "scene_figures",
        ("builtin/retrieval", "--count", "20"),
        (
            ("IR@1 of unseen scenes by ITC", ("figures", "retrieval", "scenes", "itc/ir@1")),
            ("by fusion", ("figures", "retrieval", "scenes", "itm/ir@1")),
        ),
        tuple(f"builtin/{name}" for name in ("retrieval", "detection", "caption", "vqa", "nlvr2")),
    ),
    Benchmark(
        "faults",
        ("--only", "bits", "--trials", "1", "--match", "words.txt"),
        (("trials", ("trials",)), ("that failed", ("failures",))),
    ),
    Benchmark(
        "gpu",
        # A compiler for a CPU takes minutes.
        (*TINY, "--small", "--ways", "plain"),
        (
            ("TFLOP/s of products in bf16", ("matmul_tflop_per_second", "bf16")),
            ("rows measured", ("measured",)),
            ("not measured", ("not_measured",)),
        ),
        full_size_needs_gpu=True,
    ),
)
#: The other modules that can be run, and why they are none of these.
LEFT_OUT = {
    "ablation": "trains 14 models",
    "builtin": "trains the checkpoints that ship",
    "detection_heads": "trains three detectors",
    "first_page": "measures nothing: it makes the pictures of README.md",
    "official_forms": "needs a folder with all data sets",
    "table_chain": "needs a folder with all data sets, and trains all models",
    "train_tokenizer": "measures nothing: it makes the packaged tokeniser",
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    figures: dict[str, Any] = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        figures["gpu"] = torch.cuda.get_device_name()
    return figures


def figure(report: Any, path: Sequence[str | int]) -> Any:
    """The value at the end of the path. Raises LookupError or TypeError where there is none."""
    for name in path:
        report = report[name]
    return report


def run(benchmark: Benchmark, folder: Path, *, small: bool) -> dict[str, Any]:
    """Run it, and what its row says."""
    command = benchmark.command(small=small)
    row: dict[str, Any] = {"benchmark": benchmark.name, "command": shlex.join(["python", *command]), "seconds": 0.0}
    if benchmark.full_size_needs_gpu and not small and not torch.cuda.is_available():
        return row | {"left_out": "its full size needs a GPU, and there is none"}
    results = folder / f"{benchmark.name}.json"
    results.unlink(missing_ok=True)
    log = folder / f"{benchmark.name}.log"
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        words = [sys.executable, *command, "--json", str(results)]
        code = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT).returncode
    row["seconds"] = round(time.monotonic() - start, 1)
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        row["failed"] = last[0] if last else f"exit status {code}"
        return row
    report = json.loads(results.read_text(encoding="utf-8"))
    figures = {}
    for label, path in benchmark.figures:
        try:
            figures[label] = figure(report, path)
        except (LookupError, TypeError):
            row["failed"] = f"{results}: no figure at {path}"
            return row
    return row | {"figures": figures}


def in_words(row: dict[str, Any]) -> str:
    """The last cell of a row."""
    if "failed" in row:
        return f"FAILED: {row['failed']}"
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    parts = []
    for label, value in row["figures"].items():
        shown = f"{value:.3g}" if isinstance(value, float) else f"{value:,}"
        parts.append(f"{label} {shown}")
    return ", ".join(parts) or f"see {row['benchmark']}.log"


def table(rows: Sequence[dict[str, Any]], of: dict[str, Any]) -> str:
    """All rows in Markdown, below the machine."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in of.items()),
        "",
        "| command | took | figures |",
        "|---|---|---|",
    ]
    for row in rows:
        cell = in_words(row).replace("|", "\\|")
        lines.append(f"| `{row['command']}` | {row['seconds']:.0f} s | {cell} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of logs, figures and table")
    parser.add_argument("--only", help="names, with commas")
    parser.add_argument("--small", action="store_true", help="the smallest sizes")
    parser.add_argument("--list", action="store_true", help="show the commands and run none")
    args = parser.parse_args(argv)
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    names = args.only.split(",") if args.only else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        why = f" ({LEFT_OUT[unknown[0]]})" if unknown[0] in LEFT_OUT else ""
        parser.error(f"--only {unknown[0]}: that is none of these{why}: give of {', '.join(known)}")
    if args.list:
        for name in names:
            print(shlex.join(["python", *known[name].command(small=args.small)]))
        for name, reason in LEFT_OUT.items():
            print(f"# left out: benchmarks.{name}: {reason}")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    of = machine()
    rows = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows.append(run(known[name], args.out, small=args.small))
    text = table(rows, of)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    (args.out / "table.json").write_text(json.dumps({"machine": of, "rows": rows}, indent=2), encoding="utf-8")
    print(text, end="")
    if any("failed" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
