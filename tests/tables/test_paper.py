"""The paper's numbers."""

import re

import pytest

from fiber_cli.config.resolve import recipe_header, shipped_recipes
from fiber_cli.tables.commands import evaluation_command, stage_of, tuning_command
from fiber_cli.tables.paper import RECALLS, TABLES, WAYS
from fiber_cli.tables.rows import Evaluated, Row, Tuned

CELLS = [cell for table in TABLES.values() for row in table.rows for cell in row.cells]


def numbers_of(recipe: str) -> set[float]:
    """The paper's numbers of all figures that a recipe makes."""
    return {
        cell.paper for cell in CELLS for source in cell.sources if source.recipe == recipe and cell.paper is not None
    }


@pytest.mark.parametrize("recipe", sorted(shipped_recipes()))
def test_a_header_and_a_table_tell_different_numbers(recipe):
    told = recipe_header(shipped_recipes()[recipe])["paper"]
    if recipe == "4m" or told.startswith(("none", "no number")):
        return
    without_hours = re.sub(r"\(.*?s a step\)", "", told)
    # Not numbers of a metric's name, such as B@4 or R@1/5/10.
    plain = re.sub(r"@[\d/]+|val2017|ODinW-13|Flickr30k|\b13 sets|Table \d", "", without_hours)
    numbers = {float(number) for number in re.findall(r"\d+\.\d+", plain)}
    assert numbers <= numbers_of(recipe), recipe


def test_a_table_lacks_rows():
    assert list(TABLES) == ["2", "3", "4", "5", "6", "7", "8", "fig5"]
    assert [len(table.rows) for table in TABLES.values()] == [3, 3, 14, 4, 2, 2, 4, 1]
    assert len(WAYS) == 7
    assert [len(table.columns) for table in TABLES.values()] == [3, 8, 6, 8, 6, 8, 6, 6]


def test_retrieval_goes_one_way_only():
    for row in TABLES["4"].rows:
        assert [cell.metric.partition("/")[2] for cell in row.cells] == list(RECALLS)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.column}-{cell.sources[0]}")
def test_a_figure_has_no_command(cell):
    for source in cell.sources:
        if isinstance(source, Tuned):
            assert tuning_command(source) is not None
        elif source.recipe in shipped_recipes():
            assert stage_of(source) is not None
            assert not isinstance(source, Evaluated) or evaluation_command(source) is not None


def test_what_a_server_scores_is_compared_without_it():
    servers: dict[str, set[str]] = {}
    for cell in CELLS:
        if cell.server is not None:
            servers.setdefault(cell.server, set()).add(f"{cell.sources[0].dataset} {cell.sources[0].split}")
    assert sorted(map(sorted, servers.values())) == [["nocaps test"], ["vqav2 test", "vqav2 test-dev"]]


def test_a_number_stands_twice():
    """Of one figure, at different values."""
    known: dict[tuple[object, str], float | None] = {}
    for cell in CELLS:
        key = cell.sources[0], cell.metric
        assert known.setdefault(key, cell.paper) == cell.paper


def test_columns_of_a_row_have_one_name():
    for table in TABLES.values():
        for row in table.rows:
            assert isinstance(row, Row)
            columns = [cell.column for cell in row.cells]
            assert len(columns) == len(set(columns))
