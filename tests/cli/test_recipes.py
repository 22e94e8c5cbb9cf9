"""`fiber recipes`."""

from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"


def test_recipes(run):
    code, out, _ = run("recipes")
    names = [line for line in out.splitlines() if not line.startswith(" ")]
    assert code == 0
    assert names == sorted(path.stem for path in RECIPES.glob("*.yaml"))
    assert "reproduces: " in out
    assert "fiber pretrain coarse --recipe tiny" in out
    assert run("recipes", "show", "tiny")[1] == (RECIPES / "tiny.yaml").read_text()
    assert run("recipes", "show", "tinny")[0] == 2
    assert "## `runtime`" in run("recipes", "schema")[1]
