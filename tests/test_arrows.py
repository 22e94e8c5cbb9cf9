"""Imports point one way (see docs/structure.md); held over the syntax trees, nothing is run.

Imports for annotations alone, under `if TYPE_CHECKING`, are no arrows.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fiber_cli"
LEAVES = {
    "boxes",
    "characters",
    "downloads",
    "remote_paths",
    "errors",
    "outputs",
    "parsing",
    "placement",
    "printing",
    "regular_files",
    "seeds",
    "settings",
    "stop_signals",
    "suppression",
    "text_files",
}
#: Room → the rooms that it may import, itself and the leaves apart.
ALLOWED = {
    "characters": set(),
    "errors": set(),
    "printing": set(),
    "regular_files": set(),
    "text_files": set(),
    "boxes": set(),
    "downloads": set(),
    "remote_paths": set(),
    "outputs": set(),
    "parsing": set(),
    "placement": set(),
    "seeds": set(),
    "settings": set(),
    "stop_signals": set(),
    "suppression": set(),
    "distributed": set(),
    "model": set(),
    "data": set(),
    "tasks": {"data", "model", "distributed"},
    "config": {"tasks", "data"},
    "checkpoints": {"tasks", "data", "model", "distributed"},
    "evaluation": {"checkpoints", "tasks", "data", "distributed"},
    "inference": {"checkpoints", "tasks", "data", "model", "distributed"},
    "infer": {"inference"},
    "training": {"config", "checkpoints", "tasks", "data", "model", "distributed"},
    "tables": {"config", "training", "evaluation", "checkpoints", "tasks", "data", "distributed"},
    "cli": {"config", "tables", "training", "evaluation", "inference", "checkpoints", "tasks", "data", "distributed"},
    "__main__": {"cli"},
    "__init__": {"inference"},
}
#: What rooms know of others they know by these modules only.
ONLY_THROUGH = {
    # The settings of tasks and sources, not their code.
    ("config", "tasks"): {"tasks", "tasks.declaration"},
    ("config", "data"): {"data.sources"},
}
#: Third-party packages that only these files import.
ONLY = {
    "deepspeed": {"training/deepspeed_engine.py"},
    "faster_coco_eval": {"tasks/regions/coco_ap.py"},
    "pycocotools": {"tasks/regions/coco_ap.py", "data/masks.py"},
    "timm": {"checkpoints/backbones.py"},
    "torchvision": {
        "model/detector/deform_conv.py",
        "model/detector/faster_rcnn.py",
        "model/detector/retinanet.py",
        "model/detector/torchvision_boxes.py",
        "suppression.py",
    },
    "transformers": {"data/tokenizer_files.py"},
    "matplotlib": {
        "evaluation/few_shot_curve.py",
        "tables/picture.py",
        "training/curves.py",
        "training/ablation.py",
    },
}
#: Third-party packages of the networks.
MODEL_PACKAGES = {"torch", "torchvision"}
#: What must not be loaded for `fiber --help`.
HEAVY = {"torch", "torchvision", "timm", "transformers", "deepspeed", "numpy", "PIL", "matplotlib", "safetensors"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        # `from fiber_cli import x` names a module x.
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports(path: Path, *, at_load_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `at_load_only` leaves out functions."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        is_late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_typing_only(node) or (at_load_only and is_late):
            return
        names.update(imported(node))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def module_of(name: str) -> str | None:
    """The module of this package, without `fiber_cli.`, that a dotted name is or is in."""
    if not name.startswith("fiber_cli."):
        return None
    parts = name.split(".")[1:]
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.is_dir() or path.with_suffix(".py").is_file():
            return ".".join(parts)
        parts.pop()
    return None


def modules(names: set[str]) -> set[str]:
    return {module for name in names if (module := module_of(name)) is not None}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_an_arrow_points_the_wrong_way(path):
    own = room(path)
    for module in modules(imports(path)):
        other = module.split(".")[0]
        assert other in {own, *LEAVES, *ALLOWED[own]}, f"{own} must not import {module}"
        through = ONLY_THROUGH.get((own, other))
        assert through is None or module in through, f"{own} knows {other} by {through}, not by {module}"


@pytest.mark.parametrize(("package", "users"), ONLY.items())
def test_a_package_is_used_in_other_files(package, users):
    for path in files():
        if package in {name.split(".")[0] for name in imports(path)}:
            assert path.relative_to(PACKAGE).as_posix() in users


def test_modules_import_one_another():
    graph = {}
    for path in files():
        name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        graph[name] = modules(imports(path, at_load_only=True)) - {name}
    while free := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert not graph, f"these import one another: {sorted(graph)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").rglob("*.py")), ids=lambda path: path.name)
def test_the_model_is_more_than_networks(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"fiber_cli"}
    assert outside <= MODEL_PACKAGES


def loaded_by(path: Path, seen: dict[Path, set[str]]) -> None:
    """Follow the imports that loading a file makes, packages' own files included; fills in what each names."""
    if path in seen:
        return
    names = imports(path, at_load_only=True)
    seen[path] = {name.split(".")[0] for name in names}
    for module in modules(names):
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            below = PACKAGE.joinpath(*parts[:depth])
            loaded_by(below / "__init__.py" if below.is_dir() else below.with_suffix(".py"), seen)


def test_the_command_line_loads_something_heavy():
    seen: dict[Path, set[str]] = {}
    loaded_by(PACKAGE / "__main__.py", seen)
    loaded_by(PACKAGE / "__init__.py", seen)
    for path in sorted((PACKAGE / "tasks").glob("*/__init__.py")):
        loaded_by(path, seen)
    assert PACKAGE / "tasks" / "vqa" / "settings.py" in seen
    for path, names in seen.items():
        assert not names & HEAVY, f"{path} is loaded by `fiber --help`"


#: What measures, of all tasks, which nothing that is used on one's own pictures is to need.
EVALUATION = re.compile(r"tasks/(\w+/(metrics|evaluation|\w+_set|\w+_ap)|evalset|evaluation)\.py|evaluation/.*")


@pytest.mark.parametrize("path", sorted((PACKAGE / "inference").glob("*.py")), ids=lambda path: path.name)
def test_use_on_ones_own_pictures_reads_a_file_of_evaluation(path):
    seen: dict[Path, set[str]] = {}
    loaded_by(path, seen)
    for file in seen:
        assert not EVALUATION.fullmatch(file.relative_to(PACKAGE).as_posix()), f"{path.name} loads {file}"
    for module in modules(imports(path)):
        assert not EVALUATION.fullmatch(module.replace(".", "/") + ".py"), f"{path.name} imports {module}"


def test_the_rules_are_about_nothing():
    names = {path.relative_to(PACKAGE).as_posix() for path in files()}
    measuring = {name for name in names if EVALUATION.fullmatch(name)}
    assert {"tasks/vqa/metrics.py", "tasks/regions/phrase_set.py", "tasks/evalset.py"} <= measuring
    rooms = {room(path) for path in files()}
    assert rooms == ALLOWED.keys()
    (file,) = ONLY["deepspeed"]
    engine = PACKAGE / file
    assert "deepspeed" in {name.split(".")[0] for name in imports(engine)}
    assert "torch" in {name.split(".")[0] for name in imports(PACKAGE / "model" / "swin.py")}
    evaluation = PACKAGE / "cli" / "evaluation.py"
    assert imports(evaluation) - imports(evaluation, at_load_only=True)
