"""Boxes in pictures, and where annotated files go."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from small_detector import PROMPT, detect

from fiber_cli.errors import UserError
from fiber_cli.inference.annotate import Gallery, annotated, enlargement, label_colour, letter_colour, target_files
from fiber_cli.inference.detections import Detection
from fiber_cli.inference.video import Shot
from fiber_cli.outputs import LEDGER


def test_boxes_are_drawn_where_they_are():
    """A box's frame lies inside its edges."""
    blank = Image.new("RGB", (600, 500), "white")
    drawn = np.asarray(annotated(blank, [Detection("x", 0, 0.5, (10.0, 300.0, 410.0, 450.0))]))
    below = (drawn[300:] != 255).any(2)
    assert np.flatnonzero(below.any(0)).tolist() == list(range(10, 410))
    assert np.flatnonzero(below[:, 200]).tolist() == [0, 1, 148, 149]
    assert (np.asarray(blank) == 255).all()


def test_a_small_picture_is_drawn_too_small_to_read():
    blank = Image.new("RGB", (60, 50), "white")
    factor = enlargement(blank.size)
    drawn = np.asarray(annotated(blank, [Detection("x", 0, 0.5, (10.0, 30.0, 40.0, 45.0))], factor))
    assert drawn.shape == (400, 480, 3)
    below = (drawn[240:] != 255).any(2)
    assert np.flatnonzero(below.any(0)).tolist() == list(range(80, 320))
    assert [enlargement(size) for size in ((480, 20), (481, 20), (20, 479), (240, 240))] == [1, 1, 2, 2]


def test_labels_hide_each_other():
    """Of one object under three names, all labels can be read: each has a field of its colour."""
    blank = Image.new("RGB", (600, 500), "white")
    found = [Detection(f"name {index}", index, 0.9, (200.0, 200.0, 400.0, 400.0)) for index in range(3)]
    pixels = np.asarray(annotated(blank, found)).reshape(-1, 3)
    for detection in found:
        alone = np.asarray(annotated(blank, [detection])).reshape(-1, 3)
        colour = np.array(label_colour(detection.index))
        frame = 4 * 200 * 2
        assert (pixels == colour).all(1).sum() > 0.9 * ((alone == colour).all(1).sum() - frame)


def test_many_labels_have_many_colours():
    assert len({label_colour(index) for index in range(100)}) == 100


def test_a_label_is_written_in_a_colour_like_its_own():
    """Contrast by WCAG 2, of 4.5 and more for text that all can read; white on yellow had 1.9."""
    levels = {"black": 0.0, "white": 1.0}
    for index in range(60):
        colour = label_colour(index)
        field = relative_luminance(colour)
        lighter, darker = sorted((field, levels[letter_colour(colour)]), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.4


def relative_luminance(colour) -> float:
    """sRGB's, see https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    linear = []
    for value in colour:
        share = value / 255
        linear.append(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("label", ["a long phrase " * 8, "x" * 120])
def test_a_long_label_is_cut(label):
    """It has lines enough for all of it and the score."""
    blank = Image.new("RGB", (480, 480), "white")
    heights = []
    for text in ("x", label):
        pixels = np.asarray(annotated(blank, [Detection(text, 0, 0.5, (100.0, 300.0, 200.0, 400.0))]))
        field = (pixels == label_colour(0)).all(2)[:, 110:190].sum(1) > 20
        heights.append(np.flatnonzero(field[:300]).size)
    assert heights[0] < heights[1]


def test_an_object_is_drawn_under_all_its_names(tmp_path):
    """Once, with the best, and what is left out is counted; with an IoU of 1 under all."""
    picture = Image.new("RGB", (500, 500), "white")
    found = [Detection("red star", 0, 0.9, (200.0, 200.0, 400.0, 400.0))]
    found.append(Detection("star", 1, 0.8, (201.0, 200.0, 401.0, 400.0)))
    has_second = {}
    for name, options in {"once": (), "all": (1.0,)}.items():
        gallery = Gallery(tmp_path / name, [tmp_path / "a.png"], None, *options)
        gallery.add(Shot(tmp_path / "a.png", picture), found)
        pixels = np.asarray(Image.open(tmp_path / name / "a.png"))
        assert (pixels == label_colour(0)).all(2).any()
        has_second[name] = bool((pixels == label_colour(1)).all(2).any()), gallery.hidden
    assert has_second == {"once": (False, 1), "all": (True, 0)}


def test_annotated_pictures_have_the_names_of_their_files(detector_run, pictures, readable, capsys, tmp_path):
    out = tmp_path / "new" / "out"
    assert detect(capsys, detector_run, pictures, PROMPT, "--out", out, "--top-k", "1")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [LEDGER, "a.png", "b.jpg", "more-a.png"]
    for path, name in zip(readable, ("a.png", "b.jpg", "more-a.png"), strict=True):
        drawn, before = np.asarray(Image.open(out / name).convert("RGB")), np.asarray(Image.open(path).convert("RGB"))
        factor = drawn.shape[0] // before.shape[0]
        assert drawn.shape == (factor * before.shape[0], factor * before.shape[1], 3)
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1
    Image.new("RGB", (40, 20), "white").save(tmp_path / "odd", format="PNG")
    assert detect(capsys, detector_run, tmp_path / "odd", PROMPT, "--out", out)[0] == 0
    assert Image.open(out / "odd.png").size == (480, 240)
    code, _, err = detect(capsys, detector_run, pictures, PROMPT, "--out", pictures / "more")
    assert code == 1
    assert "is the folder of a.png, which would be overwritten" in err


def test_no_file_overwrites_another(tmp_path):
    files = [tmp_path / name for name in ("a/x.png", "b/x.png", "c/b-x.png", "x")]
    targets = target_files(tmp_path / "out", files)
    assert [target.name for target in targets.values()] == ["x.png", "b-x.png", "c-b-x.png", f"{tmp_path.name}-x.png"]
    with pytest.raises(UserError, match="would be overwritten"):
        Gallery(tmp_path / "a", files)


def test_two_files_get_one_name_where_case_or_a_link_does_not_count(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    files = [tmp_path / name for name in ("a/x.png", "b/X.png", "b/cafe\u0301.png", "a/caf\xe9.png", "b/x-again.png")]
    for file in files[:-1]:
        file.touch()
    files[-1].symlink_to(files[0])
    names = [target.name for target in target_files(tmp_path / "out", files).values()]
    assert names == ["x.png", "b-X.png", "cafe\u0301.png", "a-caf\xe9.png", "a-x.png"]
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(folded) == len(files)
