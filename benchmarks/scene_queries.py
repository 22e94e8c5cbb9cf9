"""Searching drawn scenes with what people type: average precision of short queries.

    python -m benchmarks.scene_queries CHECKPOINT [--count 200] [--json FILE]

Of unseen scenes, all of which are ranked for every query, and those count as right that show what it asks for. Printed
is the mean over queries of the average precision, beside that of a random order: for "a red star" of every colour with
shape, the same without an article, every name of a shape, and queries as `data.scenes.queries` makes them, by the dual
encoder alone and with fusion over its best.
"""

import argparse
import random
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.common import write
from fiber_cli import Fiber
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import Scene, scene
from fiber_cli.data.scenes.naming import names_of_level
from fiber_cli.data.scenes.queries import SceneQuery, Wanted, coloured_shape_queries, fits, queries
from fiber_cli.data.scenes.vocabulary import SYNONYMS
from fiber_cli.tasks.abilities import Embedding
from fiber_cli.tasks.retrieval.pairs import sums

#: How many of the dual encoder's best are scored by fusion.
RERANKED = 20
MADE_QUERIES = 200
ARTICLES = {"coloured shapes with an article": "a", "coloured shapes": ""}


def average_precision(scores: np.ndarray, is_right: np.ndarray) -> float:
    """Of one query, percent; scores and is_right: (images,)."""
    right_in_order = is_right[np.argsort(-scores, kind="stable")]
    ranks = np.flatnonzero(right_in_order) + 1
    return 100 * float((np.arange(1, len(ranks) + 1) / ranks).mean())


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
        scores = itc - 1e6  # behind all that were scored by fusion
        scores[best] = sums(itc[best], itm, scale).logits
        return scores

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
    write({"command": command, "mean average precision": figures}, arguments.json)


if __name__ == "__main__":
    main()
