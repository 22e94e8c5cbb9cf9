"""Search in a folder of pictures: the dual encoder over all of them, fusion over its best (paper section 4.2)."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fiber_cli.characters import cell, says_nothing
from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.checkpoints.placing import placed
from fiber_cli.data.text import check_encoded
from fiber_cli.distributed import collectives
from fiber_cli.errors import UserError
from fiber_cli.inference.index import INDEX, LeftOut, build_index, check_index, image_set, keeps_its_index
from fiber_cli.inference.index_file import Index, blocks
from fiber_cli.inference.picture_files import check_folder, pictures_below
from fiber_cli.inference.queries import read_queries
from fiber_cli.inference.sheet import check_sheet, draw_sheet
from fiber_cli.inference.unseen import say_unseen
from fiber_cli.outputs import Outputs
from fiber_cli.placement import USUAL, Placement
from fiber_cli.printing import say, show, show_json
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.items import TextSet
from fiber_cli.tasks.prediction import PredictOptions, predict_all
from fiber_cli.tasks.retrieval.pairs import best_columns, score_pairs, sums
from fiber_cli.tasks.thresholds import Threshold, Thresholds

#: So many queries that no picture shows are named one by one.
_NAMED = 5
_ABSENT = "nothing there is likely to show it"
ScoreName = Literal["score", "logits", "itm"]


class SearchResult(NamedTuple):
    """A picture for a query. rank: from 1, by score; itc: the dual encoder's cosine; itm: the ITM head's logit; score:
    their sum, both as logits or, where that was asked for, the raw one, see `tasks.retrieval.evaluation.Sums`; matches:
    whether the picture is likely to show what the query says, see `Judgement`, None where that cannot be told."""

    query: str
    rank: int
    path: str
    score: float
    itc: float
    itm: float
    matches: bool | None = None


class SearchOutcome(NamedTuple):
    """What a search gives. left_out: (path, reason) of pictures that can no longer be read; cuts: that queries had to
    be cut, in words."""

    results: list[SearchResult]
    left_out: LeftOut
    cuts: list[str]


class Judgement(NamedTuple):
    """How it is told that a picture shows what a query says. of: the score that must reach the threshold, "score" that
    which ranks, "logits" the sum of ITC and ITM as logits, "itm" the matched logit. is_chosen: whether validation has
    chosen the thresholds."""

    of: ScoreName
    thresholds: Thresholds
    is_chosen: bool

    def __str__(self) -> str:
        name = {"score": "a score", "logits": "a sum of both as logits", "itm": "an itm"}[self.of]
        first, *others = self.thresholds.of_lengths
        line = f"a picture matches from {name} of {first.least:.2f}"
        if not self.is_chosen:
            return line
        line += f", chosen by validation with texts of {first.fewest:g} to {first.most:g} words"
        for least, fewest, most in others:
            line += f", or of {least:.2f}, with {fewest:g} to {most:g} words"
        return f"{line}; of shorter and longer ones nothing is told"


def judgement(
    loaded: Loaded, itm: Loaded | None = None, *, threshold: float | None = None, raw_sum: bool = False
) -> Judgement | None:
    """By a score that is given, by what the validation of the checkpoint chose, or where `itm`, another one, scores the
    pairs, by what its own chose for the matched logit; None where there is neither."""
    if threshold is not None:
        return Judgement("score", Thresholds.of(Threshold(threshold, 0, math.inf)), is_chosen=False)
    if itm is None:
        name: ScoreName = "logits" if raw_sum else "score"
        thresholds = loaded.ability(Embedding).search_thresholds
    else:
        name, thresholds = "itm", itm.ability(Matching).match_thresholds
    if not thresholds.of_lengths:
        return None
    return Judgement(name, thresholds, is_chosen=True)


def run_search(
    loaded: Loaded,
    folder: Path,
    query: str | Path,
    *,
    itm: Loaded | None = None,
    top_k: int,
    index: Path | None,
    shown: int,
    sheet: Path | None,
    as_json: bool,
    options: PredictOptions,
    placement: Placement = USUAL,
    raw_sum: bool = False,
    threshold: float | None = None,
    half: bool | None = None,
    outputs: Outputs | None = None,
) -> None:
    """Search `folder` for a query or for those of a file, and print the results: `shown` a query as a table, or all as
    a JSON list. What was left out goes to standard error. itm: the checkpoint that re-ranks, if another. sheet: also
    draw the `shown` best into this file. placement: of both models; the precision of `options` is settled by it.
    raw_sum: see `search`; half: see `build_index`; threshold: see `judgement`. outputs: of `outputs_of_search`, which
    is asked before the checkpoints are read; without them it is asked here. Of several ranks, which all call this, the
    first prints."""
    if outputs is None:
        outputs = outputs_of_search(folder, query, index, sheet)
    queries = _read_query(query)
    models = [loaded] if itm is None else [loaded, itm]
    if collectives.is_main():
        say_unseen(models, queries)
    in_place = placed(loaded, placement)
    loaded, options = in_place.loaded, dataclasses.replace(options, precision=in_place.precision)
    itm_options = options
    if itm is not None:
        itm_in_place = placed(itm, placement)
        itm, itm_options = itm_in_place.loaded, dataclasses.replace(options, precision=itm_in_place.precision)
    images, unreadable = build_index(
        loaded, folder, index, options=options, outputs=outputs, half=half, shows_progress=True
    )
    judged = judgement(loaded, itm, threshold=threshold, raw_sum=raw_sum)
    results, vanished, cuts = search(
        loaded,
        folder,
        images,
        queries,
        itm=itm,
        top_k=top_k,
        options=options,
        itm_options=itm_options,
        raw_sum=raw_sum,
        judged=judged,
    )
    if not collectives.is_main():
        return
    for cut in cuts:
        say(cut)
    for name, reason in [*unreadable, *vanished]:
        say(f"left out: {name}: {reason}")
    say(_score_in_words(loaded, raw_sum))
    if not results:
        raise UserError(f"{folder}: none of the pictures found can be read any more")
    if judged is not None:
        say(judged)
        _say_absent(results, judged, top_k=top_k if top_k < len(images.stamps) else None)
    if as_json:
        show_json(list(map(_described, results)))
    else:
        show(table(results, shown))
    if sheet is not None:
        draw_sheet(results, sheet, shown, max_pixels=options.max_pixels, outputs=outputs)


def outputs_of_search(
    folder: Path,
    query: str | Path,
    index: Path | None,
    sheet: Path | None,
    *,
    force: bool = False,
    inputs: Iterable[Path] = (),
) -> Outputs:
    """The outputs of a search, see `run_search`; inputs: what it reads beside pictures and queries. UserError where the
    folder is not there, or an output may not or cannot be written."""
    check_folder(folder)
    queries = [query] if isinstance(query, Path) else []
    outputs = Outputs(force=force, inputs=chain(inputs, queries, pictures_below(folder)))
    if index is not None or keeps_its_index(folder):
        check_index(index or folder / INDEX, outputs)
    if sheet is not None:
        check_sheet(sheet)
        outputs.reserve(sheet)
    return outputs


def _score_in_words(loaded: Loaded, raw_sum: bool) -> str:
    if raw_sum:
        return "score: itc + itm, the cosine as it is"
    temperature = 1 / loaded.ability(Embedding).logit_scale()
    return f"score: itc / {temperature:.4g} + itm, both as logits (the temperature is the dual encoder's)"


def _described(result: SearchResult) -> dict[str, Any]:
    """A result as JSON has it, `matches` where it is told."""
    described = result._asdict()
    if result.matches is None:
        del described["matches"]
    return described


def _say_absent(results: Sequence[SearchResult], judged: Judgement, *, top_k: int | None) -> None:
    """Which queries no picture is likely to show. top_k: how many were looked at, None for all."""
    absent: dict[str, float] = {}
    for query, of_query in groupby(results, key=attrgetter("query")):
        least = judged.thresholds.least(query)
        if least is not None and all(result.matches is False for result in of_query):
            absent[f'"{query}"'] = least
    pictures = "no picture of the folder" if top_k is None else f"none of the dual encoder's {top_k} best pictures"
    if len(absent) > _NAMED:
        reached = " or ".join(f"{least:.2f}" for least in sorted(set(absent.values())))
        named = ", ".join(list(absent)[:_NAMED])
        say(f"{len(absent)} queries, such as {named}: {pictures} reaches {reached}; {_ABSENT}")
    else:
        for query, least in absent.items():
            say(f"{query}: {pictures} reaches {least:.2f}; {_ABSENT}")


def _read_query(query: str | Path) -> list[str]:
    """The query itself, or those of its file; skipped lines are told."""
    if isinstance(query, Path):
        queries, skipped = read_queries(query)
        if skipped and collectives.is_main():
            say(f"{query}: {skipped} empty lines were skipped")
        return queries
    if says_nothing(query):
        raise UserError("--query is empty: say what to search for")
    check_encoded(query, "--query")
    return [query.strip()]


def search(
    loaded: Loaded,
    folder: Path,
    index: Index,
    queries: Sequence[str],
    *,
    itm: Loaded | None = None,
    top_k: int = 50,
    options: PredictOptions,
    itm_options: PredictOptions | None = None,
    raw_sum: bool = False,
    judged: Judgement | None = None,
    shows_progress: bool = True,
) -> SearchOutcome:
    """For each query the dual encoder's `top_k` pictures, best first by the sum of ITC and ITM score, both as logits;
    raw_sum: the cosine as it is. `itm` scores the pairs, where it is another checkpoint, as `itm_options` say: both
    compute in their own precision; the temperature stays that of the dual encoder. judged: how `matches` is told."""
    fusion = itm or loaded
    if not fusion.can(Matching):
        raise UserError(
            "fusion needs an ITM head (task.itm > 0), which this checkpoint lacks: name one with --itm-checkpoint"
        )
    itm_options = itm_options or options
    itc, cut = query_similarities(loaded, index, queries, options)
    candidates = best_columns(itc, top_k)
    paths = list(index.stamps)
    # Each candidate is read once, with all queries that it is a candidate of.
    chosen = np.unique(candidates)
    chosen_paths = []
    wanted = []
    for image in chosen:
        chosen_paths.append(paths[image])
        wanted.append(np.flatnonzero((candidates == image).any(axis=1)))
    images = image_set(fusion, folder, chosen_paths, itm_options.max_pixels)
    texts = TextSet(queries, fusion.context.tokenizer, fusion.context.text_length)
    pairs = score_pairs(fusion.ability(Matching), images, texts, wanted, itm_options, shows_progress=shows_progress)
    logit_scale = loaded.ability(Embedding).logit_scale()
    results: list[SearchResult] = []
    for number, query in enumerate(queries):
        images_of_query = candidates[number]
        files = [str(folder / paths[image]) for image in images_of_query]
        itc_scores = itc[number, images_of_query]
        itm_scores = pairs.scores[np.searchsorted(chosen, images_of_query), number]
        of_query = sums(itc_scores, itm_scores, logit_scale)
        total = of_query.raw if raw_sum else of_query.logits
        matches: list[bool | None] = [None] * len(files)
        least = None if judged is None else judged.thresholds.least(query)
        if judged is not None and least is not None:
            of_pairs = {"score": total, "logits": of_query.logits, "itm": itm_scores}[judged.of]
            matches = (of_pairs >= least).tolist()
        columns = (total.tolist(), itc_scores.tolist(), itm_scores.tolist(), matches)
        results.extend(_ranked(query, list(zip(files, *columns, strict=True))))
    cuts = []
    for model, count in ((loaded, cut), (fusion, pairs.truncated)):
        if count:
            cuts.append(_cut_in_words(count, model.context.text_length))
    return SearchOutcome(results, pairs.bad, list(dict.fromkeys(cuts)))


def _cut_in_words(count: int, length: int) -> str:
    queries = "1 query was" if count == 1 else f"{count} queries were"
    return f"{queries} cut at {length} tokens"


def _ranked(query: str, candidates: list[tuple[str, float, float, float, bool | None]]) -> Iterator[SearchResult]:
    """The candidates of a query, (file, sum, ITC, ITM, whether it matches), best first by the sum, but for those that
    have no ITM score: they could not be read."""
    scored = [candidate for candidate in candidates if not math.isnan(candidate[3])]
    # Of equal sums the dual encoder's better one stays first, as it is among the candidates.
    scored.sort(key=itemgetter(1), reverse=True)
    for rank, (file, score, itc, itm, matches) in enumerate(scored, start=1):
        yield SearchResult(query, rank, file, score, itc, itm, matches)


def query_similarities(
    loaded: Loaded, index: Index, queries: Sequence[str], options: PredictOptions
) -> tuple[np.ndarray, int]:
    """The dual encoder's cosines, float32 (queries, images), and how many queries had to be cut."""
    texts = TextSet(queries, loaded.context.tokenizer, loaded.context.text_length)
    predictions = predict_all(loaded.task, texts, options, what="queries")
    features = np.stack([predictions.rows[number] for number in range(len(queries))])
    return similarities(features, index), predictions.truncated


def similarities(features: np.ndarray, index: Index) -> np.ndarray:
    """Cosines float32 (n, images) of features float32 (n, D). UserError for an index of another width."""
    if index.features.shape[1] != features.shape[1]:
        raise UserError(f"{index.file}: its features are of another width than this checkpoint's; delete it")
    if index.features.dtype == features.dtype:
        cosines: np.ndarray = features @ np.asarray(index.features).T
        return cosines
    parts = [features @ block.astype(features.dtype).T for block in blocks(index.features)]
    return np.concatenate(parts, axis=1)


def table(results: Sequence[SearchResult], shown: int) -> str:
    """The best `shown` of each query for the screen, and whether they match, where that is told."""
    lines = []
    for result in results:
        heading = match = ""
        if result.matches is not None:
            answer = "yes" if result.matches else "no"
            heading, match = f" {'match':>5}", f" {answer:>5}"
        if result.rank == 1:
            lines += ["", cell(result.query), f"{'rank':>4} {'score':>9} {'itc':>7} {'itm':>9}{heading}  image"]
        if result.rank <= shown:
            numbers = f"{result.score:9.4f} {result.itc:7.4f} {result.itm:9.4f}"
            lines.append(f"{result.rank:4} {numbers}{match}  {cell(result.path)}")
    return "\n".join(lines[1:])
