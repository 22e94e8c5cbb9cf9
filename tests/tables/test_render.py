"""Tables on the screen, in Markdown and as values."""

import json

from tables.conftest import finish, write_results

from fiber_cli.tables.departures import Departures
from fiber_cli.tables.paper import TABLES
from fiber_cli.tables.picture import few_shot_curve
from fiber_cli.tables.plan import Planner
from fiber_cli.tables.render import MeasuredTable, PlannedTable, row_state, stages_as_text
from fiber_cli.tables.results import Results


def measured(runs, name: str) -> MeasuredTable:
    """A table of what is below the runs."""
    table = TABLES[name]
    return MeasuredTable(table, Results(runs).figure, Departures(runs).of(table))


def test_missing_figures_are_numbers(runs):
    table = measured(runs, "4")
    text = table.as_text()
    assert text.count("missing") == 14 * 6
    assert "81.44" in text
    assert " 0.00" not in text
    assert table.missing == 14 * 6
    for row in table.as_json()["rows"]:
        assert {figure["ours"] for figure in row["figures"]} == {None}
        assert {figure["difference"] for figure in row["figures"]} == {None}


def test_a_difference_is_wrong(runs):
    finish(runs / "nlvr2")
    write_results(runs / "nlvr2", "nlvr2", "dev", "nlvr2", {"nlvr2/accuracy": 80.0})
    table = measured(runs, "3")
    figure = table.as_json()["rows"][0]["figures"][2]
    assert (figure["ours"], figure["paper"], round(figure["difference"], 2)) == (80.0, 84.59, -4.59)
    ours, paper, difference = (line.split() for line in table.as_text().splitlines()[2:5])
    assert ours[:5] == ["FIBER-B", "ours", "missing", "missing", "80.00"]
    assert paper[:4] == ["paper", "78.55", "78.46", "84.59"]
    assert difference[:4] == ["difference", "–", "–", "-4.59"]


def test_a_part_of_the_data_is_compared(runs):
    finish(runs / "fine")
    write_results(runs / "fine", "odinw13-1-of-13", "test", "detection", {"detection/ap": 3.0})
    table = measured(runs, "8")
    figure = table.as_json()["rows"][0]["figures"][-1]
    assert (figure["ours"], figure["difference"], figure["partial"]) == (3.0, None, "1 of 13 sets")
    assert "3.00*" in table.as_text()
    assert "* zero-shot, ODinW-13 AP: over 1 of 13 sets, so not compared" in table.as_text()


def test_a_row_without_numbers_has_lines_of_dashes(runs):
    text = measured(runs, "8").as_text()
    assert (text.count(" ours "), text.count(" paper "), text.count(" difference ")) == (4, 2, 2)


def test_where_to_send_predictions_is_not_told(runs):
    finish(runs / "caption_mle")
    file = write_results(runs / "caption_mle", "nocaps", "test", "caption", {})
    (file.parent / "captions.json").write_text("[]")
    text = measured(runs, "5").as_text()
    assert text.count("to send") == 2
    assert f"send {file.parent / 'captions.json'} to https://eval.ai" in text


def test_markdown_is_no_table(runs):
    lines = measured(runs, "7").as_markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 2 * 3
    assert {line.count("|") for line in rows} == {11}
    assert lines[0] == "## Table 7: referring expressions, accuracy (%)"


def test_a_run_by_other_settings_is_not_told(runs):
    finish(runs / "nlvr2")
    (runs / "nlvr2" / "recipe.yaml").write_text(
        own_recipe("nlvr2", "optim.lr=1", "log.every=7", "data.root=/elsewhere")
    )
    notes = measured(runs, "3").notes
    assert [note for note in notes if "other settings" in note] == [
        f"{runs / 'nlvr2'} was made with other settings than the recipe nlvr2 has: optim.lr"
    ]


def own_recipe(name: str, *settings: str) -> str:
    """What a run of a recipe writes of itself."""
    from fiber_cli.config.resolve import resolve_recipe

    return resolve_recipe(name, settings).to_yaml()


def test_a_run_by_the_recipe_is_told(runs):
    finish(runs / "nlvr2")
    finish(runs / "4m_top")
    (runs / "nlvr2" / "recipe.yaml").write_text(own_recipe("nlvr2", "data.root=/elsewhere"))
    # What its header's command puts over the recipe is the run's own.
    (runs / "4m_top" / "recipe.yaml").write_text(own_recipe("4m", "data.root=/elsewhere", "model.fusion=top"))
    assert measured(runs, "3").notes == list(TABLES["3"].notes)
    (runs / "nlvr2" / "recipe.yaml").write_text("{")
    assert any("cannot be read" in note for note in measured(runs, "3").notes)
    (runs / "4m_top" / "recipe.yaml").write_text(own_recipe("4m"))
    assert any("4m_top was made with other settings" in note for note in measured(runs, "3").notes)


def test_a_curve_of_nothing_is_no_picture(runs):
    assert few_shot_curve(measured(runs, "fig5")).startswith(b"\x89PNG")


def test_a_plan_leaves_things_out(runs, data):
    (data / "nlvr2" / "test1.json").unlink()
    finish(runs / "4m")
    planner = Planner(Results(runs), data)
    table = PlannedTable(TABLES["3"], planner)
    text = table.as_text()
    assert "nlvr2/test1.json" in text
    assert f"{runs}/4m (finished), {runs}/nlvr2 (missing)" in text
    assert f"command: fiber eval nlvr2 --split dev --root {data} --checkpoint {runs}/nlvr2" in text
    assert "scored by a test server: https://eval.ai" in text
    assert row_state(table.rows[0]).endswith("1 missing")
    stages = stages_as_text([table])
    assert "4m: finished" in stages
    assert "nlvr2, from 4m: missing; " in stages
    assert "nlvr2/images/train" in stages
    assert "roberta-base (model.tokenizer)" in stages
    content = json.loads(json.dumps(table.as_json()))
    need = content["rows"][0]["needs"][3]
    assert need["state"] == "missing"
    assert "nlvr2/test1.json" in need["missing"][0]
    assert [checkpoint["state"] for checkpoint in need["checkpoints"]] == ["finished", "missing"]
    assert need["checkpoints"][1]["data"]["there"]
