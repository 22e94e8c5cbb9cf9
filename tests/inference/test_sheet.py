"""The contact sheet of a search."""

import numpy as np
from PIL import Image

from fiber_cli.inference.search import SearchResult
from fiber_cli.inference.sheet import LINE, TILE, draw_sheet


def test_a_contact_sheet_shows_whole_pictures_in_order(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (20, 40), "blue").save(tmp_path / "tall.png")
    query = "красный 🙂 red\tthing"
    results = []
    for text in (query, "x" * 900):
        for number, name in enumerate(("wide.png", "tall.png", "gone.png")):
            results.append(SearchResult(text, number + 1, str(tmp_path / name), 1.0, 0.5, 0.5))
    draw_sheet(results, tmp_path / "sheet.png", columns=3)
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    red, blue = ((sheet == colour).all(2) for colour in ((255, 0, 0), (0, 0, 255)))
    # Letterboxed: 160 x 80 and 80 x 160, in two rows each.
    assert red.sum() == blue.sum() == 2 * TILE * TILE // 2
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
    top = int(np.nonzero(blue)[0].min())
    assert (sheet[top - LINE : top - 2] < 128).any(), "the query stands above"
    assert (sheet[top + TILE + 1 : top + TILE + LINE] < 128).any(), "the score stands below"


def test_a_picture_that_does_not_match_is_not_told_from_one_that_does(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    darkest = {}
    for matches in (True, False, None):
        result = SearchResult("a", 1, str(tmp_path / "a.png"), 1.0, 0.5, 0.5, matches)
        draw_sheet([result], tmp_path / "sheet.png")
        below = np.array(Image.open(tmp_path / "sheet.png").convert("L"))[-LINE:]
        darkest[matches] = below.min()
    assert darkest[True] == darkest[None] < 64
    assert darkest[False] > 128
