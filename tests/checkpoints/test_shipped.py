"""What ships with the package: known by what lies in its folder, and by a word that hides nothing of a user's."""

from pathlib import Path

import pytest
from shipped_checkpoints import LIKELY, ship, ship_likely

from fiber_cli.checkpoints import shipped
from fiber_cli.checkpoints.directory import choose
from fiber_cli.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_are_those_of_the_folders_that_hold_a_checkpoint(ships):
    assert shipped.names() == []
    ship_likely(ships)
    ship(ships, "refexp", "refexp")
    (ships / "notes").mkdir()
    (ships / "MODEL_CARD.md").write_text("# Card\n")
    assert shipped.names() == [f"builtin/{name}" for name in sorted({*LIKELY, "refexp"})]
    ships.rename(ships.with_name("elsewhere"))
    assert shipped.names() == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("builtin", ""),
        ("builtin/", ""),
        ("builtin/vqa", "vqa"),
        (Path("builtin/vqa"), "vqa"),
        ("builtin/vqa/", "vqa"),
        ("./builtin", None),
        ("./builtin/vqa", None),
        ("../builtin", None),
        ("/somewhere/builtin", None),
        ("builtin/vqa/config.json", None),
        ("runs/builtin", None),
        ("builtins", None),
        ("", None),
    ],
)
def test_a_path_is_taken_for_a_name(path, name):
    assert shipped.name_in(path) == name


@pytest.mark.parametrize("name", ["builtin", "builtin/vqa"])
def test_a_folder_or_file_of_that_name_is_not_hidden(ships, tmp_path, name):
    ship_likely(ships)
    (tmp_path / name).mkdir(parents=True)
    for asked in (name, Path(name)):
        with pytest.raises(UserError, match=rf"something of that name is here; name {tmp_path}/{name} for what"):
            choose(asked)
    with pytest.raises(UserError, match="holds no checkpoint"):
        choose(f"./{name}")
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="something of that name is here"):
        choose(name)


def test_one_that_the_folder_here_does_not_have_is_offered_and_taken(ships, tmp_path):
    ship_likely(ships)
    local = ship(tmp_path / "builtin", "vqa", "vqa")
    with pytest.raises(UserError) as caught:
        choose("builtin/vqa")
    assert "builtin/caption, builtin/detection, builtin/nlvr2, builtin/retrieval)" in str(caught.value)
    assert choose("builtin/caption").path == ships / "caption"
    assert choose("./builtin/vqa").path == Path("builtin/vqa")
    assert choose(local) == (local, "")


def test_the_package_itself_is_nothing_else_of_that_name(ships, monkeypatch):
    ship_likely(ships)
    monkeypatch.chdir(ships.parent)
    assert choose("builtin/vqa").path == ships / "vqa"


def test_one_is_named_and_said_to_know_drawn_scenes_only(ships):
    ship_likely(ships)
    for path in ("builtin/vqa", ships / "vqa"):
        choice = choose(path)
        assert choice.path == ships / "vqa"
        assert str(choice) == "builtin/vqa, shipped with fiber, trained on drawn scenes only"


@pytest.mark.parametrize("name", ["builtin", "builtin/vqa2"])
def test_names_that_say_not_enough_list_what_there_is(ships, name):
    with pytest.raises(UserError, match="this fiber ships no checkpoints"):
        choose(name)
    ship_likely(ships)
    with pytest.raises(UserError) as caught:
        choose(name)
    assert caught.value.details == tuple(f"builtin/{name} is a checkpoint of {task}" for name, task in LIKELY.items())


def test_a_damaged_one_is_listed_with_what_is_wrong(ships):
    ship_likely(ships)
    (ships / "vqa" / "config.json").write_text("{")
    assert any("vqa/config.json is damaged" in line for line in shipped.in_words())
    with pytest.raises(UserError, match="is damaged"):
        shipped.describe("builtin/vqa")
    (ships / "caption" / "model.safetensors").write_bytes(b"\x00")
    with pytest.raises(UserError, match=r"model.safetensors cannot be read .*install fiber again"):
        shipped.describe("builtin/caption")


def test_parameters_and_size_are_counted_without_loading(ships):
    checkpoint = ship(ships, "vqa", "vqa")
    described = shipped.describe("builtin/vqa")
    assert (described.name, described.config.task.name, described.parameters) == ("builtin/vqa", "vqa", 6)
    assert described.size == sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())


def test_a_card_may_be_missing(ships):
    assert shipped.card() == ""
    (ships / "MODEL_CARD.md").write_text("# Card\n")
    assert shipped.card() == "# Card\n"


def test_what_ships_is_larger_than_it_may_be():
    """At most 40 MB together, each whole, and nothing for resuming."""
    described = [shipped.describe(name) for name in shipped.names()]
    assert sum(model.size for model in described) <= 40e6
    for model in described:
        checkpoint = shipped.directory_of(model.name)
        assert {path.name for path in checkpoint.iterdir()} == {
            "config.json",
            "model.safetensors",
            "tokenizer",
            "words.txt",
            "SHA256SUMS",
        }
