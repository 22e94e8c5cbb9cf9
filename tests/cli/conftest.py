"""The command line with stand-ins for what takes long."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fiber_cli.checkpoints.runs
import fiber_cli.checkpoints.starting  # noqa: F401 - both before what they import is replaced
from fiber_cli.cli.app import main
from fiber_cli.tasks.coarse.settings import CoarseSettings


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder → (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(argv))
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for the heavy modules that record what they are asked; `calls.code` is what `fit` returns."""
    calls = SimpleNamespace(
        latest=[], fit=[], dry_run=[], eval=[], launch=[], convert=[], convert_back=[], code=0, error=None
    )

    def fit(recipe, output, *, resume, init_from):
        calls.fit.append((recipe, output, resume, init_from))
        if calls.error:
            raise calls.error
        return calls.code

    def launch(nproc, argv):
        calls.launch.append((nproc, argv))
        return calls.code

    def run_eval(sources, **options):
        calls.eval.append((sources, options))

    def convert_file(source, output, **options):
        calls.convert.append((source, output, options))
        return output

    def convert_back(source, output, **options):
        calls.convert_back.append((source, output, options))

    def load(path, *, latest):
        calls.latest.append(latest)
        declaration = SimpleNamespace(evaluation_batch=64)
        return SimpleNamespace(name="coarse", path=Path(path), declaration=declaration, can=lambda ability: True)

    stand_ins = {
        "training.fit": {"fit": fit},
        "training.plan": {"dry_run": lambda recipe, init_from: calls.dry_run.append(recipe)},
        "distributed.launch": {"launch": launch},
        "distributed.group": {"init_from_env": lambda: None},
        "evaluation.evaluate": {"run_eval": run_eval},
        "checkpoints.loading": {"load": load},
        "checkpoints.published.file": {"convert_file": convert_file},
        "checkpoints.published.back": {"convert_back": convert_back},
        "checkpoints.directory": {"resolve": lambda path, latest=False: path},
        "checkpoints.remote": {"local": Path},
        "checkpoints.files": {"checkpoint_files": lambda path, latest=False: []},
        "checkpoints.config": {"read_config": lambda path: SimpleNamespace(task=CoarseSettings("coarse"))},
    }
    for name, functions in stand_ins.items():
        monkeypatch.setitem(sys.modules, f"fiber_cli.{name}", SimpleNamespace(**functions))
    return calls
