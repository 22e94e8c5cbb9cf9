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


def test_a_recipe_of_another_system_is_shown_with_its_marks(run, tmp_path):
    (tmp_path / "mine.yaml").write_bytes("# about: caf\u00e9\r\nname: a\u202e\r\n".encode("utf-16"))
    assert run("recipes", "show", "mine.yaml") == (0, "# about: caf\u00e9\nname: a\\u202e\n", "")
    (tmp_path / "mine.yaml").write_bytes(b"# about: caf\xe9\n")
    code, _, err = run("recipes", "show", "mine.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.yaml: not UTF-8 at byte 13 (0xe9)" in err
