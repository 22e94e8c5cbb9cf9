"""`kind: voc` in a recipe."""

import pytest
from label_folders import NAMES, write_flat_voc, write_voc

from fiber_cli.config.resolve import resolve_source
from fiber_cli.data.sources import open_source


def opened(folder, **settings):
    given = "".join(f", {name}: {value}" for name, value in settings.items())
    return open_source(resolve_source(f"{{kind: voc, folder: .{given}}}", str(folder)))


def test_first_and_last_pixels_from_1_are_edges_from_0(tmp_path):
    source = opened(write_voc(tmp_path), split="train")
    assert list(source.names) == sorted(NAMES)
    assert source.regions(0).boxes.tolist() == [[3, 4, 23, 14], [30, 20, 60, 40]]
    assert len(source) == 3


@pytest.mark.parametrize(("boxes", "first"), [("edges", [4, 5, 23, 14]), ("edges_from_1", [3, 4, 22, 13])])
def test_files_of_tools_that_write_edges_are_read_as_such(tmp_path, boxes, first):
    source = opened(write_voc(tmp_path), split="train", boxes=boxes)
    assert source.regions(0).boxes.tolist()[0] == first


def test_without_a_split_all_pictures_with_xml_are_taken(tmp_path):
    write_flat_voc(tmp_path)
    assert len(opened(tmp_path)) == 5
    assert len(opened(tmp_path / "valid")) == 2


def test_names_may_be_given_an_order(tmp_path):
    source = opened(write_voc(tmp_path), split="val", names="[red cell, platelet]")
    assert source.regions(0).labels.tolist() == [0, 0]
