"""The benchmarks, whose commands the pages name."""

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scene_queries import with_best_first

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = sorted(
    [path.stem for path in FOLDER.glob("[!_]*.py") if "\ndef main(" in path.read_text(encoding="utf-8")]
    + [path.parent.name for path in FOLDER.glob("*/__main__.py")]
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_cannot_be_started(name):
    assert f"python -m benchmarks.{name}" in (import_module(f"benchmarks.{name}").__doc__ or "")


def test_a_page_names_a_benchmark_that_is_not_there():
    pages = [FOLDER.parent / "README.md", *(FOLDER.parent / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    assert named
    assert named <= set(MODULES)


def test_pictures_behind_those_that_are_re_ranked_lose_their_order():
    itc = np.linspace(0.1, 0.9, 200, dtype=np.float32)
    best = np.array([199, 198, 197])
    scores = with_best_first(itc, best, np.array([1.0, -7.0, 3.0], np.float32))
    assert np.argsort(-scores).tolist() == [197, 199, 198, *range(196, -1, -1)]
