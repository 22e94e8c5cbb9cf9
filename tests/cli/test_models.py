"""`fiber models`: what ships, with a card or without."""

import pytest
from commands import command
from shipped_checkpoints import ship, ship_likely


def test_each_is_listed_with_what_it_is_for(ships, capsys):
    ship_likely(ships)
    size = sum(path.stat().st_size for path in (ships / "caption").rglob("*") if path.is_file())
    code, out, err = command(capsys, "models")
    assert (code, err) == (0, "")
    blocks = out.split("\nbuiltin/")
    assert blocks[0].splitlines() == [
        "builtin/caption",
        "    task caption: captions of images",
        "    for fiber caption, fiber eval",
        f"    6 parameters, {size / 1e6:.1f} MB",
    ]
    names = [block.splitlines()[0] for block in blocks[1:]]
    assert names == ["detection", "nlvr2", "retrieval", "vqa"]
    assert "    for fiber rerank, fiber eval\n" in blocks[3]
    assert "\nall shipped with fiber, trained on drawn scenes only; `fiber models card` says" in out


def test_what_settings_switch_off_is_no_use(ships, capsys):
    ship(ships, "itm", "retrieval", itc=0.0)
    ship(ships, "none", "retrieval", itc=0.0, itm=0.0)
    assert command(capsys, "models")[1].count("for fiber rerank, fiber eval") == 1


def test_nothing_ships_is_no_error(ships, capsys):
    code, out, err = command(capsys, "models")
    assert (code, out) == (0, "")
    assert "this fiber ships no checkpoints" in err


def test_a_damaged_one_hides_no_others(ships, capsys):
    ship_likely(ships)
    (ships / "caption" / "config.json").write_text("{")
    code, out, _ = command(capsys, "models")
    assert code == 0
    assert "caption/config.json is damaged" in out
    assert "builtin/vqa\n" in out


@pytest.mark.parametrize("card", ["# Card\n\nA table:\n\n| a |\n", ""])
def test_the_card_is_printed_as_it_is(ships, capsys, card):
    if card:
        (ships / "MODEL_CARD.md").write_text(card)
    code, out, err = command(capsys, "models", "card")
    assert out == card
    assert (code, "there is no model card" in err) == ((0, False) if card else (1, True))
