"""The contact sheet of a search."""

import numpy as np
from PIL import Image, ImageFont

from fiber_cli.inference.search import SearchResult
from fiber_cli.inference.sheet import COLUMNS, GAP, LETTERS, LINE, TILE, draw_sheet


def test_a_contact_sheet_shows_whole_pictures_in_order(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (20, 40), "blue").save(tmp_path / "tall.png")
    query = "красный 🙂 red\tthing"
    results = []
    for text in (query, "x" * 900):
        for number, name in enumerate(("wide.png", "tall.png", "gone.png")):
            results.append(SearchResult(text, number + 1, str(tmp_path / name), 1.0, 0.5, 0.5))
    draw_sheet(results, tmp_path / "sheet.png")
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    red, blue = ((sheet == colour).all(2) for colour in ((255, 0, 0), (0, 0, 255)))
    # Letterboxed: 200 x 100 and 100 x 200, in two rows each.
    assert red.sum() == blue.sum() == 2 * TILE * TILE // 2
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
    top = int(np.nonzero(blue)[0].min())
    assert (sheet[top - LINE : top - 2] < 128).any(), "the query stands above"
    assert (sheet[top + TILE + 1 : top + TILE + LINE] < 128).any(), "the score stands below"


def result_of(file, query="a star", rank=1) -> SearchResult:
    return SearchResult(query, rank, str(file), 1.0, 0.5, 0.5)


def rows_of_ink(sheet) -> list[int]:
    """Numbers of the rows of pixels that have black in them."""
    return np.flatnonzero((np.asarray(sheet.convert("L")) < 100).any(1)).tolist()


def test_a_long_query_is_cut(tmp_path):
    """It gets as many lines as it needs, below which the pictures stand."""
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    font = ImageFont.load_default(LETTERS)
    heights = {}
    for words in (1, 200):
        query = " ".join(["word"] * words)
        draw_sheet([result_of(tmp_path / "a.png", query)], tmp_path / "sheet.png")
        sheet = Image.open(tmp_path / "sheet.png")
        red = np.flatnonzero((np.asarray(sheet) == (255, 0, 0)).all(2).any(1))
        heights[words] = int(red.min())
        assert len(red) == TILE, "a small picture is enlarged"
    needed = font.getlength("word " * 200) / (sheet.width - 2 * GAP)
    assert heights[200] - heights[1] >= LINE * int(needed)


def test_names_of_files_are_missing_or_run_into_each_other(tmp_path):
    name = "a very long name of a file that says what is in it, and where it was taken, and when.png"
    for file in (name, "b.png"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / file)
    widths = {}
    for first in (name, "b.png"):
        draw_sheet([result_of(tmp_path / first), result_of(tmp_path / "b.png", rank=2)], tmp_path / "sheet.png")
        sheet = Image.open(tmp_path / "sheet.png")
        below = np.asarray(sheet.convert("L"))[-4 * LINE - GAP :]
        gap = below[:, GAP + TILE : GAP + TILE + GAP]
        assert (gap == 255).all()
        widths[first] = sheet.height
    assert widths[name] == widths["b.png"] + 2 * LINE


def test_the_sheet_shows_other_results_than_the_table(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    results = [result_of(tmp_path / "a.png", rank=rank) for rank in range(1, 30)]
    for shown in (1, 3, 7, 12):
        draw_sheet(results, tmp_path / "sheet.png", shown)
        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        assert (sheet == (255, 0, 0)).all(2).sum() == shown * TILE * TILE
        assert sheet.shape[1] <= GAP + COLUMNS * (TILE + GAP)


def test_a_picture_that_is_gone_is_an_empty_square(tmp_path):
    draw_sheet([result_of(tmp_path / "gone.png")], tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png")
    middle = GAP + LINE + TILE // 2
    assert any(abs(row - middle) < LETTERS for row in rows_of_ink(sheet))


def test_a_picture_that_does_not_match_is_not_told_from_one_that_does(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    darkest = {}
    for matches in (True, False, None):
        result = SearchResult("a", 1, str(tmp_path / "a.png"), 1.0, 0.5, 0.5, matches)
        draw_sheet([result], tmp_path / "sheet.png")
        below = np.array(Image.open(tmp_path / "sheet.png").convert("L"))[-2 * LINE - GAP :]
        darkest[matches] = below.min()
    assert darkest[True] == darkest[None] < 64
    assert darkest[False] > 128
