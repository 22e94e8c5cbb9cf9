"""Searching a folder again and again."""

import shutil
from itertools import permutations

import pytest

from fiber_cli.errors import UserError
from fiber_cli.inference.fiber import Fiber
from fiber_cli.inference.index import INDEX, build_index
from fiber_cli.inference.search import search
from fiber_cli.tasks.prediction import PredictOptions

PRECISIONS = ["fp32", "bf16", "fp16", "int8"]
QUERIES = ["a red circle", "a big blue star", "two moons"]


@pytest.fixture
def model(retriever):
    return Fiber(retriever())


def test_results_are_those_of_the_command(model, folder, capsys):
    searched = model.with_index(folder)
    assert len(searched) == 7
    assert (folder / INDEX).is_file()
    index, _ = build_index(model.loaded, folder, options=PredictOptions(32, 0))
    expected = search(model.loaded, folder, index, QUERIES, top_k=50, options=PredictOptions(32, 0)).results
    capsys.readouterr()
    of_queries = searched.search(QUERIES, 3)
    assert [result for of_query in of_queries for result in of_query] == [
        result for result in expected if result.rank <= 3
    ]
    for alone, in_list in zip(searched.search(QUERIES[1], 3), of_queries[1], strict=True):
        assert alone.path == in_list.path
        assert alone.score == pytest.approx(in_list.score, abs=1e-4)
    twice = searched.search([QUERIES[0], QUERIES[0]], 2)
    assert twice[0] == twice[1]
    assert capsys.readouterr().err == ""


def test_new_pictures_are_taken_in_and_the_index_may_lie_elsewhere(model, folder, tmp_path):
    searched = model.with_index(folder, index=tmp_path / "elsewhere.safetensors")
    assert not (folder / INDEX).exists()
    shutil.copy(folder / "0.png", folder / "more.png")
    searched.refresh()
    assert "more.png" in searched.paths
    assert len(searched.search("a red circle", 20)) == 8


def test_an_index_stays_float16_in_silence(model, folder, capsys):
    assert not model.with_index(folder).half
    assert model.with_index(folder, half=True).half
    assert capsys.readouterr().err == ""
    searched = model.with_index(folder)
    assert searched.half
    assert capsys.readouterr().err.count("its features stay float16") == 1
    searched.refresh()
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="float32 cannot be made"):
        model.with_index(folder, half=False)


def test_pictures_that_have_gone_are_told(model, folder):
    searched = model.with_index(folder)
    (folder / "3.png").unlink()
    with pytest.warns(UserWarning, match=r"3\.png is left out"):
        assert len(searched.search("a red circle", 20)) == 6


def test_a_query_that_is_cut_is_told_otherwise_than_by_a_warning(model, folder, capsys):
    searched = model.with_index(folder)
    capsys.readouterr()
    with pytest.warns(UserWarning, match="^1 query was cut at 30 tokens$") as warned:
        searched.search(["red " * 60, "a red circle"], 2)
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="^2 queries were cut at 30 tokens$"):
        searched.search(["red " * 60, "blue " * 60], 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("of_model", "of_fusion"), list(permutations(PRECISIONS, 2)))
def test_of_two_precisions_one_is_computed_in_that_of_the_other(retriever, folder, of_model, of_fusion):
    model, fusion = Fiber(retriever(), precision=of_model), Fiber(retriever(1), precision=of_fusion)
    results = model.with_index(folder).search(QUERIES[0], 7)
    mixed = model.with_index(folder, fusion=fusion).search(QUERIES[0], 7)
    assert {result.path: result.itc for result in mixed} == {result.path: result.itc for result in results}
    alone = fusion.with_index(folder).search(QUERIES[0], 7)
    assert {result.path: result.itm for result in mixed} == {result.path: result.itm for result in alone}


def test_what_cannot_be_searched_is_told(model, folder, retriever, detector):
    with pytest.raises(UserError, match="no such folder"):
        model.with_index(folder / "none")
    with pytest.raises(UserError, match="without dual-encoder features"):
        detector.with_index(folder)
    searched = model.with_index(folder)
    with pytest.raises(UserError, match="a query is empty"):
        searched.search(" ")
    alone = Fiber(retriever(itm=0.0))
    with pytest.raises(UserError, match="without an ITM head"):
        alone.with_index(folder)
    assert len(alone.with_index(folder, fusion=model).search("a red circle", 2)) == 2
