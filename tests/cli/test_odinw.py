"""`fiber odinw`: what is run, in which order, and what is not run again."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from fiber_cli.cli import few_shot
from fiber_cli.distributed.folder_lock import locked
from fiber_cli.evaluation.odinw13 import SETS

SET = {each.name: each for each in SETS}
TASK = ("--root", "data", "--init-from", "fine", "--output", "out")


@pytest.fixture
def data(tmp_path):
    """Two sets with two draws of one shot; everything empty."""
    for name in ("Raccoon", "pistols"):
        each = SET[name]
        files = [each.annotations(split) for split in ("train", "valid", "test")]
        files += [each.few_shot_annotations(1, seed) for seed in (3, 30)]
        for file in files:
            path = tmp_path / "data/odinw" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path / "data"


@pytest.fixture
def launched(calls, monkeypatch):
    """Commands in place of which their results are written; `fail_at` ends the command of that number."""
    state = SimpleNamespace(commands=[], fail_at=None, code=75)

    def launch(nproc, argv, *, name="", asked):
        state.commands.append(argv)
        if len(state.commands) == state.fail_at:
            return state.code
        output = Path(argv[argv.index("--output") + 1])
        output.mkdir(parents=True, exist_ok=True)
        if argv[0] == "finetune":
            (output / "summary.json").write_text("{}")
        else:
            ap = {"Raccoon": 60.0, "pistols": 20.0}[output.parent.parent.name]
            (output / "results.json").write_text(json.dumps({"metrics": {"detection/ap": ap}}))
        return 0

    monkeypatch.setitem(sys.modules, "fiber_cli.distributed.launch", SimpleNamespace(launch=launch))
    return state


def outputs(commands: list[list[str]]) -> list[str]:
    return [f"{argv[0]} {argv[argv.index('--output') + 1]}" for argv in commands]


def test_sets_shots_or_seeds_are_left_out(run, data, launched):
    code, out, err = run("odinw", *TASK, "--shots", "0,1", "--seeds", "3,30", "model.preset=tiny")
    assert code == 0, err
    runs = [f"{name}/full" for name in ("pistols", "Raccoon")]
    runs += [f"{name}/shot1-seed{seed}" for seed in (3, 30) for name in ("pistols", "Raccoon")]
    wanted = []
    for each in runs:
        wanted += [f"finetune out/{each}", f"eval out/{each}/test"]
    assert outputs(launched.commands) == wanted
    assert "the mean is over 2 of the 13 sets, without AerialMaritimeDrone" in err
    assert out.splitlines()[3].split() == ["mean", "of", "2", "40.0", "40.0", "±", "0.0"]
    summary = json.loads(Path("out/odinw.json").read_text())
    assert (summary["mean"]["full"]["ap"], summary["mean"]["1"]["seeds"]) == (40.0, 2)
    assert (summary["prompts"], summary["overrides"]) == ("names", ["model.preset=tiny"])


def test_a_later_call_for_other_shots_or_sets_leaves_only_its_own_results(run, data, launched):
    assert run("odinw", *TASK, "--shots", "1", "--seeds", "3,30")[0] == 0
    code, out, err = run("odinw", *TASK, "--shots", "0", "--sets", "pistols")
    assert code == 0, err
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["AP", "full", "1", "shot"],
        ["pistols", "20.0", "20.0", "±", "0.0"],
        ["Raccoon", "-", "60.0", "±", "0.0"],
        ["mean", "of", "2", "-", "40.0", "±", "0.0"],
    ]
    summary = json.loads(Path("out/odinw.json").read_text())
    assert [(each["set_name"], each["shots"], each["seed"]) for each in summary["runs"]] == [
        ("pistols", 0, None),
        ("pistols", 1, 3),
        ("Raccoon", 1, 3),
        ("pistols", 1, 30),
        ("Raccoon", 1, 30),
    ]
    assert set(summary["mean"]) == {"1"}  # of all data there is one set alone
    assert len(summary["missing_sets"]) == 11
    # What is no longer there is no result.
    shutil.rmtree("out/Raccoon")
    assert run("odinw", *TASK, "--shots", "0", "--sets", "pistols")[0] == 0
    assert {each["set_name"] for each in json.loads(Path("out/odinw.json").read_text())["runs"]} == {"pistols"}


def test_a_run_has_other_data_than_published(run, data, launched):
    assert run("odinw", *TASK, "--shots", "1", "--seeds", "3", "--sets", "pistols", "--published-prompts")[0] == 0
    train, test = launched.commands
    assert train[:4] == ["finetune", "detection", "--recipe", "odinw_few_shot"]
    settings = dict(argument.split("=", 1) for argument in train if argument.startswith("data."))
    (source,) = yaml.safe_load(settings["data.train"])
    folder = str(data / "odinw/pistols/export")
    assert source["json"] == f"{folder}/fewshot_train_shot1_seed3.json"
    assert (source["images"], source["copies"], source["kind"]) == (folder, 8, "coco")
    (source,) = yaml.safe_load(settings["data.val"])
    assert source["json"] == f"{folder}/val_annotations_without_background.json"
    assert "copies" not in source
    (entry,) = json.loads(Path(test[1]).read_text())
    assert entry["json"] == f"{folder}/test_annotations_without_background.json"


def test_what_is_finished_is_run_again(run, data, launched):
    launched.fail_at = 3
    code, _, err = run("odinw", *TASK, "--shots", "0")
    assert code == 75
    assert "the same command again goes on from here" in err
    done = len(launched.commands)
    Path("out/Raccoon/full").mkdir(parents=True)
    Path("out/Raccoon/full/metrics.jsonl").write_text('{"step": 1}\n')
    launched.fail_at = None
    assert run("odinw", *TASK, "--shots", "0")[0] == 0
    again = launched.commands[done:]
    assert outputs(again) == ["finetune out/Raccoon/full", "eval out/Raccoon/full/test"]
    assert "--resume" in again[0]
    assert "--init-from" not in again[0]
    assert run("odinw", *TASK, "--shots", "0")[0] == 0
    assert len(launched.commands) == done + 2
    # A kill while results were written leaves the training.
    Path("out/Raccoon/full/test/results.json").write_text('{"metr')
    assert run("odinw", *TASK, "--shots", "0")[0] == 0
    assert outputs(launched.commands[done + 2 :]) == ["eval out/Raccoon/full/test"]


def test_runs_of_other_settings_are_mixed(run, data, launched):
    assert run("odinw", *TASK, "--shots", "0")[0] == 0
    code, _, err = run("odinw", *TASK, "--shots", "0", "--published-prompts")
    assert code == 1
    assert "prompts: 'names' there, 'published' now" in err
    assert "give another --output" in err


def test_a_missing_draw_is_found_out_after_days(run, data, launched):
    code, _, err = run("odinw", *TASK, "--shots", "0,3")
    assert code == 1
    assert "fewshot_train_shot3_seed3.json" in err
    assert not launched.commands


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--shots", "2"], "--shots 2: give of 0, 1, 3, 5, 10"),
        (["--sets", "Racoon"], "--sets Racoon: give of AerialMaritimeDrone"),
        (["--seeds", "x"], "--seeds x: give whole numbers"),
    ],
)
def test_wrong_options_are_taken(run, data, launched, wrong, told):
    code, _, err = run("odinw", *TASK, *wrong)
    assert code == 2
    assert told in " ".join(err.split())


def test_a_set_that_is_not_there_is_asked_for(run, data, launched):
    code, _, err = run("odinw", *TASK, "--sets", "Packages")
    assert code == 1
    assert "Packages is not there" in err


@pytest.mark.parametrize("name", ["odinw.json", "settings.json", "Raccoon/full/test.yaml"])
def test_a_users_file_is_replaced_by_all_runs(run, data, launched, name):
    file = Path("out", name)
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    code, _, err = run("odinw", *TASK, "--shots", "0")
    assert code == 1
    assert f"out/{name}" in err.splitlines()[-1]
    assert file.read_text() == "[]"
    assert name == "Raccoon/full/test.yaml" or not launched.commands


def test_a_limit_of_pixels_reaches_training_and_test():
    assert few_shot._max_pixels([]) == []
    assert few_shot._max_pixels(["optim.lr=1", "data.max_pixels=5", "data.max_pixels=7"]) == ["--max-pixels", "7"]


def test_two_of_it_write_into_one_folder(run, data, launched, monkeypatch):
    monkeypatch.setattr("fiber_cli.distributed.folder_lock.PATIENCE_SECONDS", 0.2)
    with locked(Path("out")):
        code, _, err = run("odinw", *TASK, "--shots", "0")
    assert code == 1
    assert "fiber: out is in use by process " in err
    assert not launched.commands


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b'{"init_from": 1', b"[" * 100_000])
@pytest.mark.parametrize("name", ["settings.json", "Raccoon/full/test/results.json"])
def test_damaged_files_of_it_are_a_traceback(run, data, launched, name, content):
    assert run("odinw", *TASK, "--shots", "0")[0] == 0
    done = len(launched.commands)
    Path("out", name).write_bytes(content)
    code, _, err = run("odinw", *TASK, "--shots", "0")
    if name != "settings.json" and content not in (b"[]", b"null"):  # as a kill cuts it
        assert code == 0, err
        assert len(launched.commands) == done + 1
    else:
        assert code == 1
        assert len([line for line in err.splitlines() if line.startswith(f"fiber: out/{name}")]) == 1


def test_a_folder_of_somebody_else_s_is_trained_in(run, data, launched):
    Path("out/Raccoon/full").mkdir(parents=True)
    Path("out/Raccoon/full/recipe.yaml").write_text("# mine\n")
    code, _, err = run("odinw", *TASK, "--shots", "0")
    assert code == 1
    assert "out/Raccoon/full holds no run that can go on" in err
    assert Path("out/Raccoon/full/recipe.yaml").read_text() == "# mine\n"
