"""`kind: yolo` in a recipe."""

from label_folders import NAMES, write_yolo

from fiber_cli.config.resolve import resolve_source
from fiber_cli.data.source import CategorySource
from fiber_cli.data.sources import open_source


def test_an_entry_opens_a_split_with_names_in_their_order(tmp_path):
    write_yolo(tmp_path)
    source = open_source(resolve_source("{kind: yolo, data: data.yaml, split: val}", str(tmp_path)))
    assert isinstance(source, CategorySource)
    assert list(source.names) == list(NAMES)
    assert source.name == f"{tmp_path.name}-val"
    assert source.regions(0).boxes.tolist() == [[11, 13, 28, 32], [1, 1, 14, 8]]
    assert [source.key(i) for i in range(len(source))] == ["images/val/d.png", "images/val/e.png"]


def test_shots_and_copies_are_of_any_form(tmp_path):
    write_yolo(tmp_path)
    source = open_source(resolve_source("{kind: yolo, data: data.yaml, shots: 1, copies: 2}", str(tmp_path)))
    assert len(source) % 2 == 0
    assert 2 <= len(source) <= 4
