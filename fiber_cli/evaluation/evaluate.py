"""Evaluation of a checkpoint on a data set, in one process or many; never imports deepspeed."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import fiber_cli
from fiber_cli.checkpoints.identity import checkpoint_identity
from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.checkpoints.placing import placed
from fiber_cli.data.identity import source_facts
from fiber_cli.data.source import Source
from fiber_cli.data.workers import prepare_workers
from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import failing_together, require_agreement
from fiber_cli.distributed.first_rank import on_first_rank
from fiber_cli.errors import first_names
from fiber_cli.evaluation.report import check_results, table, write_results
from fiber_cli.outputs import Outputs
from fiber_cli.placement import USUAL, Placement
from fiber_cli.printing import show, show_json
from fiber_cli.tasks.evaluation_options import EvaluationOptions, PairScorer
from fiber_cli.tasks.prediction import PredictOptions

NO_DETAILS: Mapping[str, Any] = MappingProxyType({})


def run_eval(
    sources: Sequence[Source],
    *,
    dataset: str,
    split: str,
    loaded: Loaded,
    output: Path,
    options: EvaluationOptions,
    predict: PredictOptions,
    placement: Placement = USUAL,
    itm: Loaded | None = None,
    limit: int | None = None,
    as_json: bool = False,
    details: Mapping[str, Any] = NO_DETAILS,
    notes: Sequence[str] = (),
    outputs: Outputs | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint, and write `output`/results.json and what else there is; returns the results.

    options: what to measure and how, see `EvaluationOptions`; checkpoint, folder, fingerprint and scorer are filled in
    here. placement: of the checkpoints; the precision of `predict` is settled by it. itm: the checkpoint that scores
    pairs, where it is another one. limit: use the first so many samples of each source. details: what else the results
    say of the data; notes: lines for the reader on it. outputs: what may be replaced; by default files of earlier
    evaluations. Raises UserError for options that do not fit, for data of which
    nothing is left and, before anything is computed, for an `output` that may not be written.
    """
    outputs = outputs or Outputs()
    start = time.monotonic()
    if limit is not None:
        sources = [source.first(limit) for source in sources]
    paths = [model.path for model in (loaded, itm) if model is not None]
    require_agreement(lambda: _facts(sources, options, paths))
    in_place = placed(loaded, placement)
    loaded = in_place.loaded
    if itm is not None:
        itm = placed(itm, placement).loaded
    predict = dataclasses.replace(predict, precision=in_place.precision)
    require_agreement(lambda: {"the precision": in_place.precision})
    scoring = itm or loaded
    fingerprint = scoring.fingerprint  # of the whole file of weights
    options = dataclasses.replace(options, checkpoint=str(loaded.path), folder=output, fingerprint=fingerprint)
    if itm is not None:
        options = dataclasses.replace(options, scorer=PairScorer(itm.task, itm.context, fingerprint))
    with failing_together():
        evaluation = loaded.declaration.evaluation.load()(sources, loaded.context, options)
        prepare_workers(predict.workers)
        checked = evaluation.check()
    on_first_rank(partial(check_results, output, checked.files, outputs))
    result = evaluation.measure(loaded.task, predict)
    results: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "mode": evaluation.mode,
        "checkpoint": str(loaded.path),
    }
    if itm is not None:
        results["itm_checkpoint"] = str(itm.path)
    if limit is not None:
        results["limit"] = limit
    results |= {
        **details,
        "metrics": result.metrics,
        "samples": result.samples,
        **result.counts,
        "files": sorted(result.files),
        "bad": result.bad,
        "truncated": result.truncated,
        "notes": [*notes, *_left_out(sources), *result.notes],
        **in_place.facts(),
        "seconds": round(time.monotonic() - start, 2),
        "version": fiber_cli.__version__,
    }
    if collectives.is_main():
        write_results(output, results, result.files, outputs)
        if as_json:
            show_json(results)
        else:
            show(table(results))
    return results


def _facts(sources: Sequence[Source], options: EvaluationOptions, checkpoints: Sequence[Path]) -> dict[str, str]:
    """What all ranks must have the same."""
    facts = {
        "the version of fiber": fiber_cli.__version__,
        "the mode": str(options.mode),
        "--top-k": str(options.rerank),
        "--blind": str(options.blind),
        "--chunk": str(options.chunk),
        "--ap-library": str(options.ap_library),
    }
    for number, checkpoint in enumerate(checkpoints, 1):
        facts[f"checkpoint {number}"] = checkpoint_identity(checkpoint)
    for number, source in enumerate(sources):
        facts |= source_facts(f"data[{number}]", source)
    return facts


def _left_out(sources: Sequence[Source]) -> list[str]:
    """A line for each source about the records of its files that cannot be read."""
    lines = []
    for source in sources:
        if source.left_out:
            named = first_names([f"{place} ({reason})" for place, reason in source.left_out], 3)
            lines.append(f"{source.name}: {len(source.left_out)} records of its files are left out: {named}")
    return lines
