"""Image-text retrieval by the dual encoder, by fusion, by their sum, and by fusion over the dual encoder's best (paper
Tables 3 and 4), in one process or many."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.evalset import RetrievalSet
from fiber_cli.errors import UserError
from fiber_cli.tasks.retrieval.metrics import recalls
from fiber_cli.tasks.retrieval.pairs import score_pairs
from fiber_cli.tasks.prediction import predict_all

#: How many of the best candidates of a query are listed in rankings.json.
LISTED = 10


class Result(NamedTuple):
    """What an evaluation found. `counts`: how many items (`samples`), which were left out (`bad`), how many texts were
    cut; the rest as in `Score`."""

    metrics: dict[str, float]
    counts: dict[str, Any]
    files: dict[str, Any]
    notes: list[str]


def retrieval_mode(task: nn.Module) -> str:
    """ITC where the task has it, else ITM over all pairs."""
    return "itm" if getattr(task, "temperature", None) is None else "itc"


def retrieve(
    mode: str,
    task_itc: nn.Module | None,
    set_itc: RetrievalSet | None,
    task_itm: nn.Module | None,
    set_itm: RetrievalSet | None,
    *,
    rerank: Sequence[int] = (),
    scoring: Mapping[str, Any] = {},
    **options: Any,
) -> Result:
    """Retrieval both ways, the same on all ranks: metrics "itc/ir@1" …, in percent; as counts also the images and the
    texts they are from; as file rankings.json, the best candidates of every query.

    mode: "itc" (dual encoder), "itm" (fusion over all pairs), "itc+itm" (their sum; gives all three) or "rerank": for
    each k of `rerank`, the sum over a query's k best by the dual encoder, all others counting as not retrieved. All k
    come from one pass, in which a pair that both directions want is scored once. "itc" and "itm" read their own task
    and set alone; the two sets hold the same images and texts in the same order, maybe at other sizes. Images that
    cannot be read are left out with their texts. options: batch_size, workers and precision, see `predict_all`;
    scoring: folder, fingerprint (of `task_itm`) and memory, see `score_pairs`.
    """
    evalset = set_itm if mode == "itm" else set_itc
    bad, truncated = [*evalset.left_out], 0
    # By the name of the metric, the scores by which a text ranks images and an image ranks texts, both (images, texts).
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if mode != "itm":
        if getattr(task_itc, "temperature", None) is None:
            raise UserError(f"mode {mode} needs a checkpoint trained with ITC (task.itc > 0), which this one is not")
        images = predict_all(task_itc, set_itc.images, **options, what="images")
        texts = predict_all(task_itc, set_itc.texts, **options, what="texts")
        itc = _similarities(images.rows, texts.rows, set_itc)
        found["itc"] = itc, itc
        bad, truncated = bad + images.bad, texts.truncated
    if mode != "itc":
        wanted = [np.arange(len(set_itm.texts))] * len(set_itm.images)
        if mode == "rerank":
            # Of the first rank, so that all agree on ties.
            k = max(rerank)
            candidates = dist.gather_objects((best(itc, k), best(itc.T, k)) if dist.is_main() else None)[0]
            wanted = _wanted(*candidates, itc)
        itm, more, truncated = score_pairs(task_itm, set_itm.images, set_itm.texts, wanted, **options, **scoring)
        bad = list(dict.fromkeys(bad + more))
        if mode != "rerank":
            found["itm"] = itm, itm
        if mode != "itm" and dist.is_main():
            total = itc + itm
            if mode == "rerank":
                found |= {f"rerank-{k}": _reranked(total, *candidates, k) for k in rerank}
            else:
                found[mode] = total, total
    return dist.gather_objects(_result(evalset, found, bad, truncated) if dist.is_main() else None)[0]


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


def _wanted(texts: np.ndarray, images: np.ndarray, itc: np.ndarray) -> list[np.ndarray]:
    """The texts that each image is scored with: its own candidates and those that it is a candidate of."""
    chosen = np.zeros(itc.shape, dtype=bool)
    np.put_along_axis(chosen, texts, True, 1)
    np.put_along_axis(chosen, images.T, True, 0)
    return [np.flatnonzero(row) for row in chosen & (itc > -np.inf)]


def _reranked(total: np.ndarray, texts: np.ndarray, images: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The scores of each text's k best of its candidate `images` and of each image's of its `texts`, all others -inf."""
    by_text, by_image = np.full((2, *total.shape), -np.inf, dtype=np.float32)
    for scores, chosen, axis in ((by_text, images[:, :k].T, 0), (by_image, texts[:, :k], 1)):
        np.put_along_axis(scores, chosen, np.take_along_axis(total, chosen, axis), axis)
    return by_text, by_image


def _result(evalset: RetrievalSet, found: dict[str, tuple], bad: list[tuple[str, str]], truncated: int) -> Result:
    """Metrics of all that was found, and the best candidates by the last."""
    unreadable = {name for name, _ in bad}
    images = np.array([n for n, name in enumerate(evalset.images.ids) if name not in unreadable], dtype=np.int64)
    texts = np.flatnonzero(np.isin(evalset.text_image, images))
    if not len(texts):
        raise UserError("retrieval: no image with a text could be read; check the data set's paths")
    owner = np.searchsorted(images, evalset.text_image[texts])
    metrics = {}
    for name, scores in found.items():
        by_text, by_image = (each[np.ix_(images, texts)] for each in scores)
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
    counts = {"samples": len(images), "images": len(images), "texts": len(texts), "bad": bad, "truncated": truncated}
    return Result(metrics, counts, {"rankings.json": listed}, [])


def _listed(scores: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    chosen = best(scores[None], LISTED)[0]
    return [(names[n], round(float(scores[n]), 5)) for n in chosen if scores[n] > -np.inf]
