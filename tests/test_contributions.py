"""What a contributor adds from outside: a task is one folder, a line and a recipe, a format one file and a line.

The additions stand in `assets/`. They are made in a copy of the package, in which no other file is touched.
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene

ROOT = Path(__file__).parents[1]
ASSETS = Path(__file__).parent / "assets"
#: Prints the parameter groups that hold the head, with the factor on their learning rate.
HEAD_GROUPS = """
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.training.optim import param_groups
from fiber_cli.training.work import work
made = work(resolve_recipe("entailment"))
head = {id(p) for n, p in made.task.named_parameters() if n.startswith("entailment.")}
groups = param_groups(made.task.named_parameters(), made.parameters, weight_decay=0.1, head_mult=50.0)
for group in groups:
    print(group["name"], group["mult"], sum(id(p) in head for p in group["params"]))
"""


@pytest.fixture
def copy(tmp_path):
    """A checkout of the package and the recipes alone."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fiber_cli", tmp_path / "fiber_cli", ignore=ignored)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return tmp_path


def add_line(file: Path, table: str, line: str) -> None:
    """Put a line at the beginning of a literal table."""
    text = file.read_text()
    start = f"{table} = {{\n"
    assert text.count(start) == 1
    file.write_text(text.replace(start, f"{start}    {line}\n"))


def changed_files(copy: Path) -> set[str]:
    """Files of the package's copy that are new, changed or gone."""
    changed = set()

    def compare(pair: filecmp.dircmp, below: str) -> None:
        for name in (*pair.left_only, *pair.right_only, *pair.diff_files, *pair.funny_files):
            changed.add(below + name)
        for name, inside in pair.subdirs.items():
            compare(inside, f"{below}{name}/")

    compare(filecmp.dircmp(ROOT / "fiber_cli", copy / "fiber_cli", ignore=["__pycache__"]), "")
    return changed


def run(copy: Path, *argv: str) -> subprocess.CompletedProcess:
    """Python in the copy, which ends well."""
    done = attempt(copy, *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def attempt(copy: Path, *argv: str) -> subprocess.CompletedProcess:
    """Python in the copy, however it ends."""
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *argv], cwd=copy, env=env, capture_output=True, text=True, check=False)


def add_entailment(copy: Path, line: str = "entailment:ENTAILMENT") -> Path:
    """The task's folder in the copy."""
    folder = copy / "fiber_cli" / "tasks" / "entailment"
    shutil.copytree(ASSETS / "entailment" / "task", folder)
    add_line(copy / "fiber_cli" / "tasks" / "__init__.py", "TASKS", f'"entailment": "{line}",')
    shutil.copy(ASSETS / "entailment" / "entailment.yaml", copy / "recipes")
    return folder


def test_adding_a_task_needs_more_than_a_folder_a_line_and_a_recipe(copy):
    add_entailment(copy)
    assert changed_files(copy) == {"tasks/entailment", "tasks/__init__.py"}

    run(copy, "-m", "fiber_cli", "finetune", "entailment", "--recipe", "entailment", "--output", "runs/entailment")
    records = [json.loads(line) for line in (copy / "runs/entailment/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "entailment_loss" in record] == [1, 2, 3]
    assert sum("entailment/accuracy" in record for record in records) == 3
    summary = json.loads((copy / "runs/entailment/summary.json").read_text())
    assert summary["best"]["metric"] == "entailment/accuracy"
    best = (copy / "runs/entailment/checkpoints/best").read_text().strip()
    assert (copy / "runs/entailment/checkpoints" / best / "model.safetensors").is_file()

    # Found by itself: the newest run that can be evaluated on scenes.
    run(copy, "-m", "fiber_cli", "eval", "scenes", "--limit", "5", "--output", "found", "--workers", "0")
    results = json.loads((copy / "found/results.json").read_text())
    assert results["mode"] == "entailment"
    assert 0 <= results["metrics"]["entailment/accuracy"] <= 100
    config = json.loads((copy / "runs/entailment/checkpoints" / best / "config.json").read_text())
    assert config["task"] == {"name": "entailment", "label_smoothing": 0.1, "neutral": 0.33}

    groups = [line.split() for line in run(copy, "-c", HEAD_GROUPS).stdout.splitlines()]
    with_head = {name: float(mult) for name, mult, count in groups if int(count)}
    assert set(with_head) == {"head/decay", "head/no_decay"}
    assert set(with_head.values()) == {50.0}

    assert "entailment" in run(copy, "-m", "fiber_cli", "recipes", "schema").stdout
    assert "entailment" in run(copy, "-m", "fiber_cli", "finetune", "--help").stdout


def test_adding_a_format_needs_more_than_a_file_and_a_line(copy):
    shutil.copy(ASSETS / "captions_table" / "captions_table.py", copy / "fiber_cli" / "data" / "sources")
    table = copy / "fiber_cli" / "data" / "sources" / "__init__.py"
    add_line(table, "FORMATS", '"captions_table": "captions_table:CAPTIONS_TABLE",')
    assert changed_files(copy) == {"data/sources/captions_table.py", "data/sources/__init__.py"}

    (copy / "pictures").mkdir()
    lines = []
    for number in range(8):
        draw(scene(0, "train", number, 64)).save(copy / "pictures" / f"{number}.png")
        lines.append(f"{number}.png\ta picture of scene {number}\n")
    (copy / "captions.tsv").write_text("".join(lines))
    source = "{kind: captions_table, table: captions.tsv, images: pictures}"
    run(
        copy,
        *("-m", "fiber_cli", "pretrain", "coarse", "--recipe", "tiny", "--output", "runs/table"),
        *(f"data.train=[{source}]", f"data.val=[{source}]", "data.workers=0", "optim.steps=3", "optim.warmup=0"),
        *("runtime.micro_batch=4", "runtime.global_batch=4", "log.every=1", "log.validate_every=3"),
        *("model.depths=[1,1,1]", "model.text_layers=2", "model.fusion_layers=1"),
    )
    summary = json.loads((copy / "runs/table/summary.json").read_text())
    assert summary["steps"] == 3
    assert "itc/ir@1" in summary["metrics"]
    assert "captions_table" in run(copy, "-m", "fiber_cli", "recipes", "schema").stdout


DRY_RUN = ("-m", "fiber_cli", "finetune", "entailment", "--recipe", "entailment", "--dry-run")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "__init__.py",
            'heads=("entailment.",)',
            "heads=()",
            "task 'entailment': the parameter 'entailment.fc1.weight' is outside the encoder",
        ),
        (
            "settings.py",
            '"Chance of a statement about another picture.", 0.33, ge=0, le=1, owner=Owner.READER',
            '"Chance of a statement about another picture.", 0.33, ge=0, le=1, owner=Owner.MODEL',
            "task 'entailment': the setting 'neutral' is the model's (Owner.MODEL), and EntailmentTask has no argument",
        ),
        ("__init__.py", "task:EntailmentTask", "tusk:EntailmentTask", "task 'entailment': module: 'fiber_cli.tasks."),
    ],
    ids=["head", "setting", "path"],
)
def test_a_wrong_declaration_ends_in_a_traceback(copy, file, old, new, message):
    changed = add_entailment(copy) / file
    text = changed.read_text()
    assert text.count(old) == 1
    changed.write_text(text.replace(old, new))
    ended = attempt(copy, *DRY_RUN)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"fiber: {message}")
    assert "Traceback" not in ended.stderr


def test_a_misprint_in_the_table_breaks_the_help(copy):
    add_entailment(copy, line="entailment:ENTAILMANT")
    for argv in (("--help",), ("finetune", "--help"), ("recipes", "schema")):
        assert run(copy, "-m", "fiber_cli", *argv).stdout
    ended = attempt(copy, *DRY_RUN)
    assert ended.returncode != 0
    assert "'entailment': 'entailment:ENTAILMANT' of TASKS" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_postponed_annotations_break_a_task(copy):
    for file in (add_entailment(copy)).glob("*.py"):
        doc, rest = file.read_text().split("\n", 1)
        file.write_text(f"{doc}\n\nfrom __future__ import annotations\n{rest}")
    run(copy, *DRY_RUN)
    schema = run(copy, "-m", "fiber_cli", "recipes", "schema").stdout
    assert "| `neutral` | a number, at least 0, at most 1 |" in schema
