"""Our figures from files of runs."""

import json

import pytest
from tables.conftest import finish, write_results, write_tunings

from fiber_cli.tables.paper import TABLES
from fiber_cli.tables.results import Figure, Results, run_state
from fiber_cli.tables.rows import Cell, Evaluated, Trained, Tuned

NLVR2 = Cell("NLVR2 dev", 84.59, "nlvr2/accuracy", (Evaluated("nlvr2", "nlvr2", "dev"),))
ODINW = Cell("ODinW-13", 47.0, "detection/ap", (Evaluated("fine", "odinw13", "test"),))
CIDER = Cell("CIDEr", 128.4, "caption/cider", (Evaluated("caption_mle", "coco_caption", "test"),))
VQA = TABLES["3"].rows[0].cells[0]


def test_a_figure_that_is_not_there_is_zero(runs):
    finish(runs / "nlvr2")
    assert Results(runs).figure(NLVR2) == Figure()
    assert Results(runs / "nowhere").figure(NLVR2).value is None


def test_a_figure_is_not_found(runs):
    finish(runs / "nlvr2")
    file = write_results(runs / "nlvr2", "nlvr2", "dev", "nlvr2", {"nlvr2/accuracy": 0.0})
    assert Results(runs).figure(NLVR2) == Figure(0.0, None, None, file)


def test_results_elsewhere_are_not_found(runs, tmp_path):
    run = tmp_path / "machine" / "runs" / "nlvr2"
    write_results(run, "nlvr2", "dev", "nlvr2", {"nlvr2/accuracy": 71.0})
    assert Results(runs).figure(NLVR2).value is None
    assert Results(runs, [tmp_path / "machine"]).figure(NLVR2).value == 71.0


@pytest.mark.parametrize(
    "other",
    [
        {"split": "test"},
        {"dataset": "nlvr2-mini"},
        {"limit": 10},
        {"name": "nlvr2-dev-nlvr2-step-000002-first10"},
        {"step": 1},
    ],
)
def test_a_figure_of_something_else_is_taken(runs, other):
    finish(runs / "nlvr2")
    given = {"dataset": "nlvr2", "split": "dev", **other}
    dataset, split = given.pop("dataset"), given.pop("split")
    write_results(runs / "nlvr2", dataset, split, "nlvr2", {"nlvr2/accuracy": 71.0}, **given)
    assert Results(runs).figure(NLVR2).value is None


def test_a_figure_of_another_run_is_taken(runs):
    finish(runs / "tiny_nlvr2")
    write_results(runs / "tiny_nlvr2", "nlvr2", "dev", "nlvr2", {"nlvr2/accuracy": 71.0})
    assert Results(runs).figure(NLVR2).value is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"dataset": 3}', '{"dataset": "nlvr2", "split": "dev"}'])
def test_damaged_results_end_the_table(runs, content):
    folder = runs / "nlvr2" / "eval" / "x"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(content)
    assert Results(runs).figure(NLVR2).value is None


def test_fusion_alone_is_taken_for_both(runs):
    for name in ("coco_itc", "coco_itm"):
        finish(runs / name)
    itc, itm = TABLES["4"].rows[7].cells[0], TABLES["4"].rows[8].cells[0]
    write_results(runs / "coco_itm", "coco", "test", "itm", {"itm/ir@1": 30.0})
    assert (Results(runs).figure(itc).value, Results(runs).figure(itm).value) == (None, 30.0)
    write_results(
        runs / "coco_itc", "coco", "test", "itc+itm", {"itc/ir@1": 20.0, "itm/ir@1": 31.0}, itm=runs / "coco_itm"
    )
    assert (Results(runs).figure(itc).value, Results(runs).figure(itm).value) == (20.0, 31.0)


def test_pairs_scored_by_another_run_are_taken(runs):
    for name in ("coco_itc", "coco_itm", "tiny"):
        finish(runs / name)
    both = TABLES["4"].rows[9].cells[0]
    write_results(runs / "coco_itc", "coco", "test", "itc+itm", {"itc+itm/ir@1": 20.0}, itm=runs / "tiny")
    assert Results(runs).figure(both).value is None


def test_a_part_of_the_sets_is_told_as_all(runs):
    finish(runs / "fine")
    write_results(runs / "fine", "odinw13-1-of-13", "test", "detection", {"detection/ap": 3.0}, prompts="names")
    figure = Results(runs).figure(ODINW)
    assert (figure.value, figure.partial) == (3.0, "1 of 13 sets")
    write_results(runs / "fine", "odinw13", "test", "detection", {"detection/ap": 2.0}, prompts="names")
    assert Results(runs).figure(ODINW)[:2] == (2.0, None)


def test_published_prompts_are_taken_for_names(runs):
    finish(runs / "fine")
    write_results(runs / "fine", "odinw13", "test", "detection", {"detection/ap": 2.0}, prompts="published")
    assert Results(runs).figure(ODINW).value is None


def test_a_metric_by_another_tokeniser_is_taken(runs):
    finish(runs / "caption_mle")
    write_results(runs / "caption_mle", "coco_caption", "test", "caption", {"caption/cider (plain tokens)": 99.0})
    figure = Results(runs).figure(CIDER)
    assert figure.value is None
    assert "has no caption/cider" in str(figure.note)


def test_what_is_to_be_sent_is_not_told(runs):
    finish(runs / "vqav2")
    file = write_results(runs / "vqav2", "vqav2", "test-dev", "vqa", {})
    (file.parent / "predictions.json").write_text("[]")
    figure = Results(runs).figure(VQA)
    assert (figure.value, figure.file) == (None, file.parent / "predictions.json")
    assert "https://eval.ai" in str(figure.note)
    (file.parent / "server.json").write_text('{"vqa/accuracy": 70.5}')
    assert Results(runs).figure(VQA).value == 70.5


def test_time_of_a_training_is_wrong(runs):
    finish(runs / "coco_scratch", seconds=7200.0, steps=100, ranks=8, device="V100")
    row = TABLES["2"].rows[2]
    hours, seconds = (Results(runs).figure(cell) for cell in row.cells[1:])
    assert (hours.value, seconds.value) == (16.0, 72.0)
    assert "on 8 x V100" in str(hours.note)
    assert isinstance(row.cells[1].sources[0], Trained)


@pytest.mark.parametrize("summary", ["{}", '{"seconds": 1, "steps": 0, "ranks": 1}', '{"seconds": "x"}'])
def test_a_summary_without_time_ends_the_table(runs, summary):
    finish(runs / "coco_scratch")
    (runs / "coco_scratch" / "summary.json").write_text(summary)
    assert Results(runs).figure(TABLES["2"].rows[2].cells[1]).value is None


@pytest.mark.parametrize(
    ("sets", "seeds", "partial"),
    [(13, "3,30,300", None), (2, "3,30,300", "2 of 13 sets"), (13, "3", "1 of 3 draws")],
)
def test_few_shots_of_a_part_are_told_as_all(runs, sets, seeds, partial):
    write_tunings(runs / "odinw13", "3", seeds, sets=sets)
    cell = Cell("3 shots", None, "detection/ap", (Tuned("odinw_few_shot", 3),))
    figure = Results(runs).figure(cell)
    assert (figure.value, figure.partial) == (40.0, partial)
    assert Results(runs).figure(Cell("1", None, "detection/ap", (Tuned("odinw_few_shot", 1),))).value is None


def test_how_far_a_run_is(runs):
    assert run_state(runs / "4m") == "missing"
    finish(runs / "4m")
    assert run_state(runs / "4m") == "finished"
    (runs / "4m" / "summary.json").unlink()
    assert run_state(runs / "4m") == "begun"
    (runs / "converted").mkdir()
    (runs / "converted" / "config.json").write_text(json.dumps({}))
    assert run_state(runs / "converted") == "finished"
