"""How many samples a training goes through, as far as that is known without its data."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from fiber_cli.config.recipe import Recipe
from fiber_cli.data.catalogue import catalogue
from fiber_cli.data.readers import caption_view
from fiber_cli.data.source import CaptionSource
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, path_settings, paths_in
from fiber_cli.training.work import open_sources

#: Captions of the training pictures of Karpathy's splits, for `data.captions: each`.
_CAPTIONS = {"dataset_coco.json": 566_747, "dataset_flickr30k.json": 145_000}


class Length(NamedTuple):
    """steps and samples: of the whole training, None where they follow from data that is neither there nor known.
    basis: what they follow from, in words."""

    steps: int | None
    samples: int | None
    basis: str


def length_of(recipe: Recipe) -> Length:
    """Of a recipe's training. Data that are not there, in part or in a form that nothing reads, are not known."""
    batch, steps = recipe.runtime.global_batch, recipe.optim.steps
    if steps is not None:
        return Length(steps, steps * batch, "the recipe's steps")
    epochs = recipe.optim.epochs
    assert epochs is not None
    total = 0
    for entry in recipe.data.train:
        count = _published(entry, recipe)
        if all(map(os.path.exists, _paths(entry))):
            try:
                count = _count(entry, recipe)
            except UserError as error:
                return Length(None, None, f"{epochs} epochs of data that cannot be read yet: {error.message}")
        if count is None:
            missing = next(iter(_paths(entry)), entry.kind)
            return Length(None, None, f"{epochs} epochs of data that are not there, such as {missing}")
        total += round(count * entry.weight)
    steps = max(1, total // batch) * epochs
    return Length(steps, steps * batch, f"{epochs} epochs of {total:,}")


def _paths(entry: SourceSettings) -> list[str]:
    paths: list[str] = []
    for name in path_settings(type(entry)):
        paths.extend(paths_in(vars(entry)[name]))
    return paths


def _count(entry: SourceSettings, recipe: Recipe) -> int:
    """Samples of an entry whose files are there. Raises UserError where they cannot be read."""
    sources = open_sources([entry], recipe.data)
    if recipe.data.captions == "each":
        captioned = [source for source in sources if isinstance(source, CaptionSource)]
        return sum(map(len, caption_view(captioned, "each")))
    return sum(map(len, sources))


def _published(entry: SourceSettings, recipe: Recipe) -> int | None:
    """Samples of an entry that the catalogue knows, by the names of its files."""
    for data_set in catalogue().values():
        for check in data_set.checks:
            if check.count is not None and _is_of(entry, check.entry):
                if recipe.data.captions == "each":
                    return _CAPTIONS.get(os.path.basename(str(vars(entry).get("json"))))
                return check.count
    return None


def _is_of(entry: SourceSettings, listed: Mapping[str, Any]) -> bool:
    """Whether an entry of a recipe is one of the catalogue's, which has paths below the root."""
    for name, value in listed.items():
        given = vars(entry).get(name)
        if name in path_settings(type(entry)):
            if not f"/{given}".endswith(f"/{value}"):
                return False
        elif given != value:
            return False
    return True
