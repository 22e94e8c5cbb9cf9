"""Evaluation of a task on a data set, in one process or many; never imports deepspeed."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

import fiber_cli
from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.caption.evaluation import CaptionSet
from fiber_cli.tasks.evalset import Blind, EvalSet, RetrievalSet
from fiber_cli.tasks.regions.evaluation import RegionSet, region_sets
from fiber_cli.data.source import Source
from fiber_cli.tasks.nlvr2.data import StatementSet
from fiber_cli.tasks.vqa.data import VqaSet
from fiber_cli.errors import UserError
from fiber_cli.kinds import REGION_TASKS
from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.tasks.regions.average_precision import odinw_ap
from fiber_cli.tasks.prediction import predict_all
from fiber_cli.tasks.retrieval.evaluation import Result, retrieval_mode, retrieve


class First:
    """The first `count` samples of a source, which it is in every other respect."""

    def __init__(self, source: Source, count: int):
        self._source, self._count = source, count

    def __len__(self) -> int:
        return min(self._count, len(self._source))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what pickling asks an object that is not filled yet
            raise AttributeError(name)
        return getattr(self.__dict__["_source"], name)


def evaluation_set(
    config: dict[str, Any], sources: Sequence[Source], tokenizer: Any, *, chunk: int | str = "auto"
) -> EvalSet | RetrievalSet | list[RegionSet]:
    """What the task of a checkpoint's config.json is evaluated on; of region-level tasks each source by itself. chunk:
    see `DetectionSet`."""
    task, preprocessing = config["task"]["name"], config["preprocessing"]
    text_length = preprocessing["text_length"]
    if task in REGION_TASKS:
        sides = preprocessing["short_side"], preprocessing["longest_side"]
        options = {"chunk": chunk, "published_names": preprocessing["published_names"]}
        return region_sets(sources, tokenizer, text_length, sides, referring=task == "refexp", **options)
    image_size = tuple(preprocessing["image_size"])
    match task:
        case "vqa":
            return VqaSet(sources, tokenizer, text_length, image_size, config["labels"])
        case "nlvr2":
            return StatementSet(sources, tokenizer, text_length, image_size)
        case "caption":
            return CaptionSet(sources, tokenizer, image_size)
    return RetrievalSet(sources, tokenizer, text_length, image_size)


def measure(task: nn.Module, evalset: EvalSet | RetrievalSet | list[RegionSet], **options: Any) -> Result:
    """A task's own metrics, the same on all ranks; retrieval by `retrieval_mode`. options: batch_size, workers and
    precision, see `predict_all`."""
    if isinstance(evalset, list):
        return _together(evalset, [measure(task, each, **options) for each in evalset])
    if isinstance(evalset, RetrievalSet):
        return retrieve(retrieval_mode(task), task, evalset, task, evalset, **options)
    predictions = predict_all(task, evalset, **options, what="evaluation")
    if not predictions.rows:
        raise UserError("nothing to evaluate: no item could be read; check the data set's paths")
    # Scores of captions start Java, so one rank is enough.
    score = dist.gather_objects(evalset.score(predictions.rows) if dist.is_main() else None)[0]
    counts = {"samples": len(predictions.rows), "bad": predictions.bad, "truncated": predictions.truncated}
    return Result(score.metrics, counts, score.files, score.notes)


def _together(evalsets: list[RegionSet], results: list[Result]) -> Result:
    """The results of several sets as one. A metric that several have stands as `<metric>/<set>`; of AP there is also,
    as in ODinW, the plain mean."""
    if len(results) == 1:
        return results[0]
    given = [evalset.source.name for evalset in evalsets]
    names = [name if given.count(name) == 1 else f"{name}-{n}" for n, name in enumerate(given, 1)]
    occurs = Counter(name for result in results for name in result.metrics)
    whole = Result({}, {"samples": 0, "bad": [], "truncated": 0}, {}, [])
    for own, (metrics, counts, files, notes) in zip(names, results):
        whole.metrics.update({name if occurs[name] == 1 else f"{name}/{own}": metrics[name] for name in metrics})
        for what in whole.counts:
            whole.counts[what] += counts[what]
        whole.files.update({f"{own}/{file}": content for file, content in files.items()})
        whole.notes.extend(f"{own}: {note}" for note in notes)
    detected = {own: r.metrics["detection/ap"] for own, r in zip(names, results) if "detection/ap" in r.metrics}
    if len(detected) > 1:
        whole.metrics.update(odinw_ap(detected))
    return whole


def own_mode(loaded: Loaded) -> str:
    """How a checkpoint is evaluated by default: retrieval by its own objective, else its task."""
    return retrieval_mode(loaded.task) if loaded.name in ("coarse", "retrieval") else loaded.name


def run_eval(
    sources: Sequence[Source],
    *,
    dataset: str,
    split: str,
    loaded: Loaded,
    output: str | Path,
    batch: int | None,
    workers: int,
    mode: str | None = None,
    itm: Loaded | None = None,
    rerank: Sequence[int] = (),
    stem_memory: float = 4.0,
    limit: int | None = None,
    blind: bool = False,
    chunk: int | str = "auto",
    as_json: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint, in float32, and write `output`/results.json and what else there is; returns the results.

    mode: for tasks of retrieval "itc", "itm", "itc+itm" or "rerank", by default `own_mode`. itm: the checkpoint
    that scores pairs, where it is another one. rerank: the k of mode "rerank". stem_memory: GiB of text stems that a
    rank holds in memory, the rest lies on disk. limit: use the first so many samples
    of each source. blind: measure also, as "blind/…", with every image exchanged for another. chunk: names in one
    prompt of detection. Raises UserError for a
    mode that does not fit and for data of which nothing is left.
    """
    start, mode = time.monotonic(), mode or own_mode(loaded)
    chosen = sources if limit is None else [First(source, limit) for source in sources]

    def data(model: Loaded) -> EvalSet | RetrievalSet | list[RegionSet]:
        return evaluation_set(model.config, chosen, model.tokenizer, chunk=chunk)

    if chunk != "auto" and loaded.name not in REGION_TASKS:
        raise UserError(f"--chunk is for detection; {loaded.path} is a checkpoint of {loaded.name}")
    options = {"batch_size": batch or (4 if loaded.name in REGION_TASKS else 64), "workers": workers}
    evalset, pairs = data(loaded), itm or loaded
    for model in (loaded, pairs):
        model.task.to(dist.device())
    if not isinstance(evalset, RetrievalSet):
        if blind and isinstance(evalset, list):
            raise UserError("--blind: boxes of another image cannot fit; it is for image-level tasks")
        if mode != loaded.name:
            raise UserError(f"--mode {mode} is for retrieval; {loaded.path} is a checkpoint of {loaded.name}")
        result = measure(loaded.task, evalset, **options)
        if blind:
            exchanged = measure(loaded.task, Blind(evalset), **options).metrics
            result.metrics.update({f"blind/{name}": value for name, value in exchanged.items()})
    else:
        if blind:
            raise UserError("--blind: in retrieval chance is known, 1 / candidates; it is for other tasks")
        memory = int(stem_memory * 2**30)
        scoring = {"folder": Path(output), "fingerprint": pairs.fingerprint, "memory": memory}
        models = loaded.task, evalset, pairs.task, data(pairs) if itm else evalset
        result = retrieve(mode, *models, **options, rerank=rerank, scoring=scoring)
    results = {
        "dataset": dataset,
        "split": split,
        "mode": mode,
        "checkpoint": str(loaded.path),
        **({"itm_checkpoint": str(itm.path)} if itm else {}),
        "metrics": result.metrics,
        **result.counts,
        "notes": result.notes,
        "seconds": round(time.monotonic() - start, 2),
        "version": fiber_cli.__version__,
    }
    if dist.is_main():
        for name, content in {"results.json": results, **result.files}.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (Path(output) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(output) / name).write_text(text, encoding="utf-8")
        print(json.dumps(results, indent=2, ensure_ascii=False) if as_json else table(results))
    return results


def table(results: dict[str, Any]) -> str:
    """The results of `run_eval` for the screen; recalls as one row per way and direction."""
    metrics, counts = dict(results["metrics"]), f"{results['samples']} samples"
    if "texts" in results:
        counts = f"{results['images']} images, {results['texts']} texts"
    lines = [f"{results['dataset']} {results['split']}, {results['mode']}: {counts}, {results['seconds']} s"]
    for way in dict.fromkeys(name.partition("/")[0] for name in metrics if "/ir@" in name):
        for title, prefix in (("image retrieval (IR)", "ir"), ("text retrieval (TR)", "tr")):
            cells = [f"@{k} {metrics.pop(f'{way}/{prefix}@{k}'):6.2f}" for k in (1, 5, 10)]
            lines.append(f"  {way:<11} {title:<21} {'   '.join(cells)}")
    lines += [f"  {name:<32} {value:8.2f}" for name, value in metrics.items()]
    if results["bad"]:
        lines.append(f"  left out: {len(results['bad'])}, such as {': '.join(results['bad'][0])}")
    if results["truncated"]:
        lines.append(f"  {results['truncated']} texts were cut at the model's text length")
    return "\n".join(lines + [f"  {note}" for note in results["notes"]])
