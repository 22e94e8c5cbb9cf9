"""Searching drawn scenes with what people type: average precision of short queries.

    python -m benchmarks.scene_queries CHECKPOINT [--count 200] [--json FILE]

Of unseen scenes, all of which are ranked for every query, and those count as right that show what it asks for. Printed
is the mean over queries of the average precision, beside that of a random order: for "a red star" of every colour with
shape, the same without an article, every name of a shape, and queries as `data.scenes.queries` makes them, by the dual
encoder alone and with fusion over its best.

Beside it, of folders of 20 scenes of the split "test": of the coloured shapes and captions that some picture shows, how
many are said to be there, and of those that none shows, how many are said to be absent, by the threshold that the
checkpoint's validation chose, or where it has none by one that is chosen here as validation does, on scenes of "val".
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from benchmarks.common import write
from fiber_cli import Fiber
from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import Scene, scene
from fiber_cli.data.scenes.naming import names_of_level
from fiber_cli.data.scenes.queries import SceneQuery, Wanted, coloured_shape_queries, fits, queries
from fiber_cli.data.scenes.vocabulary import SYNONYMS
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.tasks.abilities import Embedding, Threshold
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval.pairs import sums
from fiber_cli.tasks.retrieval.presence import presence_metrics, presence_sets

#: How many of the dual encoder's best are scored by fusion.
RERANKED = 20
MADE_QUERIES = 200
#: Folders that are asked whether they show something, and the scenes of each.
FOLDERS, FOLDER = 10, 20
#: Scenes that a threshold is chosen on.
CALIBRATING = 200
ARTICLES = {"coloured shapes with an article": "a", "coloured shapes": ""}


def average_precision(scores: np.ndarray, is_right: np.ndarray) -> float:
    """Of one query, percent; scores and is_right: (images,)."""
    right_in_order = is_right[np.argsort(-scores, kind="stable")]
    ranks = np.flatnonzero(right_in_order) + 1
    return 100 * float((np.arange(1, len(ranks) + 1) / ranks).mean())


def with_best_first(itc: np.ndarray, best: np.ndarray, scores_of_best: np.ndarray) -> np.ndarray:
    """Scores (images,) that order `best` by their own scores, and behind them the others as `itc` (images,) does."""
    scores = itc.astype(np.float64)
    scores += scores_of_best.min() - 1 - scores.max()
    scores[best] = scores_of_best
    return scores


def shape_queries() -> list[SceneQuery]:
    """Every name of a shape alone."""
    meaning = {synonym: value for value, synonym in SYNONYMS.items()}
    return [SceneQuery(name, (Wanted({"shape": meaning.get(name, name)}),)) for name in names_of_level("shape")]


def kinds(scenes: Sequence[Scene]) -> dict[str, list[SceneQuery]]:
    """The queries by kind."""
    of_kinds = {}
    for kind, article in ARTICLES.items():
        by_text = {query.text: query for one in scenes for query in coloured_shape_queries(one, article)}
        of_kinds[kind] = list(by_text.values())
    made = {query.text: query for one in scenes for query in queries(one)}
    chosen = random.Random(0).sample(list(made.values()), min(MADE_QUERIES, len(made)))
    return of_kinds | {"shapes": shape_queries(), "of all kinds": chosen}


def measured(asked: Sequence[SceneQuery], scenes: Sequence[Scene], score: Callable[[str], np.ndarray]) -> float:
    """The mean average precision of the queries that some scene fits."""
    precisions = []
    for query in asked:
        is_right = np.array([fits(query, one) for one in scenes])
        if is_right.any():
            precisions.append(average_precision(score(query.text), is_right))
    return float(np.mean(precisions))


def search_threshold(model: Fiber) -> Threshold | None:
    """The checkpoint's, or one that is chosen here; None where it tells nothing apart."""
    of_checkpoint = model.loaded.ability(Embedding).search_threshold
    if of_checkpoint is not None:
        return of_checkpoint
    sets = presence_sets([ScenesSource("val", CALIBRATING)], model.context)
    metrics = presence_metrics(model.task, sets, PredictOptions(model.batch_size, 0, model.precision))
    print("chosen on scenes of val", {name: round(value, 2) for name, value in metrics.items()}, flush=True)
    lengths = metrics.get("search/fewest_words"), metrics.get("search/most_words")
    return Threshold.of(metrics.get("search/threshold"), *lengths)


def asked_of_folders() -> Iterator[tuple[str, list[Scene], str, bool]]:
    """Kind of text, the scenes of a folder, the text, and whether one of them shows what it says."""
    folders = []
    for first in range(0, (FOLDERS + 1) * FOLDER, FOLDER):
        folders.append([scene(0, "test", first + number) for number in range(FOLDER)])
    for scenes, others in pairwise(folders):
        asked = {query.text: query for one in scenes for query in coloured_shape_queries(one)}
        for text, query in asked.items():
            yield "coloured shapes", scenes, text, any(fits(query, one) for one in scenes)
        for own, other in zip(scenes, others, strict=True):
            yield "captions", scenes, captions(own)[0].text, True
            yield "captions", scenes, captions(other)[0].text, False


def presence_in_folders(model: Fiber, threshold: Threshold | None) -> dict[str, dict[str, float]]:
    """Kind of text → the percentages of what is there that is said to be so, of what is absent that is said to be
    absent, and of texts of which nothing is said."""
    answers: dict[str, list[tuple[bool, bool | None]]] = {}
    pictures_of: dict[str, list[Image.Image]] = {}
    scale = model.loaded.ability(Embedding).logit_scale()
    for kind, scenes, text, is_there in asked_of_folders():
        said = None
        if threshold is not None and threshold.is_for(text):
            pictures = pictures_of.setdefault(scenes[0].key, list(map(draw, scenes)))
            cosines = model.embed_images(pictures) @ model.embed_texts(text)
            total = sums(cosines, np.array(model.match(pictures, text)), scale).logits
            said = bool((total >= threshold.least).any())
        answers.setdefault(kind, []).append((is_there, said))
    figures = {}
    for kind, of_kind in answers.items():
        present = [said for is_there, said in of_kind if is_there]
        absent = [said for is_there, said in of_kind if not is_there]
        figures[kind] = {
            "texts": len(of_kind),
            "present, said to be there": 100 * present.count(True) / len(present),
            "absent, said to be absent": 100 * absent.count(False) / len(absent),
            "nothing said": 100 * (present + absent).count(None) / len(of_kind),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="trained for ITC and ITM")
    parser.add_argument("--count", type=int, default=200, help="how many scenes")
    parser.add_argument("--split", default="val")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    model = Fiber.from_pretrained(arguments.checkpoint)
    scenes = [scene(0, arguments.split, number) for number in range(arguments.count)]
    pictures = [draw(one) for one in scenes]
    features = model.embed_images(pictures)
    scale = model.loaded.ability(Embedding).logit_scale()
    chance = np.random.default_rng(0)

    def by_itc(text: str) -> np.ndarray:
        return features @ model.embed_texts(text)

    def reranked(text: str) -> np.ndarray:
        itc = by_itc(text)
        best = np.argsort(-itc, kind="stable")[:RERANKED]
        itm = np.array(model.match([pictures[number] for number in best], text))
        return with_best_first(itc, best, sums(itc[best], itm, scale).logits)

    figures: dict[str, dict[str, float]] = {}
    for kind, asked in kinds(scenes).items():
        figures[kind] = {
            "queries": len(asked),
            "itc": measured(asked, scenes, by_itc),
            f"rerank-{RERANKED}": measured(asked, scenes, reranked),
            "chance": measured(asked, scenes, lambda text: chance.random(len(scenes))),
        }
        print(kind, {name: round(value, 1) for name, value in figures[kind].items()}, flush=True)
    command = f"python -m benchmarks.scene_queries CHECKPOINT --count {arguments.count} --split {arguments.split}"
    in_folders = presence_in_folders(model, search_threshold(model))
    for kind, of_kind in in_folders.items():
        print(f"folders of {FOLDER} scenes, {kind}", {name: round(value, 1) for name, value in of_kind.items()})
    result = {"command": command, "mean average precision": figures, f"folders of {FOLDER} scenes": in_folders}
    write(result, arguments.json)


if __name__ == "__main__":
    main()
