"""What `fiber table` says beside its tables."""

import json

import pytest
from tables.conftest import finish

from fiber_cli.checkpoints.run_files import RESULTS
from fiber_cli.tables.overview import Asked, Shown, make_and_show, show_retrieval
from fiber_cli.tables.results import Results, result_files
from fiber_cli.tables.retrieval import Retrieval


def computed_in(precision: str, runs) -> None:
    """Have all evaluations that do not tell it yet be of a precision."""
    for file in result_files(runs):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({"precision": precision, **content}))


@pytest.fixture
def told(capsys):
    """What `fiber table 7 --run` says of precisions."""

    def run(runs, data, precision: str | None) -> list[str]:
        assert make_and_show(Asked("7", runs, data, precision=precision), Shown("text")) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "that are there" in line]

    return run


def test_figures_of_another_precision_are_taken_in_silence(runs, data, launched, told):
    assert told(runs, data, None) == []
    computed_in("fp32", runs)
    evaluations = len(Results(runs).results)
    assert evaluations > 1
    assert told(runs, data, None) == told(runs, data, "fp32") == []
    [line] = told(runs, data, "bf16")
    assert " in fp32; --precision bf16 is of what is made" in line
    next(result_files(runs)).unlink()
    launched.commands.clear()
    told(runs, data, None)
    assert len(launched.commands) == 1
    computed_in("bf16", runs)
    [line] = told(runs, data, "bf16")
    assert line.split(" in fp32")[0].split()[-1].isdigit()
    [line] = told(runs, data, "int8")
    assert " in bf16, " in line
    assert " in fp32; --precision int8" in line


def test_figures_of_one_data_set_are_taken_in_silence(runs, tmp_path, launched, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish(runs / "mine")
    retrieval = Retrieval("scenes", "val", None, runs / "mine")
    for precision, is_told in ((None, False), ("fp32", False), ("bf16", True)):
        assert show_retrieval(retrieval, Asked("4", runs, None, precision=precision), Shown("text"), is_plan=False) == 0
        assert ("figures that are there: 42 in fp32" in capsys.readouterr().err) == is_told
        computed_in("fp32", runs)
    assert (runs / "mine" / "eval").is_dir()
    assert len(list((runs / "mine" / "eval").glob(f"*/{RESULTS}"))) == 2
