"""The comparison of an ablation's runs: what is drawn from which files."""

import json

import pytest

from fiber_cli.config.grid import Grid, Variant
from fiber_cli.errors import UserError
from fiber_cli.training.ablation import (
    RunResult,
    VariantResults,
    as_markdown,
    as_text,
    comparison,
    last_steps,
    picture,
    read_run,
    table,
)

SUMMARY = {
    "steps": 10,
    "seconds": 25.0,
    "metrics": {"itc/ir@1": 50.0, "match/threshold": 0.1},
    "parameters": {"image": 7, "fusion (image side)": 2, "fusion (text side)": 3, "total": 12},
}


def result(**percentages: float) -> RunResult:
    metrics = {f"m/{name}": value for name, value in percentages.items()}
    return RunResult(metrics, SUMMARY["parameters"], 0.5)


@pytest.fixture
def results():
    first = VariantResults(Variant("plain"), {0: result(a=80.0, b=10.0), 1: result(a=84.0, b=10.0)})
    other = VariantResults(
        Variant("no | gates", ("model.fusion_gate=false",), "gates", paper="lower"), {0: result(a=79.0)}
    )
    missing = VariantResults(Variant("later", (), "gates"), {})
    return [first, other, missing]


GRID = Grid(("m/a", "m/b"), (Variant("x"), Variant("y")), (0, 1))


def test_a_run_is_read_before_it_has_ended(tmp_path):
    evaluation = tmp_path / "eval"
    assert read_run(tmp_path, []) is None
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    assert read_run(tmp_path, [evaluation]) is None
    evaluation.mkdir()
    (evaluation / "results.json").write_text('{"metr')
    assert read_run(tmp_path, [evaluation]) is None
    (evaluation / "results.json").write_text('{"metrics": {"itm/ir@1": 30.0, "itc/ir@1": 60.0}}')
    run = read_run(tmp_path, [evaluation])
    assert run is not None
    assert run.metrics == {"itc/ir@1": 60.0, "itm/ir@1": 30.0, "match/threshold": 0.1}
    assert (run.fusion_parameters, run.step_seconds) == (5, 2.5)


def test_the_last_steps_are_those_of_a_run_before_it_learned(tmp_path):
    """Of ten steps the last two; a step that was logged with more, as a validation, is not mixed in."""
    lines = []
    for step in range(1, 11):
        accuracy = 0.5 if step == 9 else 1.0
        record = {"step": step, "lr": 1.0, "itm_loss": float(step), "itm_accuracy": accuracy, "bad_loss": None}
        lines.append(json.dumps(record))
    lines.append(json.dumps({"step": 10, "itc/ir@1": 3.0}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert last_steps(tmp_path / "metrics.jsonl", 10) == {"itm_loss": 9.5, "itm_accuracy": 0.75}
    assert last_steps(tmp_path / "metrics.jsonl", 11) == {"itm_loss": 10.0, "itm_accuracy": 1.0}
    assert last_steps(tmp_path / "absent", 10) == {}
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    run = read_run(tmp_path, [])
    assert run is not None
    assert run.metrics == {"itc/ir@1": 50.0, "match/threshold": 0.1, "itm_loss": 9.5, "itm_accuracy": 0.75}


def test_losses_are_rounded_as_percentages():
    loss = RunResult({"itm_loss": 0.1234, "itc/ir@1": 12.34}, {}, 0.5)
    lower = RunResult({"itm_loss": 0.1204, "itc/ir@1": 12.0}, {}, 0.5)
    grid = Grid(("itm_loss", "itc/ir@1"), (Variant("x"), Variant("y")))
    rows = table(grid, [VariantResults(Variant("x"), {0: loss}), VariantResults(Variant("y"), {0: lower})])
    assert rows[1][1:3] == ["0.123", "12.3"]
    assert rows[2][1:3] == ["0.120 (-0.003)", "12.0 (-0.3)"]


@pytest.mark.parametrize("content", ["[1]", "{}", '{"metrics": 1, "parameters": {}}', '{"metrics": {"a": "b"}}'])
def test_a_file_of_somebody_else_is_taken(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"summary\.json is not what fiber writes there"):
        read_run(tmp_path, [])


def test_a_figure_that_is_not_there_is_a_zero(results):
    rows = table(GRID, results)
    assert rows == [
        ["", "m/a", "m/b", "fusion parameters", "s a step", "the paper"],
        ["plain", "82.0 ± 2.0", "10.0 ± 0.0", "5", "0.50", ""],
        ["gates"],
        ["no | gates", "79.0 (-1.0)", "–", "5", "0.50", "lower"],
        ["later", "–", "–", "–", "–", ""],
    ]
    compared = comparison(GRID, results)
    assert compared["variants"][1]["mean"] == {"m/a": {"mean": 79.0, "std": 0.0, "seeds": 1}, "m/b": None}
    assert compared["variants"][0]["runs"]["1"]["metrics"] == {"m/a": 84.0, "m/b": 10.0}
    assert json.loads(json.dumps(compared)) == compared


def test_a_name_breaks_the_table(results):
    rows = table(GRID, results)
    text = as_text(rows).splitlines()
    assert [line.index("82.0") if "82.0" in line else line.index("79.0") for line in (text[1], text[3])] == [12, 12]
    assert text[2] == "gates"
    markdown = as_markdown(rows).splitlines()
    assert markdown[1] == "|---|---|---|---|---|---|"
    assert markdown[3] == "| **gates** |  |  |  |  |  |"
    assert markdown[4].startswith("| no \\| gates | 79.0 (-1.0) | – |")


def test_a_picture_is_none(results):
    assert picture(GRID, results).startswith(b"\x89PNG")


def test_seeds_that_one_alone_has_make_a_difference():
    first = VariantResults(Variant("plain"), {0: result(a=80.0), 1: result(a=90.0)})
    other = VariantResults(Variant("other"), {1: result(a=85.0), 2: result(a=10.0)})
    assert other.difference("m/a", first) == -5.0
    assert other.difference("m/b", first) is None
    assert VariantResults(Variant("third"), {2: result(a=1.0)}).difference("m/a", first) is None


def test_variants_without_a_group_have_an_empty_heading():
    first = VariantResults(Variant("plain", (), "gates"), {0: result(a=80.0)})
    other = VariantResults(Variant("other"), {0: result(a=79.0)})
    rows = table(GRID, [first, other])
    assert [row for row in rows if len(row) == 1] == [["gates"], ["others"]]
    assert "****" not in as_markdown(rows)
