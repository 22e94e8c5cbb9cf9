"""Detection sets that are fine-tuned on, with all of their data and with few shots."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fiber_cli.data.coco_json import read_coco_json
from fiber_cli.data.object_columns import Use
from fiber_cli.data.object_source import COPIES
from fiber_cli.data.sources.coco import CocoSettings

#: Of a number of shots and a seed, the entry of a recipe with the images of that draw.
Draw = Callable[[int, int], CocoSettings]
#: What stands for all of a set's data among the shots.
ALL_DATA = 0


class FewShotSet(NamedTuple):
    """train, valid, test: the entries of a recipe that it is learned from, that its best weights are chosen by, and
    that it is measured on. draw: of few shots."""

    name: str
    train: CocoSettings
    valid: CocoSettings
    test: CocoSettings
    draw: Draw


class Tuning(NamedTuple):
    """One fine-tuning. shots: `ALL_DATA` or few; seed: of the draw, None of all data. train, valid, test: see
    `FewShotSet`."""

    set_name: str
    shots: int
    seed: int | None
    train: CocoSettings
    valid: CocoSettings
    test: CocoSettings

    @property
    def name(self) -> str:
        """Its folder below the output."""
        return tuning_name(self.set_name, self.shots, self.seed)


def tuning_name(set_name: str, shots: int, seed: int | None) -> str:
    """The folder of a fine-tuning below that of all; see `Tuning`."""
    drawn = "full" if seed is None else f"shot{shots}-seed{seed}"
    return f"{set_name}/{drawn}"


def drawn_by_seed(train: CocoSettings) -> Draw:
    """Images of a set, drawn until each category has so many, see `data.object_source.few_shot`."""
    return lambda shots, seed: dataclasses.replace(train, shots=shots, seed=seed)


def drawn_from_files(train: CocoSettings, file_of: Callable[[int, int], Path]) -> Draw:
    """Draws that lie in files of their own, each picture as often as the published command repeats it."""

    def draw(shots: int, seed: int) -> CocoSettings:
        return dataclasses.replace(train, json=str(file_of(shots, seed)), copies=COPIES.get(shots, 1))

    return draw


def tunings(sets: list[FewShotSet], shots: tuple[int, ...], seeds: tuple[int, ...]) -> list[Tuning]:
    """Shots by shots, so that a mean of all sets is there as early as can be."""
    made = []
    for number in shots:
        for seed in (None,) if number == ALL_DATA else seeds:
            for each in sets:
                train = each.train if seed is None else each.draw(number, seed)
                made.append(Tuning(each.name, number, seed, train, each.valid, each.test))
    return made


def images_of_categories(json: str) -> dict[str, int]:
    """How many images of a file have each category. Raises UserError for a file that cannot be read."""
    file = read_coco_json(json, "a detection JSON in COCO's form", labelled=True)
    images: Counter[int] = Counter()
    for objects in file.objects:
        images.update({each.category for each in objects if each.use is Use.TRAINED})
    return {category.name: images[category.identifier] for category in file.categories}
