"""Table 4 on one data set."""

import json

import pytest
from tables.conftest import finish

from fiber_cli.errors import UserError
from fiber_cli.tables.results import Results
from fiber_cli.tables.retrieval import Retrieval, RetrievalTable, dataset_in, split_of


@pytest.fixture
def folder(tmp_path):
    """A data set of captions with a test split."""
    write(tmp_path, "flickr8k", "train", "val", "test")
    return tmp_path


def write(folder, name: str, *splits: str) -> None:
    images = [{"filename": "1.jpg", "split": split, "sentences": [{"raw": "a"}]} for split in splits]
    (folder / f"dataset_{name}.json").write_text(json.dumps({"images": images}))


def test_the_folder_of_a_data_set_is_not_known(folder):
    assert dataset_in(folder) == "flickr8k"
    write(folder, "coco", "test")
    assert dataset_in(folder) is None


def test_a_split_is_not_there(folder, tmp_path):
    assert split_of("flickr8k", folder) == "test"
    assert split_of("scenes", None) == "val"
    write(folder, "flickr8k", "train", "val")
    assert split_of("flickr8k", folder) == "val"
    assert split_of(str(folder / "dataset_flickr8k.json"), None) == "val"
    write(folder, "flickr8k", "train")
    with pytest.raises(UserError, match="neither a test nor a val split, but train"):
        split_of("flickr8k", folder)
    with pytest.raises(UserError, match=r"dataset_flickr30k\.json: no such file"):
        split_of("flickr30k", folder)
    (folder / "dataset_flickr8k.json").write_text("[]")
    with pytest.raises(UserError, match="not in Karpathy's form"):
        split_of("flickr8k", folder)


@pytest.mark.parametrize("other", [None, "itm"])
def test_rows_are_not_all_made(folder, runs, launched, other):
    finish(runs / "mine")
    finish(runs / "itm")
    itm = None if other is None else runs / other
    table = RetrievalTable(Retrieval("flickr8k", "test", folder, runs / "mine", itm), Results(runs))
    assert len(table.table.rows) == 7
    assert table.make(2, {"eval": ["--workers", "0"]}) == 0
    assert [command[:2] for command in launched.commands] == [["eval", "flickr8k"], ["rerank", "flickr8k"]]
    assert launched.commands[0][-2:] == ["--workers", "0"]
    for row in table.table.rows:
        assert [table.figure(cell).value for cell in row.cells] == [50.0] * 6
    again = RetrievalTable(Retrieval("flickr8k", "test", folder, runs / "mine", itm), Results(runs))
    assert again.commands() == []
    by_another = RetrievalTable(Retrieval("flickr8k", "test", folder, runs / "itm"), Results(runs))
    assert len(by_another.commands()) == 2


def test_a_failure_is_passed_over(folder, runs, launched):
    finish(runs / "mine")
    launched.fail = "eval"
    table = RetrievalTable(Retrieval("flickr8k", "test", folder, runs / "mine"), Results(runs))
    assert table.make(1, {}) == 1
    assert len(launched.commands) == 1


def test_other_data_are_compared_with_the_paper(folder, runs):
    finish(runs / "mine")

    def papers(dataset: str, split: str) -> list[float | None]:
        table = RetrievalTable(Retrieval(dataset, split, folder, runs / "mine"), Results(runs))
        return [row.cells[0].paper for row in table.table.rows]

    assert papers("flickr30k", "test")[:2] == [81.44, 84.10]
    assert papers("flickr30k", "val") == [None] * 7
    assert papers("flickr8k", "test") == [None] * 7
