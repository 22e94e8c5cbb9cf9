"""The reference of all settings."""

import dataclasses
import re
from pathlib import Path

import pytest

from fiber_cli.config.recipe import Recipe
from fiber_cli.config.schema import schema_markdown
from fiber_cli.data.sources import FORMATS, SettingsByKind
from fiber_cli.tasks import declarations


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Title → the whole section."""
    blocks = schema_markdown().split("\n## ")
    return {block.splitlines()[0]: block for block in blocks}


def keys(block: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", block, flags=re.MULTILINE)


def section_of(sections, *names: str) -> str:
    (block,) = [text for title, text in sections.items() if all(f"`{name}`" in title for name in names)]
    return block


def test_every_section_has_all_its_keys_once(sections):
    for field in dataclasses.fields(Recipe):
        if dataclasses.is_dataclass(field.type):
            (block,) = [text for title, text in sections.items() if title == f"`{field.name}`"]
            assert keys(block) == [setting.name for setting in dataclasses.fields(field.type)]
    for declaration in declarations():
        block = section_of(sections, "task", declaration.name)
        assert keys(block) == [setting.name for setting in dataclasses.fields(declaration.settings)]
    for kind, settings in SettingsByKind().items():
        block = section_of(sections, "data.train", kind)
        assert keys(block) == [setting.name for setting in dataclasses.fields(settings)]


def test_types_limits_defaults_and_meanings_are_told(sections):
    assert "| `zero_stage` | `0`, `1`, `2`, `3` | `0` |" in sections["`runtime`"]
    assert "| `lr` | a number, greater than 0 | required | Peak learning rate" in sections["`optim`"]
    assert '| `name` | text | `"recipe"` |' in sections["# Recipe reference"]
    assert "| `deepspeed` | a mapping | `{}` |" in sections["# Recipe reference"]
    assert "an item of `data.train` or `data.val`: `visual_genome`" in sections


def test_a_form_of_several_names_stands_once(sections):
    titles = " ".join(title for title in sections if "data.train" in title)
    assert all(titles.count(f"`{kind}`") == 1 for kind in FORMATS)
    assert "`task`: `fine`, `detection`, `grounding`" in sections


def test_sources_stand_behind_the_section_that_names_them(sections):
    titles = list(sections)
    data = titles.index("`data`")
    assert all("data.train" in title for title in titles[data + 1 : titles.index("`optim`")])


def test_the_authors_behaviour_is_told_in_other_words():
    """Every setting of the page's table says in its own line what the authors have."""
    page = (Path(__file__).parents[2] / "docs" / "published-flaws.md").read_text(encoding="utf-8")
    _, table = page.split("| setting | default | as published | what it changes |\n")
    rows = [line.split("|") for line in table.split("\n\n")[0].splitlines()[1:]]
    lines = schema_markdown().splitlines()
    assert len(rows) > 5
    for _, settings, _, published, *_ in rows:
        name = settings.split("`")[1].partition(".")[2]
        (line,) = {line.rsplit("| ", 1)[1] for line in lines if line.startswith(f"| `{name}` |")}
        assert line.rstrip(". |").endswith(f"as_published: {published.strip().replace(', ', ' or ')}"), name
