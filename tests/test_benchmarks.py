"""The benchmarks, whose commands the README names."""

import re
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = sorted(
    [path.stem for path in FOLDER.glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")]
    + [path.parent.name for path in FOLDER.glob("*/__main__.py")]
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_cannot_be_started(name):
    assert f"python -m benchmarks.{name}" in (import_module(f"benchmarks.{name}").__doc__ or "")


def test_the_readme_names_a_benchmark_that_is_not_there():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"python -m benchmarks\.(\w+)", readme)) <= set(MODULES)
