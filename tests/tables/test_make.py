"""What is run for a table, in which order, and what is not run again."""

import json
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from tables.conftest import finish

from fiber_cli.config.resolve import shipped_recipes
from fiber_cli.tables import needs, plan
from fiber_cli.tables.commands import stages
from fiber_cli.tables.make import Maker
from fiber_cli.tables.paper import TABLES
from fiber_cli.tables.plan import Planner, StageNeed
from fiber_cli.tables.render import PlannedTable
from fiber_cli.tables.results import Results


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """All programs are installed, wherever the tests run."""
    for module in (needs, plan):
        monkeypatch.setattr(module, "missing_programs", lambda metric: None)


def make(runs, data, *names: str, settings=(), extra=None, nproc: int = 1) -> int:
    """`fiber table NAMES --run`."""
    maker = Maker(Planner(Results(runs), data, settings), nproc, extra or {})
    return maker.make([TABLES[name] for name in names])


def shown(commands: list[list[str]]) -> list[str]:
    """Verb, and the run that is made or measured."""
    found = []
    for command in commands:
        option = dict(pairwise(command))
        run = option.get("--output") or option.get("--itm-checkpoint") or option["--checkpoint"]
        found.append(f"{command[0]} {Path(run).name}")
    return found


def test_a_table_is_made_in_another_order(runs, data, launched):
    assert make(runs, data, "3") == 0
    assert shown(launched.commands) == [
        "pretrain 4m",
        "vqa-answers answers.json",
        "finetune vqav2",
        "eval vqav2",
        "eval vqav2",
        "finetune nlvr2",
        "eval nlvr2",
        "eval nlvr2",
        "finetune coco_itc",
        "finetune flickr30k_itc",
        "eval flickr30k_itc",
        "eval coco_itc",
        "finetune vqav2_generated",
        "eval vqav2_generated",
        "eval vqav2_generated",
        "pretrain 4m_top",
        "finetune vqav2_top",
        "eval vqav2_top",
        "eval vqav2_top",
        "finetune nlvr2_top",
        "eval nlvr2_top",
        "eval nlvr2_top",
    ]
    on_top = launched.commands[15]
    assert "model.fusion=top" in on_top
    assert dict(pairwise(launched.commands[16]))["--init-from"] == str(runs / "4m_top")
    first = launched.commands[0]
    assert first[:3] == ["pretrain", "coarse", "--recipe"]
    assert f"data.root={data}" in first
    start = dict(pairwise(launched.commands[2]))
    assert start["--init-from"] == str(runs / "4m")
    assert f"task.answers={runs}/prepared/vqa/answers.json" in launched.commands[2]


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_is_not_whole_after_it_was_made(runs, data, launched, name):
    assert make(runs, data, name) == 0
    table = TABLES[name]
    results = Results(runs)
    for row in table.rows:
        for cell in row.cells:
            if cell.sources[0].recipe not in shipped_recipes():
                continue
            figure = results.figure(cell)
            assert figure.value is not None or (cell.server and figure.file), (row.label, cell.column)
    done = len(launched.commands)
    assert make(runs, data, name) == 0
    assert len(launched.commands) == done


def test_one_pass_over_all_pairs_is_two(runs, data, launched):
    make(runs, data, "4")
    measured = [line for line in shown(launched.commands) if line.startswith(("eval", "rerank"))]
    assert measured == [
        *("eval flickr30k_itc", "eval flickr30k_itm", "rerank flickr30k_itm"),
        *("eval coco_itc", "eval coco_itm", "rerank coco_itm"),
    ]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5, 9])
def test_what_was_made_before_a_stop_is_made_again(runs, data, launched, capsys, stop_at):
    launched.stop_at = stop_at
    assert make(runs, data, "3") == 75
    assert "the same command again goes on from here" in capsys.readouterr().err
    assert make(runs, data, "3") == 0
    whole = shown(launched.commands)
    assert whole[stop_at - 1] == whole[stop_at]
    del whole[stop_at]
    assert len(whole) == len(set(whole)) + 5  # two evaluations of all that answer and judge


def test_a_signal_at_the_end_of_a_command_is_lost(runs, data, launched):
    launched.asked_at = 2
    assert make(runs, data, "3") == 75
    assert len(launched.commands) == 2
    assert make(runs, data, "3") == 0
    assert len(set(shown(launched.commands))) == len(shown(launched.commands)) - 5


def test_a_begun_training_starts_again(runs, data, launched):
    finish(runs / "4m")
    finish(runs / "nlvr2")
    (runs / "nlvr2" / "summary.json").unlink()
    make(runs, data, "3")
    command = next(command for command in launched.commands if str(runs / "nlvr2") in command)
    assert command[0] == "finetune"
    assert "--resume" in command
    assert "--init-from" not in command


def test_a_folder_of_somebody_elses_is_trained_in(runs, data, launched, capsys):
    (runs / "4m").mkdir()
    (runs / "4m" / "recipe.yaml").write_text("# mine\n")
    assert make(runs, data, "2", "3") == 1
    assert "4m holds no run that can go on" in capsys.readouterr().err
    assert {"finetune coco_no_fuse", "eval coco_scratch"} <= set(shown(launched.commands))
    assert not any(line.endswith(" nlvr2") for line in shown(launched.commands))


def test_a_failure_ends_what_does_not_need_it(runs, data, launched, capsys):
    launched.fail = "vqa-answers"
    assert make(runs, data, "3") == 1
    told = capsys.readouterr().err
    assert told.count("table: failed: fiber vqa-answers") == 1
    made = shown(launched.commands)
    assert made.count("vqa-answers answers.json") == 1
    assert "finetune vqav2" not in made
    assert "eval nlvr2" in made


def test_rows_without_data_are_tried(runs, data, launched, capsys):
    shutil.rmtree(data / "nlvr2")
    assert make(runs, data, "3") == 0
    assert "NLVR2 dev: left, " in capsys.readouterr().err
    assert not any("nlvr2" in word for word in shown(launched.commands))


def test_figures_of_a_converted_checkpoint_are_lost(runs, data, launched):
    """Which holds its own files alone."""
    (runs / "fine").mkdir()
    (runs / "fine" / "config.json").write_text("{}")
    make(runs, data, "6")
    (val, test, *_) = launched.commands
    assert val[val.index("--output") + 1] == str(runs / "eval" / "eval-flickr30k_entities-val-fine")
    assert test[test.index("--output") + 1] == str(runs / "eval" / "eval-flickr30k_entities-test-fine")


def test_a_path_below_the_data_is_taken_for_one_here(data, launched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(Path("runs"), data, "3")
    command = next(command for command in launched.commands if command[:2] == ["finetune", "vqa"])
    assert f"task.answers={tmp_path}/runs/prepared/vqa/answers.json" in command


def test_settings_are_put_over_recipes_that_lack_them(runs, data, launched):
    make(runs, data, "6", "7", settings=["task.channels=32", "model.preset=tiny"])
    for command in launched.commands:
        is_detector = command[0] in ("pretrain", "finetune") and "coarse" not in command
        assert ("task.channels=32" in command) == is_detector
        assert ("model.preset=tiny" in command) == (command[0] in ("pretrain", "finetune"))


def test_options_reach_other_commands(runs, data, launched):
    make(runs, data, "3", extra={"vqa-answers": ["--minimum", "1"], "eval": ["--workers", "0"]})
    for command in launched.commands:
        assert (command[-2:] == ["--minimum", "1"]) == (command[0] == "vqa-answers")
        assert (command[-2:] == ["--workers", "0"]) == (command[0] == "eval")


def test_what_the_data_has_already_is_made(runs, data, launched):
    (data / "vqa" / "answers.json").write_text("[]")
    make(runs, data, "3")
    assert not any(command[0] == "vqa-answers" for command in launched.commands)
    assert not any("task.answers" in word for command in launched.commands for word in command)


def test_few_shots_are_asked_for_at_once(runs, data, launched):
    finish(runs / "fine")
    finish(runs / "4m")
    make(runs, data, "fig5", nproc=2)
    tunings = [command for command in launched.commands if command[0] == "odinw"]
    assert [command[command.index("--shots") + 1] for command in tunings] == ["1", "3", "5", "10", "0"]
    assert all(command[-2:] == ["--nproc", "2"] for command in tunings)


def test_new_weights_keep_old_figures(runs, data, launched):
    make(runs, data, "6")
    finish(runs / "fine", step=9)
    done = len(launched.commands)

    def evaluated() -> list[str]:
        return shown(launched.commands[done:])

    make(runs, data, "6")
    assert evaluated()[:2] == ["eval fine", "eval fine"]
    assert json.loads((runs / "fine" / "summary.json").read_text())


@pytest.mark.parametrize("name", ["3", "5", "8", "fig5"])
def test_the_plan_says_other_commands_than_are_run(runs, data, launched, name):
    """The plan's can be copied: with the folders of these runs, and with the settings."""
    settings = ["log.every=7"]
    planned = PlannedTable(TABLES[name], Planner(Results(runs), data, settings)).as_json()
    said = set()
    for row in planned["rows"]:
        for need in row["needs"]:
            for checkpoint in need["checkpoints"]:
                said.update([*checkpoint["preparation"], checkpoint["command"]])
            said.add(need["command"])
    make(runs, data, name, settings=settings)
    for command in launched.commands:
        if command[0] == "odinw":
            assert command[-2:] == ["--nproc", "1"]
            del command[-2:]
        assert shlex.join(["fiber", *command]) in said


def test_what_is_made_before_is_planned_once_it_is_there(runs, data, launched):
    def stage(name: str) -> StageNeed:
        planner = Planner(Results(runs), data)
        return planner.stage_need(stages()[name])

    assert [each.command.verb for each in stage("vqav2").unprepared] == ["vqa-answers"]
    make(runs, data, "3")
    assert stage("vqav2").unprepared == []
    assert stage("nlvr2").prepared == ()


def test_runs_below_a_folder_data_are_written_among_the_data(data, launched):
    """As headers write the folder of the data sets."""
    planner = Planner(Results(Path("/data/runs")), data)
    (prepared,) = planner.stage_need(stages()["vqav2"]).prepared
    assert planner.preparation_words(prepared)[-2:] == ["--output", "/data/runs/prepared/vqa/answers.json"]


def test_few_shots_lie_elsewhere_than_the_other_runs(runs, data, launched):
    finish(runs / "fine_no_coarse")
    finish(runs / "fine")
    make(runs, data, "8")
    folders = {dict(pairwise(command))["--output"] for command in launched.commands if command[0] == "odinw"}
    assert folders == {str(runs / "odinw13"), str(runs / "odinw13_no_coarse")}
