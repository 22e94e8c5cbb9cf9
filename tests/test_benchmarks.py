"""The benchmarks, whose commands the pages name."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.__main__ import BENCHMARKS, LEFT_OUT, run
from benchmarks.inference_passes import ITC, Earlier, new_task
from benchmarks.scene_queries import with_best_first
from benchmarks.startup import save_base
from fiber_cli import Fiber
from fiber_cli.model.config import PRESETS

FOLDER = Path(__file__).parents[1] / "benchmarks"
FILES = sorted(FOLDER.rglob("*.py"))
MODULES = sorted(
    [path.stem for path in FOLDER.glob("[!_]*.py") if "__main__" in path.read_text(encoding="utf-8")]
    + [path.parent.name for path in FOLDER.glob("*/__main__.py")]
)


def test_a_benchmark_is_neither_run_with_all_nor_left_out_for_a_reason():
    listed = [benchmark.name for benchmark in BENCHMARKS]
    assert sorted([*listed, *LEFT_OUT]) == MODULES
    assert all(LEFT_OUT.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_benchmark_imports_what_is_not_there_once_it_is_under_way(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fiber_cli"):
            module = import_module(node.module)
            for imported in node.names:
                if not hasattr(module, imported.name):
                    import_module(f"{node.module}.{imported.name}")


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=[benchmark.name for benchmark in BENCHMARKS])
def test_a_benchmark_fails_at_its_smallest_size(benchmark, tmp_path):
    row = run(benchmark, tmp_path, small=True)
    assert "failed" not in row, (tmp_path / f"{benchmark.name}.log").read_text(encoding="utf-8")
    assert len(row["figures"]) == len(benchmark.figures)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_cannot_be_started(name):
    assert f"python -m benchmarks.{name}" in (import_module(f"benchmarks.{name}").__doc__ or "")


def test_the_checkpoint_of_base_cannot_be_loaded_or_earlier_versions_refuse_its_settings(tmp_path):
    checkpoint = save_base(tmp_path, "tiny")
    assert Fiber.from_pretrained(checkpoint, device="cpu").loaded.name == "coarse"
    assert json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["task"] == {"name": "coarse"}


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


def test_an_earlier_commits_pass_is_another_one(tmp_path):
    """`precision --before`, with this code in the place of an earlier one."""
    torch.manual_seed(0)
    vocab = PRESETS["tiny"].text.vocab
    task = new_task(ITC, "tiny", vocab).eval()
    ids = torch.randint(5, vocab - 1, (2, 8))
    batch = {"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}
    with Earlier(FOLDER.parent, tmp_path / "pass.pt", ITC, "tiny", vocab, task, batch) as earlier:
        assert earlier.seconds() > 0
        assert earlier.seconds() > 0
        result = earlier.result()
    with torch.inference_mode():
        expected = task.predict(batch)
    np.testing.assert_allclose(result, expected.numpy(), atol=1e-6)
