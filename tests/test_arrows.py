"""Imports point one way (see the diagram in the README); held over the syntax trees, nothing is run."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fiber_cli"
LEAVES = {"errors", "dist", "boxes", "kinds"}
#: Unit (module or sub-package) → the units that it may import, itself and `errors` apart. Every other module
#: stands between the tasks and the command line and may import all but that.
ALLOWED = {
    "errors": set(),
    "boxes": set(),
    "dist": set(),
    "kinds": set(),
    "strict": set(),
    "settings": {"strict", "kinds"},
    "recipe": {"settings", "strict"},
    "model": {"boxes"},
    "data": {"boxes", "dist", "kinds", "metrics"},
    "metrics": {"boxes", "dist"},
    "tasks": {"model", "data", "metrics", *LEAVES},
}
#: Third-party packages that only these units import at all.
ONLY = {"deepspeed": {"engine"}, "typer": {"cli"}}
MODEL_PACKAGES = {"torch", "torchvision", "timm"}
#: What must not be loaded for `fiber --help` and for reading a recipe.
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "deepspeed",
    "numpy",
    "PIL",
    "matplotlib",
    "safetensors",
}
LIGHT = ("errors", "kinds", "strict", "settings", "recipe", "cli", "__main__")


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[tuple[str, Path]]:
    return [(unit(path), path) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        # `from fiber_cli import x` names a module x.
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports(path: Path, *, at_load_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `at_load_only` leaves out functions and `if TYPE_CHECKING`."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_load_only and (late or typing):
            return
        found.update(imported(node))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def own(names: set[str]) -> set[str]:
    """Units of this package among the names (`fiber_cli.__version__` and the bare package are none)."""
    units = {name.split(".")[1] for name in names if name.startswith("fiber_cli.")}
    return {name for name in units if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value).rpartition("fiber_cli/")[2])
def test_arrows(name, path):
    inside = own(imports(path)) - {name, "errors"}
    if name in ALLOWED:
        assert inside <= ALLOWED[name], f"{name} must not import {inside - ALLOWED[name]}"
    elif name != "__main__":
        assert "cli" not in inside
    for package, users in ONLY.items():
        if name not in users:
            assert package not in {full.split(".")[0] for full in imports(path)}, f"only {users} use {package}"


def test_arrows_make_no_circle():
    graph: dict[str, set[str]] = {}
    for name, path in modules():
        graph.setdefault(name, set()).update(own(imports(path, at_load_only=True)) - {name})
    while free := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert not graph, f"these import one another: {sorted(graph)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").rglob("*.py")), ids=lambda path: path.name)
def test_model_is_networks_only(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"fiber_cli"}
    assert outside <= MODEL_PACKAGES


def test_what_the_command_line_loads_is_light():
    """Follows load-time imports from the light modules; `fiber_cli.data` counts as its whole __init__."""
    for name in LIGHT:
        names = imports(PACKAGE / f"{name}.py", at_load_only=True)
        assert not {full.split(".")[0] for full in names} & HEAVY, name
        assert own(names) <= set(LIGHT), name


def test_the_rules_are_about_something():
    names = {name for name, _ in modules()}
    assert {"model", "data", "tasks", "metrics", "engine", "cli", "recipe"} <= names
    assert "deepspeed" in {full.split(".")[0] for full in imports(PACKAGE / "engine.py")}
    assert "torch" in {full.split(".")[0] for full in imports(PACKAGE / "model" / "swin.py")}
    assert imports(PACKAGE / "cli.py") - imports(PACKAGE / "cli.py", at_load_only=True)
