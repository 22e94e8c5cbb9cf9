"""Searching drawn scenes with what people type: average precision of short queries.

    python -m benchmarks.scene_queries CHECKPOINT [--count 200] [--json FILE]

Of unseen scenes, all of which are ranked for every query, and those count as right that show what it asks for. Printed
is the mean over queries of the average precision, beside that of a random order: for "a red star" of every colour with
shape, the same without an article, every name of a shape, and queries as `data.scenes.queries` makes them, by the dual
encoder alone and with fusion over its best.

Beside it, of folders of 20 and of 50 scenes of the split "test", each searched as `fiber rerank --images` does: of
texts that are true of some picture the share that some picture is said to match, and of texts that are true of none the
share that no picture is said to match, by the thresholds that the checkpoint's validation chose. Asked are all coloured
shapes with an article and without, and queries and captions of the folder's scenes and of others.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.common import write
from fiber_cli import Fiber
from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import Scene, scene
from fiber_cli.data.scenes.naming import names_of_level
from fiber_cli.data.scenes.queries import SceneQuery, Wanted, coloured_shape_queries, fits, queries
from fiber_cli.data.scenes.vocabulary import SYNONYMS
from fiber_cli.inference.search import SearchResult
from fiber_cli.tasks.abilities import Embedding
from fiber_cli.tasks.retrieval.pairs import sums

#: How many of the dual encoder's best are scored by fusion.
RERANKED = 20
MADE_QUERIES = 200
#: Scenes of a folder that is asked whether it shows something, and of all folders of one size together.
SIZES, SCENES = (20, 50), 200
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


def asked_of(scenes: Sequence[Scene], others: Sequence[Scene]) -> Iterator[tuple[str, str, bool]]:
    """Kind of text, the text, and whether one of the scenes shows what it says; others: what absent texts are of."""
    for kind, article in ARTICLES.items():
        by_text = {query.text: query for one in scenes for query in coloured_shape_queries(one, article)}
        for text, query in by_text.items():
            yield kind, text, any(fits(query, one) for one in scenes)
    for one in (*scenes, *others):
        query = random.Random(one.key).choice(queries(one))
        yield "of all kinds", query.text, any(fits(query, each) for each in scenes)
    for one in (*scenes, *others):
        yield "captions", captions(one)[0].text, one in scenes


def presence_in_folders(model: Fiber, size: int) -> dict[str, dict[str, float]]:
    """Kind of text → the percentages of what is there that is said to be so, of what is absent that is said to be
    absent, and of texts of which nothing is said; of folders of `size` scenes."""
    answers: dict[str, list[tuple[bool, bool | None]]] = {}
    folders = []
    for first in range(0, SCENES + size, size):
        folders.append([scene(0, "test", first + number) for number in range(size)])
    for scenes, others in pairwise(folders):
        asked = list(asked_of(scenes, others))
        results = searched(model, scenes, [text for _, text, _ in asked])
        for (kind, _, is_there), of_text in zip(asked, results, strict=True):
            matches = [result.matches for result in of_text]
            said = None if None in matches else any(matches)
            answers.setdefault(kind, []).append((is_there, said))
    return {kind: shares(of_kind) for kind, of_kind in answers.items()}


def searched(model: Fiber, scenes: Sequence[Scene], texts: Sequence[str]) -> list[list[SearchResult]]:
    """What a folder with the pictures of scenes answers to each text."""
    with TemporaryDirectory() as folder:
        for number, one in enumerate(scenes):
            draw(one).save(Path(folder, f"{number}.png"))
        return model.with_index(folder).search(texts)


def shares(answers: Sequence[tuple[bool, bool | None]]) -> dict[str, float]:
    """Of pairs of whether something is there and what is said."""
    present = [said for is_there, said in answers if is_there]
    absent = [said for is_there, said in answers if not is_there]
    return {
        "texts": len(answers),
        "present, said to be there": 100 * present.count(True) / max(1, len(present)),
        "absent, said to be absent": 100 * absent.count(False) / max(1, len(absent)),
        "nothing said": 100 * (present + absent).count(None) / len(answers),
    }


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
    result = {"command": command, "mean average precision": figures}
    for size in SIZES:
        in_folders = presence_in_folders(model, size)
        for kind, of_kind in in_folders.items():
            rounded = {name: round(value, 1) for name, value in of_kind.items()}
            print(f"folders of {size} scenes, {kind}", rounded, flush=True)
        result[f"folders of {size} scenes"] = in_folders
    write(result, arguments.json)


if __name__ == "__main__":
    main()
