"""Evaluation of a task on a data set, in one process or many; never imports deepspeed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiber_cli
from fiber_cli import build, dist
from fiber_cli.data.evalset import RetrievalSet
from fiber_cli.data.source import Source
from fiber_cli.errors import UserError
from fiber_cli.retrieval import retrieval

MODES = ("itc",)


@dataclass(frozen=True)
class First:
    """The first `count` images of a source."""

    source: Source
    count: int

    @property
    def name(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def key(self, i: int) -> str:
        return self.source.key(i)

    def captions(self, i: int) -> tuple[str, ...]:
        return self.source.captions(i)

    def image(self, i: int):
        return self.source.image(i)


def run_eval(
    sources: Sequence[Source],
    *,
    dataset: str,
    split: str,
    mode: str,
    checkpoint: str | Path,
    output: str | Path,
    batch: int,
    workers: int,
    limit: int | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint, in float32, and write `output`/results.json; returns what was written.

    mode: "itc" (retrieval by dual-encoder features). limit: use the first so many images of each source.
    Raises UserError for an unknown mode, a checkpoint that cannot be read, or data of which nothing is left.
    """
    if mode not in MODES:
        raise UserError(f"--mode {mode}: choose one of {', '.join(MODES)}")
    dist.init_from_env()
    start = time.monotonic()
    task, tokenizer, config = build.load_task(checkpoint)
    task.to(dist.device())
    chosen = sources if limit is None else [First(source, limit) for source in sources]
    shape = config["preprocessing"]
    evalset = RetrievalSet(chosen, tokenizer, shape["text_length"], tuple(shape["image_size"]))
    metrics, counts = retrieval(task, evalset, batch_size=batch, workers=workers)
    results = {
        "dataset": dataset,
        "split": split,
        "mode": mode,
        "checkpoint": str(checkpoint),
        "metrics": metrics,
        "samples": counts.pop("images"),
        **counts,
        "seconds": round(time.monotonic() - start, 2),
        "version": fiber_cli.__version__,
    }
    if dist.is_main():
        Path(output).mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=2, ensure_ascii=False)
        (Path(output) / "results.json").write_text(text + "\n", encoding="utf-8")
        print(table(results))
    return results


def table(results: dict[str, Any]) -> str:
    """The metrics of `run_eval` for the screen: one row per direction, one column per k."""
    lines = [
        f"{results['dataset']} {results['split']}, {results['mode']}: {results['samples']} images, "
        f"{results['texts']} texts, {results['seconds']} s"
    ]
    for title, prefix in (("image retrieval (IR)", "ir"), ("text retrieval (TR)", "tr")):
        cells = [f"@{k} {results['metrics'][f'itc/{prefix}@{k}']:6.2f}" for k in (1, 5, 10)]
        lines.append(f"  {title:<21} {'   '.join(cells)}")
    if results["bad"]:
        lines.append(f"  left out: {len(results['bad'])}, such as {': '.join(results['bad'][0])}")
    if results["truncated"]:
        lines.append(f"  {results['truncated']} texts were cut at the model's text length")
    return "\n".join(lines)
