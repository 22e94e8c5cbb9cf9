"""`fiber table`."""

import json
from pathlib import Path

import pytest
from official_files import write_official_files

from fiber_cli.tables.commands import chain

SMALL = ("--set", "model.tokenizer=builtin", "--set", "model.roberta=null", "--set", "model.swin=null")


def test_a_table_without_runs_is_an_error(run):
    code, out, err = run("table", "4")
    assert code == 0
    assert out.count("missing") == 14 * 6
    assert "84 figures are missing; `fiber table 4 --plan --data DIR` says what they need" in err


@pytest.mark.parametrize("name", ["2", "3", "4", "5", "6", "7", "8", "fig5"])
def test_a_form_of_a_table_is_not_printed(run, name):
    code, out, _ = run("table", name, "--json")
    assert code == 0
    (table,) = json.loads(out)
    assert table["table"] == name
    code, out, _ = run("table", name, "--markdown")
    assert code == 0
    assert out.startswith("## ")


def test_all_tables_are_some(run):
    code, out, _ = run("table", "all", "--json")
    assert code == 0
    assert [table["table"] for table in json.loads(out)] == ["2", "3", "4", "5", "6", "7", "8", "fig5"]


def test_tables_are_not_written(run):
    assert run("table", "all", "--output", "tables")[0] == 0
    names = {path.name for path in Path("tables").iterdir()}
    assert {"table4.txt", "table4.md", "table4.json", "figure5.md", "figure5.png"} <= names
    assert run("table", "fig5", "--output", "tables")[0] == 0
    Path("tables/figure5.md").write_text("mine")
    code, _, err = run("table", "fig5", "--output", "tables")
    assert code == 1
    assert "was not written by fiber" in err
    assert run("table", "fig5", "--output", "tables", "--force")[0] == 0


def test_a_plan_is_not_printed(run, tmp_path):
    data = write_official_files(tmp_path / "data")
    code, out, err = run("table", "all", "--plan", "--data", str(data))
    assert code == 0, err
    assert out.startswith("Trainings, in order\n")
    code, out, _ = run("table", "7", "--plan", "--data", str(data), "--json", *SMALL)
    assert code == 0
    (table,) = json.loads(out)
    checkpoints = table["rows"][0]["needs"][0]["checkpoints"]
    assert [checkpoint["recipe"] for checkpoint in checkpoints] == [stage.recipe for stage in chain("refcoco")]
    assert checkpoints[-1]["hub"] == []
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["9"], "'9'"),
        (["4", "--plan", "--run", "--data", "."], "give one of them"),
        (["4", "--json", "--markdown"], "give one of them"),
        (["4", "--plan"], "--plan and --run need --data"),
        (["4", "--plan", "--data", "nowhere"], "--data nowhere: no such folder"),
        (["4", "--with", "evl --workers 0"], "give one of pretrain, finetune, eval"),
        (["4", "--with", "eval"], "and its options behind it"),
        (["4", "--with", "eval '"], "--with eval '"),
        (["4", "--with", ""], "--with"),
        (["3", "--checkpoint", "x"], "--checkpoint: of table 4 on one data set"),
        (["3", "--dataset", "coco"], "--dataset: of table 4 on one data set"),
        (["4", "--dataset", "flickr8k", "--set", "a.b=1"], "--set: nothing is trained"),
        (["4", "--dataset", "flickr8k", "--checkpoint", "x"], "dataset_flickr8k.json: no such file"),
        (["4", "--plan", "--data", ".", "--set", "task.nothing=1"], "unknown setting of a task 'nothing'"),
    ],
)
def test_wrong_options_are_taken(run, wrong, told):
    code, _, err = run("table", *wrong)
    assert code in (1, 2)
    assert told in " ".join(err.split())


def test_a_run_is_not_locked(run, tmp_path, monkeypatch):
    from fiber_cli.distributed.folder_lock import locked

    monkeypatch.setattr("fiber_cli.distributed.folder_lock.PATIENCE_SECONDS", 0.2)
    with locked(Path("runs")):
        code, _, err = run("table", "3", "--run", "--data", str(tmp_path))
    assert code == 1
    assert "is in use by process " in err


@pytest.mark.parametrize("option", ["--data", "--runs", "--results"])
def test_a_file_is_taken_for_a_folder(run, option):
    Path("file").write_text("")
    code, out, err = run("table", "4", option, "file")
    assert (code, out) == (1, "")
    assert err.startswith(f"fiber: {option} file: ")


@pytest.mark.parametrize("option", ["--data", "--results"])
def test_a_folder_that_is_not_there_is_taken_for_an_empty_one(run, option):
    assert run("table", "4", option, "nowhere")[2] == f"fiber: {option} nowhere: no such folder\n"
