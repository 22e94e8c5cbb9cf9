"""The catalogue: every file of every recipe stands in it, and it says nothing that is not of its form."""

import re
from pathlib import PurePosixPath

import pytest

from fiber_cli.cli.data import recipes_of
from fiber_cli.config.resolve import recipe_header, resolve_recipe, shipped_recipes
from fiber_cli.data.catalogue import catalogue, data_sets, size_in_words
from fiber_cli.data.sources import source_format
from fiber_cli.errors import UserError


def paper_recipes() -> list[str]:
    return [name for name, path in shipped_recipes().items() if "data.root=/data" in recipe_header(path)["command"]]


def test_a_file_of_a_recipe_is_of_no_data_set():
    for name in paper_recipes():
        recipe = resolve_recipe(name, ["data.root=/data"])
        for source in (*recipe.data.train, *recipe.data.val):
            for value in source.arguments().values():
                values = value.values() if isinstance(value, dict) else [value]
                for path in values:
                    if isinstance(path, str) and path.startswith("/data/"):
                        below = path.removeprefix("/data/")
                        assert any(data_set.has(below) for data_set in catalogue().values()), f"{name}: {below}"


def test_a_recipe_with_data_needs_none():
    using = {name for data_set in catalogue().values() for name in recipes_of(data_set)}
    assert set(paper_recipes()) | {"flickr8k", "flickr8k_caption", "nlvr"} == using


def test_what_is_stated_is_of_another_form():
    for data_set in catalogue().values():
        assert data_set.title
        assert data_set.licence
        assert data_set.home.startswith("https://")
        for file in data_set.files:
            assert file.makes
            assert (file.url is None) == (file.save is None)
            assert file.url or file.by
            assert file.url is None or file.url.startswith(("http://", "https://"))
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.md5 is None or re.fullmatch(r"[0-9a-f]{32}", file.md5)
            assert file.of is None or file.of in catalogue()
            for path in (*file.makes, file.save or "x", file.unpack or "x"):
                assert not PurePosixPath(path).is_absolute()
                assert ".." not in path
        for check in data_set.checks:
            settings = source_format(check.entry["kind"]).settings
            assert check.entry.keys() <= settings.__dataclass_fields__.keys()


def test_an_unknown_name_is_passed_over():
    assert [each.name for each in data_sets(["coco", "lvis", "coco"])] == ["coco", "lvis"]
    with pytest.raises(UserError, match="unknown data set cocco; known are coco, "):
        data_sets(["cocco"])


@pytest.mark.parametrize(
    ("count", "words"), [(None, "unknown"), (12, "12 bytes"), (36745453, "36.7 MB"), (19336861798, "19.3 GB")]
)
def test_a_size_is_said_wrongly(count, words):
    assert size_in_words(count) == words
