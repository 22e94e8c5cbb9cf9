"""What checkpoints can do in the world of drawn scenes, each measured by what it was trained for.

    python -m benchmarks.scene_figures CHECKPOINT... [--split test] [--count 200] [--json FILE]

Of unseen scenes: retrieval by full captions with ITC, ITM and their sum, also among families of eight scenes that
differ in one attribute of one object, and there re-ranked over the best ten; detection of all names, and of five names
at a time at every level of naming, by the checkpoint's own threshold: the share of present names that are found (IoU
0.5) and of absent ones that fire, and the same of one name asked alone, bare, with an article and in the plural;
expressions by attributes and by place; questions and statements, beside the same
with exchanged pictures; captions: the share of their claims that is true, how many they make, and CIDEr beside that
with exchanged pictures. Searching with short queries is `benchmarks.scene_queries`.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.common import write
from benchmarks.scene_claims import count_true
from fiber_cli import Fiber
from fiber_cli.boxes import iou
from fiber_cli.data.scenes.categories import categories
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import Box, Scene, scene
from fiber_cli.data.scenes.naming import FORMS, LEVELS, forms_of, level_of, names_of
from fiber_cli.data.scenes.vocabulary import EXTREME, RELATIONS
from fiber_cli.data.sources.scenes import SceneDetection, ScenesSource
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting, Matching
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions

#: Names in one prompt of a user, of which at most so many are present.
ASKED, PRESENT = 5, 2
#: Scenes that differ in one attribute of one object, and how many of the dual encoder's best are re-ranked among them.
FAMILY, RERANKED = 8, 10
_LEAST_OVERLAP = 0.5
_WORDS_OF_PLACE = (*EXTREME.values(), *(words for spellings in RELATIONS.values() for words in spellings))

Figures = dict[str, Any]


class Scenes:
    """The unseen scenes and their pictures."""

    def __init__(self, split: str, count: int):
        self.split = split
        self.count = count
        self.scenes = [scene(0, split, number) for number in range(count)]
        self.pictures = [draw(one) for one in self.scenes]


def evaluated(model: Fiber, source: Any, **options: Any) -> dict[str, float]:
    """What `fiber eval` measures on a source."""
    asked = EvaluationOptions(**options)
    evaluation = model.loaded.declaration.evaluation.load()([source], model.context, asked)
    metrics: dict[str, float] = evaluation.measure(model.task, PredictOptions(32, 0, model.precision)).metrics
    return metrics


def retrieval(model: Fiber, data: Scenes) -> Figures:
    families = ScenesSource(data.split, data.count, siblings=FAMILY)
    return {
        "scenes": evaluated(model, ScenesSource(data.split, data.count), mode="itc+itm"),
        "close negatives": evaluated(model, families, mode="itc+itm")
        | evaluated(model, families, mode="rerank", rerank=(RERANKED,)),
    }


def detection(model: Fiber, data: Scenes) -> Figures:
    source = SceneDetection(data.split, data.count, image_size=128)
    figures: Figures = {"all names": evaluated(model, source), "threshold": model.threshold}
    by_level = {}
    for level in LEVELS:
        by_level[level] = asked_for_five(model, data, level)
    alone = {form: asked_alone(model, data, form) for form in FORMS}
    return figures | {"five names": by_level, "one name alone": alone}


def asked_alone(model: Fiber, data: Scenes, form: str) -> Figures:
    """The same of prompts of one name, a present one and an absent one of each picture, of any level, in one of the
    `forms_of` names."""
    everything = [name for name in categories("all_levels", data.split) if LEVELS[level_of(name)]]
    rng = random.Random("alone")
    found = []
    fired = []
    for one, picture in zip(data.scenes, data.pictures, strict=True):
        boxes = boxes_by_name(one)
        present = rng.choice([name for name in everything if name in boxes])
        absent = rng.choice([name for name in everything if name not in boxes])
        hits = [hit.box for hit in model.detect(picture, [forms_of(present)[FORMS.index(form)]])]
        found.append(any(overlaps(hit, boxes[present]) for hit in hits))
        fired.append(bool(model.detect(picture, [forms_of(absent)[FORMS.index(form)]])))
    return {"present": percentage(found), "absent": percentage(fired)}


def asked_for_five(model: Fiber, data: Scenes, level: str) -> Figures:
    """Percentages of the present names that are found and of the absent ones that fire; absent: null where every name
    of a level is in every picture."""
    everything = [name for name in categories("all_levels", data.split) if level_of(name) == level]
    rng = random.Random(f"{level}/five")
    found: list[bool] = []
    fired: list[bool] = []
    for one, picture in zip(data.scenes, data.pictures, strict=True):
        boxes = boxes_by_name(one)
        present = [name for name in everything if name in boxes]
        absent = [name for name in everything if name not in boxes]
        asked = rng.sample(present, min(PRESENT, len(present)))
        asked += rng.sample(absent, min(ASKED - len(asked), len(absent)))
        rng.shuffle(asked)
        detections = model.detect(picture, asked)
        for name in asked:
            hits = [found_one.box for found_one in detections if found_one.label == name]
            if name in boxes:
                found.append(any(overlaps(hit, boxes[name]) for hit in hits))
            else:
                fired.append(bool(hits))
    return {"present": percentage(found), "absent": percentage(fired) if fired else None}


def boxes_by_name(one: Scene) -> dict[str, list[Box]]:
    boxes = defaultdict(list)
    for thing in one.objects:
        for name in names_of(thing):
            boxes[name].append(thing.box)
    return dict(boxes)


def overlaps(box: Sequence[float], boxes: Sequence[Box]) -> bool:
    return bool((iou(torch.tensor([list(box)]), torch.tensor(boxes)) >= _LEAST_OVERLAP).any())


def referring(model: Fiber, data: Scenes) -> Figures:
    """Percentage of expressions whose object has the best box, by attributes and by place."""
    is_right: dict[str, list[bool]] = {"by attributes": [], "by place": []}
    for one, picture in zip(data.scenes, data.pictures, strict=True):
        for expression in expressions(one):
            is_of_place = any(words in expression.text for words in _WORDS_OF_PLACE)
            best = model.ground(picture, phrases=[expression.text], threshold=0, top_k=1)
            kind = "by place" if is_of_place else "by attributes"
            is_right[kind].append(bool(best) and overlaps(best[0].box, [expression.box]))
    return {kind: percentage(right) for kind, right in is_right.items()}


def captions(model: Fiber, data: Scenes) -> Figures:
    texts = model.caption(data.pictures)
    claims = [count_true(text, one) for text, one in zip(texts, data.scenes, strict=True)]
    made = np.array(claims)
    figures = evaluated(model, ScenesSource(data.split, data.count), blind=True)
    return figures | {
        "true claims": 100 * float(made[:, 1].sum() / max(1, made[:, 0].sum())),
        "claims a caption": float(made[:, 0].mean()),
        "fewest claims": int(made[:, 0].min()),
    }


def answers(model: Fiber, data: Scenes) -> Figures:
    """Questions or statements, whichever the checkpoint is for."""
    return evaluated(model, ScenesSource(data.split, data.count), blind=True)


def percentage(values: Sequence[bool]) -> float:
    return 100 * float(np.mean(values))


def measures(model: Fiber, data: Scenes) -> Iterator[tuple[str, Figures]]:
    loaded = model.loaded
    if loaded.can(Matching):
        yield "retrieval", retrieval(model, data)
    if loaded.can(Detecting):
        yield "detection", detection(model, data)
        yield "referring", referring(model, data)
    if loaded.can(Captioning):
        yield "captions", captions(model, data)
    if loaded.can(Answering) or loaded.name == "nlvr2":
        yield loaded.name, answers(model, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="checkpoint directories or runs")
    parser.add_argument("--count", type=int, default=200, help="how many scenes")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    data = Scenes(arguments.split, arguments.count)
    figures: dict[str, Figures] = {}
    for checkpoint in arguments.checkpoints:
        model = Fiber.from_pretrained(checkpoint)
        for name, measured in measures(model, data):
            figures[name] = measured
            print(name, measured, flush=True)
    command = f"python -m benchmarks.scene_figures CHECKPOINT... --count {arguments.count} --split {arguments.split}"
    write({"command": command, "figures": figures}, arguments.json)


if __name__ == "__main__":
    main()
