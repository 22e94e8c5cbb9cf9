"""A folder of pictures that a program searches again and again, as `fiber rerank --images` does once."""

# Overloads overlap in `str`, which is one query here although it is a sequence of strings.
# mypy: disable-error-code="overload-overlap"

import warnings
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import overload

import numpy as np

from fiber_cli.characters import says_nothing
from fiber_cli.checkpoints.loading import Loaded
from fiber_cli.errors import UserError
from fiber_cli.inference.arguments import Count, Flag, Score, Texts, checked
from fiber_cli.inference.in_use import InUse
from fiber_cli.inference.index import build_index
from fiber_cli.inference.pictures import texts_of
from fiber_cli.inference.search import SearchResult, judgement, search
from fiber_cli.tasks.abilities import Matching
from fiber_cli.tasks.prediction import PredictOptions


class FolderSearch:
    """The pictures below a folder, by a dual encoder's features of all of them and fusion of the best.

    Made by `Fiber.with_index`. paths: of the pictures, below the folder. left_out: (path, reason) of those that cannot
    be read. half: whether the features are float16. Threads can share an object; `refresh` is one call that changes it.
    """

    def __init__(
        self,
        model: InUse,
        folder: Path,
        index: Path | None,
        fusion: InUse | None,
        max_pixels: int,
        workers: int,
        *,
        half: bool | None = None,
    ):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        self.folder = folder
        self._models = [model] if fusion is None else [model, fusion]
        self._index_file, self._half = index, half
        self._loaded: Loaded = model.loaded
        self._fusion = None if fusion is None else fusion.loaded
        (self._fusion or self._loaded).ability(Matching)
        self._options = PredictOptions(model.batch_size, 0, model.precision, max_pixels)
        scorer = fusion or model
        self._itm_options = PredictOptions(scorer.batch_size, 0, scorer.precision, max_pixels)
        self._indexing = PredictOptions(model.batch_size, workers, model.precision, max_pixels)
        self.refresh()

    def refresh(self) -> None:
        """Take in new and changed pictures, and forget those that are gone."""
        self._index, self.left_out = build_index(
            self._loaded, self.folder, self._index_file, options=self._indexing, half=self._half
        )
        self.half = self._index.features.dtype == np.float16
        self._half = self.half  # it stays so, and was said
        self.paths = list(self._index.stamps)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def search(
        self, queries: str, k: int = 10, *, candidates: int = 50, raw_sum: bool = False, threshold: float | None = None
    ) -> list[SearchResult]: ...
    @overload
    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        candidates: int = 50,
        raw_sum: bool = False,
        threshold: float | None = None,
    ) -> list[list[SearchResult]]: ...
    @checked
    def search(
        self,
        queries: Texts,
        k: Count = 10,
        *,
        candidates: Count = 50,
        raw_sum: Flag = False,
        threshold: Score | None = None,
    ) -> list[SearchResult] | list[list[SearchResult]]:
        """The `k` best pictures for each query: of the dual encoder's `candidates` best, or k if that is more, by the
        sum of both scores as logits; raw_sum: the cosine as it is. threshold: least score of a match, by default what
        validation has chosen. A picture that can no longer be read is left out, and a query that is longer than the
        model's text is cut, each with a warning. UserError for an empty query."""
        texts, single = texts_of(queries)
        for text in texts:
            if says_nothing(text):
                raise UserError("a query is empty: say what to search for")
        distinct = list(dict.fromkeys(texts))
        for model in self._models:
            model.warn_of_unseen(distinct)
        judged = judgement(self._loaded, self._fusion, threshold=threshold, raw_sum=raw_sum)
        results, vanished, cuts = search(
            self._loaded,
            self.folder,
            self._index,
            distinct,
            itm=self._fusion,
            top_k=max(k, candidates),
            options=self._options,
            itm_options=self._itm_options,
            raw_sum=raw_sum,
            judged=judged,
            shows_progress=False,
        )
        for name, reason in vanished:
            warnings.warn(f"{name} is left out: {reason}", stacklevel=3)
        for cut in cuts:
            warnings.warn(cut, stacklevel=3)
        best = {}
        for query, of_query in groupby(results, key=attrgetter("query")):
            best[query] = list(of_query)[:k]
        of_each = [best.get(text, []) for text in texts]
        return of_each[0] if single else of_each
