"""A recipe that is right, and what is wrong with it once it is changed."""

import pytest

from fiber_cli.config.recipe import Recipe
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.settings import RecipeError

GOOD = """\
model: {preset: tiny}
task:
  name: coarse
data:
  train:
    - {kind: scenes, count: 100}
    - kind: webdataset
      shards: [a.tar, b/*.tar]
  val: [{kind: scenes, split: val, count: 20}]
optim:
  lr: 1e-3
  steps: 100
runtime:
  micro_batch: 8
  global_batch: 32
"""


def good(*overrides: str) -> Recipe:
    return parse_recipe(GOOD, "good.yaml", overrides)


def problems(*overrides: str, text: str = GOOD) -> list[str]:
    """The lines of the error, each with its place."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "good.yaml", overrides)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{len(rest)} problem{'s' * (len(rest) != 1)} in the recipe:"
    return [line.strip() for line in rest]
