"""The names that DeepSpeed does not document, and a run under every stage and precision."""

import ast
import tomllib
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import private_names
import pytest
import torch
from packaging.specifiers import SpecifierSet
from toy_runs import assert_equal, max_difference, metrics, processes, run, weights

from fiber_cli.errors import EXIT_OK
from fiber_cli.training import deepspeed_engine
from fiber_cli.training.deepspeed_engine import (
    ENGINE,
    PRIVATE_NAMES,
    TRIED_VERSIONS,
    ZERO_OPTIMIZER,
    PrivateName,
)

#: What DeepSpeed's reference has: its names may be used without being listed.
DOCUMENTED = {"initialize", "zero", "GatheredParameters", "backward", "step", "save_checkpoint", "load_checkpoint"}
#: Entries as they would be after a name has moved.
GONE = (
    PrivateName("deepspeed.ops", "no_such_name", "dict", "test"),
    PrivateName("deepspeed.no_such_module", "name", "dict", "test"),
    PrivateName("deepspeed.runtime.engine:NoSuchClass", "name", "(self)", "test"),
    PrivateName(ENGINE, "no_such_name", "dict", "test"),
    PrivateName(ZERO_OPTIMIZER, "no_such_name", "dict", "test"),
)


def complaint(private: PrivateName, observed: list[str]) -> str | None:
    """What to tell whoever tries a version of DeepSpeed that moved a name."""
    strangers = set(observed) - set(private.form.split(" | "))
    if observed and not strangers:
        return None
    versions = " to ".join(dict.fromkeys(private.tried))
    there = " and ".join(observed) or private_names.ABSENT
    return (
        f"fiber_cli/training/deepspeed_engine.py, PRIVATE_NAMES: {private.name!r} of {private.owner!r} should be "
        f"{private.form}, as in DeepSpeed {versions}, but {version('deepspeed')} has {there} there. What it is for: "
        f"{private.reason}. Mend `Engine` and the entry, or bound deepspeed in pyproject.toml"
    )


@pytest.fixture(scope="module")
def observed() -> dict[PrivateName, list[str]]:
    """Entry → the forms that it has in the installed version."""
    names = [*PRIVATE_NAMES, *GONE]
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        forms = pool.submit(private_names.forms, names).result(timeout=120)
    return dict(zip(names, forms, strict=True))


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=lambda private: f"{private.owner}.{private.name}")
def test_the_installed_version_has_each_private_name_in_its_form(observed, private):
    problem = complaint(private, observed[private])
    assert problem is None, problem


def test_a_moved_name_is_told_with_its_file_entry_and_reason():
    private = PRIVATE_NAMES[1]
    assert private.name == "__compatible_ops__"
    message = complaint(private, [private_names.ABSENT])
    for part in ("deepspeed_engine.py", "PRIVATE_NAMES", private.owner, private.name, private.form, private.reason):
        assert part in message
    assert "has nothing there" in message
    assert "has list there" in complaint(private, ["list"])


def test_a_name_that_is_gone_is_noticed(observed):
    for private in GONE:
        assert observed[private] == [private_names.ABSENT]
        assert "has nothing there" in complaint(private, observed[private])


def test_every_name_of_deepspeed_that_is_used_is_listed():
    listed = {private.name for private in PRIVATE_NAMES} | DOCUMENTED
    tree = ast.parse(Path(deepspeed_engine.__file__).read_text())
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepspeed"):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in (
            "self._engine",
            "self._engine.optimizer",
            "optimizer",
            "deepspeed",
            "deepspeed.ops",
            "deepspeed.utils",
            "deepspeed.zero",
        ):
            used.add(node.attr)
    assert used - listed <= {"ops", "utils"}, "modules are listed as owners"
    # Overridden, or held by state files without being named elsewhere.
    assert {private.name for private in PRIVATE_NAMES} - used == {"save", "load"}


def test_the_dependency_is_bounded_to_what_was_tried():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (requirement,) = [line for line in project["dependencies"] if line.startswith("deepspeed")]
    oldest, newest = TRIED_VERSIONS
    bound = f"=={oldest}" if oldest == newest else f">={oldest},<={newest}"
    assert requirement == f"deepspeed{bound}"
    assert all(private.tried == TRIED_VERSIONS for private in PRIVATE_NAMES)
    assert SpecifierSet(bound).contains(version("deepspeed"))


def test_entries_are_whole_and_told_apart():
    assert len({(private.owner, private.name) for private in PRIVATE_NAMES}) == len(PRIVATE_NAMES)
    for private in PRIVATE_NAMES:
        assert private.reason
        assert private.owner in (ENGINE, ZERO_OPTIMIZER) or private.owner.startswith("deepspeed.")


@pytest.mark.parametrize(("stage", "world"), [(1, 1), (3, 1), (0, 2), (2, 2), (3, 2)])
def test_zero_stages_and_ranks_change_no_weight(plain, tmp_path, stage, world):
    codes, log = run(tmp_path, world=world, recipe={"runtime.zero_stage": stage})
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path), weights(plain), atol=1e-5)
    for ours, theirs in zip(metrics(tmp_path), metrics(plain), strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("precision", "stage"), [("bf16", 0), ("bf16", 2), ("bf16", 3), ("fp16", 0), ("fp16", 1), ("fp16", 3)]
)
def test_low_precision_trains_with_float32_weights(plain, tmp_path, precision, stage):
    recipe = {"runtime.precision": precision, "runtime.zero_stage": stage, "runtime.clip": 100.0}
    codes, log = run(tmp_path, recipe=recipe)
    assert codes == [EXIT_OK], log
    assert all(weight.dtype == torch.float32 for weight in weights(tmp_path).values())
    assert 1e-6 < max_difference(weights(tmp_path), weights(plain)) < 0.02
    # The norm is that of the gradients, not of gradients times a loss scale.
    for ours, theirs in zip(metrics(tmp_path), metrics(plain), strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.05)


@pytest.mark.parametrize("stage", [0, 1])
def test_fp16_overflow_lowers_the_scale_and_ends_no_run(tmp_path, stage):
    """Gradients in the thousands overflow float16 at the first loss scales, of which some must go."""
    recipe = {"runtime.precision": "fp16", "runtime.zero_stage": stage, "runtime.max_nonfinite": 2}
    recipe |= {"optim.steps": 16, "optim.warmup": 0}
    codes, log = run(tmp_path, recipe=recipe, loss_factor=1e3)
    assert codes == [EXIT_OK], log
    records = metrics(tmp_path)
    assert 2 < records[-1]["skipped"] < 14, "some steps overflow, more than max_nonfinite of them, then none"
    assert records[-1]["loss"] < records[0]["loss"]
