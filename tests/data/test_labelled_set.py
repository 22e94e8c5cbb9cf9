"""What the readers of every form of labels share."""

import pytest
from label_folders import write_picture

from fiber_cli.data.labelled_set import below, pictures_in, placed_object, split_names
from fiber_cli.data.object_columns import Use


def test_edges_a_hundredth_of_a_pixel_off_are_whole():
    placed = placed_object((2.996, 4.004, 20.02, 9.99999), (40, 60), 1)
    assert placed.box == pytest.approx((3, 4, 17.02, 6), abs=1e-12)
    assert placed.use is Use.TRAINED


def test_an_object_outside_its_picture_is_none_and_one_in_the_wrong_order_an_error():
    assert placed_object((60, 0, 70, 10), (40, 60), 0) is None
    assert placed_object((5, 5, 5, 10), (40, 60), 0) is None
    with pytest.raises(ValueError, match="before its beginning"):
        placed_object((5, 5, 4, 10), (40, 60), 0)


def test_pictures_are_found_once_although_links_lead_back_and_hidden_ones_are_none(tmp_path, capsys):
    for name in ("b/2.png", "b/1.png", "a.png", ".hidden.png", ".cache/c.png"):
        write_picture(tmp_path / name, 3)
    (tmp_path / "b" / "back").symlink_to(tmp_path)
    (tmp_path / "b" / "x.heic").write_bytes(b"")
    assert [below(path, tmp_path) for path in pictures_in(tmp_path)] == ["a.png", "b/1.png", "b/2.png"]
    assert "1 pictures of formats that are not read (.heic 1)" in capsys.readouterr().err


def test_a_split_goes_by_its_own_name_first():
    assert split_names("valid")[:2] == ("valid", "val")
    assert split_names("fold3") == ("fold3",)
