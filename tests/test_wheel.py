"""What an installed package has: recipes, and the checkpoints that ship with it."""

import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from shipped_checkpoints import ship_likely

ROOT = Path(__file__).parents[1]


def test_the_wheel_leaves_out_files_of_the_package():
    """It takes the whole package, in which the folder of shipped checkpoints is."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["fiber_cli"]
    assert not wheel.keys() - {"packages", "force-include"}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not {"builtin/", "*.safetensors", "*.json", "*.md"} & set(ignored)


def test_what_ships_is_in_the_wheel(tmp_path):
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds wheels, and is not installed")
    tree = tmp_path / "tree"
    (tree / "fiber_cli").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "fiber_cli/__init__.py"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "recipes", tree / "recipes")
    ship_likely(tree / "fiber_cli" / "builtin")
    (tree / "fiber_cli" / "builtin" / "MODEL_CARD.md").write_text("# Card\n")
    (wheel,) = wheels.WheelBuilder(str(tree)).build(directory=str(tmp_path / "dist"))
    content = zipfile.ZipFile(wheel).namelist()
    shipped = [path for path in (tree / "fiber_cli" / "builtin").rglob("*") if path.is_file()]
    assert len(shipped) == 5 * 4 + 1
    assert {path.relative_to(tree).as_posix() for path in shipped} <= set(content)
    assert "fiber_cli/recipes/tiny.yaml" in content
