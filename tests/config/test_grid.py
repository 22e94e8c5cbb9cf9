"""Grids of ablations: what is read, and what is refused."""

import pytest

from fiber_cli.config.grid import Grid, Variant, parse_grid, read_grid, shipped_grids, variant_of, with_variants
from fiber_cli.config.resolve import resolve_recipe, shipped_recipes
from fiber_cli.settings import RecipeError

GRID = """
metrics: [itc/ir@1]
variants:
  - {name: plain}
  - {name: no gates, settings: [model.fusion_gate=false], group: gates, paper: lower}
"""


def test_a_grid_is_read_as_another():
    grid = parse_grid(GRID, "grid.yaml")
    gates = Variant("no gates", ("model.fusion_gate=false",), "gates", paper="lower")
    assert grid == Grid(("itc/ir@1",), (Variant("plain"), gates))
    assert (grid.seeds, grid.evaluate, gates.folder) == ((0,), (), "no-gates")


@pytest.mark.parametrize("name", shipped_grids())
def test_a_shipped_grid_does_not_fit_its_recipe(name):
    grid = read_grid(name)
    assert name in shipped_recipes()
    for variant in grid.variants:
        resolve_recipe(name, variant.settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metrics: [a]", "variants: missing"),
        (GRID.replace("metrics", "metric"), "unknown key 'metric'"),
        (GRID.replace("no gates", "Plain"), "'plain' and 'Plain' would share a folder"),
        (GRID.replace("plain", "../x"), r"a name is also a folder's"),
        (GRID.replace("plain", "'x '"), "letters, digits"),
        (GRID.replace("[itc/ir@1]", "[]"), "metrics is empty"),
        (GRID + "seeds: [1, 1]", "seeds 1, 1: one comes twice"),
        (GRID + "seeds: [-1]", "out of range, must be at least 0"),
        ("metrics: [a]\nvariants: [{name: x}]", "nothing to be compared with"),
        ("metrics: [", "not valid YAML"),
        ("", "metrics: missing"),
        (GRID.replace("settings: [", "settings: [[1], "), "wanted text"),
    ],
)
def test_a_wrong_grid_is_taken(text, told):
    with pytest.raises(RecipeError, match=told):
        parse_grid(text, "grid.yaml")


def test_a_grid_that_is_not_there_has_no_neighbours():
    with pytest.raises(RecipeError, match="did you mean 'ablation'"):
        read_grid("ablaton")


def test_variants_of_the_command_line_are_lost():
    assert variant_of("no gates: model.fusion_gate=false 'data.train=[{kind: scenes, count: 4}]'") == Variant(
        "no gates", ("model.fusion_gate=false", "data.train=[{kind: scenes, count: 4}]")
    )
    assert variant_of("plain:") == Variant("plain")
    for wrong, told in (("plain", "give NAME"), ("x: 'a", "quote a value")):
        with pytest.raises(RecipeError, match=told):
            variant_of(wrong)
    grid = parse_grid(GRID, "grid.yaml")
    longer = with_variants(grid, [Variant("other")], [], "here")
    assert [variant.name for variant in longer.variants] == ["plain", "no gates", "other"]
    assert longer.metrics == ("itc/ir@1",)
    assert with_variants(grid, [], ["itm/ir@1"], "here").metrics == ("itm/ir@1",)
    with pytest.raises(RecipeError, match="share a folder"):
        with_variants(grid, [Variant("plain")], [], "here")
