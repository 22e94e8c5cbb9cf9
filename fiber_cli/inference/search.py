"""Search in a folder of pictures: the dual encoder over all of them, fusion over its best (paper section 4.2).

The index is one safetensors file: `features` float32 (images, D), and in its header, as JSON under "fiber", the
checkpoint's fingerprint and each image's path below the folder, size in bytes and time of change in ns.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fiber_cli.distributed import collectives as dist
from fiber_cli.checkpoints.directory import replace
from fiber_cli.tasks.evalset import ImageSet, TextSet
from fiber_cli.data.images import FolderSource
from fiber_cli.errors import UserError
from fiber_cli.inference.fiber import find_images
from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.tasks.retrieval.pairs import score_pairs
from fiber_cli.tasks.prediction import predict_all
from fiber_cli.tasks.retrieval.evaluation import best
from fiber_cli.inference.sheet import draw_sheet

INDEX = ".fiber-index.safetensors"


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
    **options: Any,
) -> None:
    """Search `folder` for a query or for those of a file, and print the results: `shown` a query as a table, or all as
    a JSON list. What was left out goes to standard error. itm: the checkpoint that re-ranks, if another. sheet: also
    draw the best into this file. options: batch_size, workers and precision, see `predict_all`."""
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    queries, skipped = read_queries(query) if isinstance(query, Path) else ([query.strip()], 0)
    if not queries[0]:
        raise UserError("--query is empty: say what to search for")
    if skipped:
        print(f"{query}: {skipped} empty lines were skipped", file=sys.stderr)
    for model in (loaded, itm or loaded):
        model.task.to(dist.device())
    built, bad = build_index(loaded, folder, index, **options)
    results, more = search(loaded, folder, built, queries, itm=itm, top_k=top_k, **options)
    for name, reason in [*bad, *more]:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if not results:
        raise UserError(f"{folder}: none of the pictures found can be read any more")
    print(json.dumps(results, indent=2, ensure_ascii=False) if as_json else table(results, shown))
    if sheet is not None:
        try:
            draw_sheet(results, sheet)
        except (OSError, ValueError) as error:
            raise UserError(f"--sheet {sheet}: cannot be written ({error}); name a .png or .jpg file") from None


class Index(NamedTuple):
    """`features`: float32 (images, D), L2 norm 1; `stamps`: by path below the folder, in the same order, bytes and time
    of change (ns): another stamp means another picture."""

    features: np.ndarray
    stamps: dict[str, tuple[int, int]]


def build_index(
    loaded: Loaded, folder: Path, index: Path | None = None, **options: Any
) -> tuple[Index, list[tuple[str, str]]]:
    """Dual-encoder features of all pictures below `folder`, and (path, reason) of those that cannot be read.

    They are kept in the file `index` (default: INDEX in the folder); only new and changed pictures are computed, and
    what has vanished is dropped. options: batch_size, workers and precision, see `predict_all`. UserError for an index
    of another checkpoint and where nothing can be read.
    """
    if getattr(loaded.task, "temperature", None) is None:
        raise UserError(f"{loaded.path} was not trained with ITC (task.itc > 0), which searching needs")
    file = index or folder / INDEX
    found = {str(path.relative_to(folder)): path.stat() for path in find_images([folder])}
    stamps = {path: (status.st_size, status.st_mtime_ns) for path, status in found.items()}
    old = read_index(file, loaded.fingerprint) if file.is_file() else Index(np.zeros((0, 0), np.float32), {})
    rows = {path: row for row, (path, stamp) in zip(old.features, old.stamps.items()) if stamps.get(path) == stamp}
    fresh = [path for path in stamps if path not in rows]
    new = predict_all(loaded.task, _image_set(loaded, folder, fresh), **options, what="new images")
    rows |= {fresh[n]: row for n, row in new.rows.items()}
    if not rows:
        raise UserError(f"{folder}: none of {len(stamps)} images could be read, such as {': '.join(new.bad[0])}")
    kept = {path: stamp for path, stamp in stamps.items() if path in rows}
    built = Index(np.stack([rows[path] for path in kept]), kept)
    if kept != old.stamps and dist.is_main():
        header = json.dumps({"fingerprint": loaded.fingerprint, "images": [[path, *kept[path]] for path in kept]})
        try:
            replace(file, save({"features": built.features}, {"fiber": header}))
        except OSError as error:
            raise UserError(
                f"{file}: cannot write the index ({error.strerror}); name another place with --index"
            ) from None
    return built, new.bad


def read_index(file: Path, fingerprint: str) -> Index:
    """An index of the checkpoint with that fingerprint. UserError for any other file."""
    try:
        with safe_open(file, "np") as stored:
            header = json.loads((stored.metadata() or {})["fiber"])
            stamps = {path: (size, changed) for path, size, changed in header["images"]}
            index = Index(stored.get_tensor("features"), stamps)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{file}: not an index of `fiber rerank` ({error}); delete it or give another --index"
        ) from None
    if header["fingerprint"] != fingerprint:
        raise UserError(
            f"{file} was made by another checkpoint; delete it to have it made anew, or give another --index"
        )
    return index


def search(
    loaded: Loaded,
    folder: Path,
    index: Index,
    queries: Sequence[str],
    *,
    itm: Loaded | None = None,
    top_k: int = 50,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """For each query the dual encoder's `top_k` pictures, best first by the sum of ITC and ITM score: dicts of query,
    rank (from 1), path, score, itc, itm. `itm` scores the pairs, where it is another checkpoint. Also (path, reason) of
    pictures that can no longer be read. options: as of `build_index`."""
    texts = TextSet(queries, loaded.tokenizer, loaded.text_length)
    features = predict_all(loaded.task, texts, **options, what="queries")
    if features.truncated:
        print(f"{features.truncated} queries were cut at {loaded.text_length} tokens", file=sys.stderr)
    itc = np.stack([features.rows[n] for n in range(len(queries))]) @ index.features.T
    candidates = best(itc, top_k)
    chosen = np.unique(candidates)
    paths = list(index.stamps)
    fusion = itm or loaded
    images = _image_set(fusion, folder, [paths[n] for n in chosen])
    wanted = [np.flatnonzero((candidates == n).any(1)) for n in chosen]
    texts = TextSet(queries, fusion.tokenizer, fusion.text_length)
    matched, bad, _ = score_pairs(fusion.task, images, texts, wanted, **options)
    results = []
    for q, query in enumerate(queries):
        scores = {n: (float(itc[q, n]), float(matched[np.searchsorted(chosen, n), q])) for n in candidates[q]}
        ordered = sorted((n for n in scores if not np.isnan(scores[n][1])), key=lambda n: -sum(scores[n]))
        for rank, n in enumerate(ordered, start=1):
            found = {"query": query, "rank": rank, "path": str(folder / paths[n]), "score": sum(scores[n])}
            results.append(found | dict(zip(("itc", "itm"), scores[n])))
    return results, bad


def read_queries(file: Path, what: str = "query") -> tuple[list[str], int]:
    """One query a line, and how many empty lines were skipped. UserError where there is none."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as UTF-8 text: {error}") from None
    queries = [line for line in lines if line]
    if not queries:
        raise UserError(f"{file} has no {what}: write one a line")
    return queries, len(lines) - len(queries)


def table(results: Sequence[dict[str, Any]], shown: int) -> str:
    """The best `shown` of each query for the screen."""
    lines = []
    for found in results:
        if found["rank"] == 1:
            lines += ["", found["query"], f"{'rank':>4} {'score':>9} {'itc':>7} {'itm':>9}  image"]
        if found["rank"] <= shown:
            numbers = f"{found['score']:9.4f} {found['itc']:7.4f} {found['itm']:9.4f}"
            lines.append(f"{found['rank']:4} {numbers}  {found['path']}")
    return "\n".join(lines[1:])


def _image_set(loaded: Loaded, folder: Path, paths: list[str]) -> ImageSet:
    source = FolderSource(str(folder), folder, paths) if paths else None
    return ImageSet([(source, n) for n in range(len(paths))], loaded.image_size)
