"""What `Fiber` answers with."""

import io
import json
import pickle
import sys
import types

import pytest
from PIL import Image

from fiber_cli import Detection, Detections
from fiber_cli.errors import UserError

FOUND = [Detection("a <b>cat</b>", 1, 0.75, (2.0, 3.0, 40.0, 30.0)), Detection("dog", 0, 0.5, (2.0, 3.0, 40.0, 29.5))]


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (60, 40), (200, 10, 10)).save(file)
    return file


@pytest.fixture
def found(picture):
    return Detections(FOUND, size=(60, 40), path=str(picture))


def test_a_result_is_the_list_that_it_was(found):
    assert found == FOUND
    assert isinstance(found, list)
    assert [detection.label for detection in found] == found.labels
    assert found[0].score == found.scores[0] == 0.75
    assert found.boxes.tolist() == [list(each.box) for each in FOUND]
    assert json.loads(json.dumps(found)) == [
        ["a <b>cat</b>", 1, 0.75, [2, 3, 40, 30]],
        ["dog", 0, 0.5, [2, 3, 40, 29.5]],
    ]
    assert Detections().boxes.shape == (0, 4)


def test_a_dict_holds_what_json_can(found, picture):
    described = json.loads(json.dumps(found.to_dict()))
    assert described["image"] == str(picture)
    assert (described["width"], described["height"]) == (60, 40)
    assert described["detections"][1] == {"label": "dog", "index": 0, "score": 0.5, "box": [2, 3, 40, 29.5]}


def test_a_data_frame_has_a_row_for_each(found, monkeypatch):
    class DataFrame:
        def __init__(self, rows, columns):
            self.rows, self.columns = rows, columns

    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=DataFrame))
    frame = found.to_dataframe()
    assert frame.columns == ["label", "index", "score", "x1", "y1", "x2", "y2"]
    assert frame.rows[1] == ("dog", 0, 0.5, 2, 3, 40, 29.5)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        found.to_dataframe()


def test_a_picture_is_saved_with_boxes_and_never_over_what_was_not_fibers(found, picture, tmp_path):
    drawn = found.save(tmp_path / "found.png")
    with Image.open(drawn) as image:
        assert image.size == (60 * 8, 40 * 8)
    assert found.save(drawn) == drawn  # its own
    for file, message in ((picture, "is read by this command"), ("found.txt", "is of no picture")):
        with pytest.raises(UserError, match=message):
            found.save(tmp_path / file, force=True)
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="not written by fiber"):
        found.save(tmp_path / "mine.png")
    found.save(tmp_path / "mine.png", force=True)
    assert json.loads(found.save(tmp_path / "found.json").read_text()) == found.to_dict()


def test_an_object_is_drawn_once_unless_every_box_is_wanted(found):
    assert found.draw().tobytes() != found.draw(every=True).tobytes()
    assert Detections(FOUND[:1], size=(60, 40), picture=found.image()).draw().tobytes() == found.draw().tobytes()


def test_a_notebook_shows_the_picture_and_a_table_of_escaped_names(found):
    shown = found._repr_html_()
    assert "a &lt;b&gt;cat&lt;/b&gt;" in shown
    assert "<b>cat" not in shown
    assert "data:image/png;base64," in shown
    assert "<img" not in Detections(FOUND)._repr_html_()


def test_a_picture_is_shown_by_the_viewer_or_in_the_notebook(found, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append("viewer"))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    found.show()
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    display = types.SimpleNamespace(display=lambda image: shown.append("notebook"))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    found.show()
    assert shown == ["viewer", "notebook"]


def test_a_result_goes_to_another_process_without_its_pixels(found, picture):
    copy = pickle.loads(pickle.dumps(found))
    assert (copy, copy.size, copy.path) == (FOUND, (60, 40), str(picture))
    assert copy.draw().size == found.draw().size
    held = Detections(FOUND, size=(60, 40), picture=Image.open(picture))
    assert len(pickle.dumps(held)) < 1000
    with pytest.raises(UserError, match="without their picture"):
        pickle.loads(pickle.dumps(held)).draw()


def test_a_picture_that_has_gone_is_told(found, picture):
    picture.unlink()
    with pytest.raises(UserError, match="no such file"):
        found.draw()
    assert "no such file" in found._repr_html_()


def test_detect_gives_results_for_every_form_of_input(detector, readable):
    of_path = detector.detect(readable[0], "red circle . dog", threshold=0)
    assert isinstance(of_path, Detections)
    assert (of_path.path, of_path.size) == (str(readable[0]), (64, 64))
    content = readable[0].read_bytes()
    for given in (content, io.BytesIO(content), Image.open(readable[0])):
        found = detector.detect(given, "red circle . dog", threshold=0)
        assert found == of_path
        assert found.path is None
        assert found.draw().tobytes() == of_path.draw().tobytes()
    assert all(isinstance(each, Detections) for each in detector.detect(readable, "dog"))
