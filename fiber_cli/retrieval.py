"""Image-text retrieval by the dual encoder, by fusion, by their sum, and by fusion over the dual encoder's best (paper
Tables 3 and 4), in one process or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from fiber_cli import dist
from fiber_cli.data.evalset import RetrievalSet
from fiber_cli.errors import UserError
from fiber_cli.metrics.retrieval import recalls
from fiber_cli.pairs import MEMORY, score_pairs
from fiber_cli.predict import predict_all

#: How many of the best candidates of a query are listed in rankings.json.
LISTED = 10


class Retrieved(NamedTuple):
    """`metrics`: "itc/ir@1" …, in percent. `counts`: how many images and texts they are from, the images left out
    (`bad`), how many texts were cut. `files`: rankings.json, the best candidates of every query."""

    metrics: dict[str, float]
    counts: dict[str, Any]
    files: dict[str, Any]


def retrieval(
    task: nn.Module, evalset: RetrievalSet, *, batch_size: int, workers: int, precision: str = "fp32"
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and counts (see `Retrieved`) by ITC where the task has it, else by ITM over all pairs."""
    mode = "itc" if getattr(task, "temperature", None) is not None else "itm"
    options = {"batch_size": batch_size, "workers": workers, "precision": precision}
    return retrieve(mode, task, evalset, task, evalset, **options)[:2]


def retrieve(
    mode: str,
    task_itc: nn.Module | None,
    set_itc: RetrievalSet | None,
    task_itm: nn.Module | None,
    set_itm: RetrievalSet | None,
    *,
    batch_size: int,
    workers: int,
    precision: str = "fp32",
    rerank: Sequence[int] = (),
    folder: Path | None = None,
    fingerprint: str = "",
    memory: int = MEMORY,
) -> Retrieved:
    """Retrieval both ways, the same on all ranks.

    mode: "itc" (dual encoder), "itm" (fusion over all pairs), "itc+itm" (their sum; gives all three) or "rerank": for
    each k of `rerank`, the sum over a query's k best by the dual encoder, all others counting as not retrieved. All k
    come from one pass, in which a pair that both directions want is scored once. "itc" and "itm" read their own task
    and set alone; the two sets hold the same images and texts in the same order, maybe at other sizes. Images that
    cannot be read are left out with their texts. folder, fingerprint (of `task_itm`), memory: see
    `score_pairs`.
    """
    evalset = set_itm if mode == "itm" else set_itc
    options = {"batch_size": batch_size, "workers": workers, "precision": precision}
    bad, truncated, itc, itm, candidates = [*evalset.left_out], 0, None, None, None
    if mode != "itm":
        if getattr(task_itc, "temperature", None) is None:
            raise UserError(f"mode {mode} needs a checkpoint trained with ITC (task.itc > 0), which this one is not")
        images = predict_all(task_itc, set_itc.images, **options, what="images")
        texts = predict_all(task_itc, set_itc.texts, **options, what="texts")
        itc = _similarities(images.rows, texts.rows, set_itc)
        bad, truncated = bad + images.bad, texts.truncated
    if mode != "itc":
        if getattr(task_itm, "itm", None) is None:
            raise UserError(
                f"mode {mode} needs a checkpoint trained with ITM (task.itm > 0), which this one is not: "
                "name one with --itm-checkpoint"
            )
        wanted = [np.arange(len(set_itm.texts))] * len(set_itm.images)
        if mode == "rerank":
            # Of the first rank, so that all agree on ties.
            candidates = dist.gather_objects(_candidates(itc, max(rerank)) if dist.is_main() else None)[0]
            wanted = _wanted(*candidates, itc)
        itm, more, truncated = score_pairs(
            *(task_itm, set_itm.images, set_itm.texts, wanted),
            **options,
            folder=folder,
            fingerprint=fingerprint,
            memory=memory,
        )
        bad = list(dict.fromkeys(bad + more))
    result = _result(evalset, itc, itm, candidates, rerank, bad, truncated) if dist.is_main() else None
    return dist.gather_objects(result)[0]


def _similarities(images: dict[int, np.ndarray], texts: dict[int, np.ndarray], evalset: RetrievalSet) -> np.ndarray:
    """Cosines (images, texts); -inf where the image, or the text's own image, cannot be read."""
    scores = np.full((len(evalset.images), len(evalset.texts)), -np.inf, dtype=np.float32)
    columns = np.flatnonzero(np.isin(evalset.text_image, list(images)))
    rows = sorted(images)
    if rows:
        scores[np.ix_(rows, columns)] = np.stack([images[n] for n in rows]) @ np.stack([texts[n] for n in columns]).T
    return scores


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k best of each row, int64 (rows, min(k, columns)), best first, earlier columns first among
    equals."""
    found = [np.argsort(-row, kind="stable")[:k] for row in scores]
    return np.stack(found) if found else np.zeros((0, min(k, scores.shape[1])), dtype=np.int64)


def _candidates(itc: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best texts of each image and the k best images of each text."""
    return best(itc, k), best(itc.T, k)


def _wanted(texts: np.ndarray, images: np.ndarray, itc: np.ndarray) -> list[np.ndarray]:
    """The texts that each image is scored with: its own candidates and those that it is a candidate of."""
    askers: list[list[int]] = [[] for _ in texts]
    for text, row in enumerate(images):
        for image in row:
            askers[image].append(text)
    both = [np.union1d(own, np.array(others, dtype=np.int64)) for own, others in zip(texts, askers)]
    return [row[itc[image, row] > -np.inf] for image, row in enumerate(both)]


def _result(
    evalset: RetrievalSet,
    itc: np.ndarray | None,
    itm: np.ndarray | None,
    candidates: tuple[np.ndarray, np.ndarray] | None,
    ks: Sequence[int],
    bad: list[tuple[str, str]],
    truncated: int,
) -> Retrieved:
    unreadable = {name for name, _ in bad}
    images = np.array([n for n, name in enumerate(evalset.images.ids) if name not in unreadable], dtype=np.int64)
    texts = np.flatnonzero(np.isin(evalset.text_image, images))
    if not len(texts):
        raise UserError("retrieval: no image with a text could be read; check the data set's paths")
    owner = np.searchsorted(images, evalset.text_image[texts])

    def rows(image_scores: np.ndarray, text_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return image_scores[np.ix_(images, texts)], text_scores[np.ix_(images, texts)]

    # Each with the scores by which a text ranks images and an image ranks texts, both (images, texts).
    found = {}
    if itc is not None:
        found["itc"] = rows(itc, itc)
    if itm is not None and candidates is None:
        found["itm"] = rows(itm, itm)
        if itc is not None:
            found["itc+itm"] = rows(itc + itm, itc + itm)
    for k in ks if candidates else ():
        by_image, by_text = np.full((2, *itc.shape), -np.inf, dtype=np.float32)
        of_image, of_text = (chosen[:, :k] for chosen in candidates)
        total = itc + itm
        np.put_along_axis(by_image, of_image, np.take_along_axis(total, of_image, 1), 1)
        np.put_along_axis(by_text, of_text.T, np.take_along_axis(total, of_text.T, 0), 0)
        found[f"rerank-{k}"] = rows(by_text, by_image)
    metrics = {}
    for name, (by_text, by_image) in found.items():
        one, other = recalls(by_text, owner), recalls(by_image, owner)
        metrics |= {f"{name}/{key}": (one if key.startswith("ir") else other)[key] for key in one}
    image_ids = [evalset.images.ids[n] for n in images]
    captions = [evalset.texts.texts[n] for n in texts]
    listed = {
        "scores": name,
        "image_retrieval": [
            {"text": text, "image": image_ids[owner[n]], "best": _listed(by_text[:, n], image_ids)}
            for n, text in enumerate(captions)
        ],
        "text_retrieval": [
            {"image": image, "best": _listed(by_image[n], captions)} for n, image in enumerate(image_ids)
        ],
    }
    counts = {"images": len(images), "texts": len(texts), "bad": bad, "truncated": truncated}
    return Retrieved(metrics, counts, {"rankings.json": listed})


def _listed(scores: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    chosen = best(scores[None], LISTED)[0]
    return [(names[n], round(float(scores[n]), 5)) for n in chosen if scores[n] > -np.inf]
