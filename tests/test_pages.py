"""README, CONTRIBUTING and docs/: their links, images, command lines, recipes and Python. Nothing is run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from fiber_cli.cli.app import app
from fiber_cli.config.resolve import shipped_recipes

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A command line of fiber, also of a launcher; in brackets what may be left out.
COMMAND = re.compile(r"(?:^|[\s/])(?:fiber|-m fiber_cli|--module fiber_cli) (.*)")
FIBER_COMMAND: Any = typer.main.get_command(app)
#: What the parser raises for a wrong line; typer does not name it.
USAGE_ERROR: Any = typer.BadParameter.__base__

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines(page: Path) -> Iterator[str]:
    """What follows `fiber` in the blocks of shell lines and in the text."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCE.findall(text):
        if language == "bash":
            for line in block.splitlines():
                without_comment = re.split(r"(?:^|\s)#", line)[0]
                for part in without_comment.split("&&"):
                    yield from COMMAND.findall(part)
    for code in re.findall(r"`(fiber [^`]+)`", FENCE.sub("", text).replace("\n", " ")):
        yield from COMMAND.findall(code)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command of a line, and the rest of the line."""
    command, rest = FIBER_COMMAND, list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"fiber has no {name}"
        command = command.commands[name]
    return command, rest


def options_of(command: Any) -> set[str]:
    names = {"--help"}
    if command is FIBER_COMMAND:
        names |= {"--install-completion", "--show-completion"}
    for parameter in command.params:
        names.update(parameter.opts)
    return names


@each_page
def test_a_link_or_an_image_leads_nowhere(page):
    for target in filter(None, (link or image for link, image in LINK.findall(page.read_text(encoding="utf-8")))):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def test_a_page_cannot_be_found_from_the_first_one():
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in DOCS if f"(docs/{page.name}" not in readme] == []


@each_page
def test_a_page_does_not_say_what_it_answers(page):
    title, first, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert page not in DOCS or re.match(r"\w.+\.$", first, re.DOTALL)


@each_page
def test_a_command_line_names_a_verb_or_an_option_that_is_not_there(page):
    for line in command_lines(page):
        command, rest = find_command(shlex.split(re.sub(r"[\[\]…]", " ", line)))
        used = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert used <= options_of(command), f"{page.name}: fiber {line}"


@each_page
def test_a_command_line_does_not_parse(page, monkeypatch):
    """Lines without placeholders, with the values of their options."""
    monkeypatch.chdir(ROOT)
    lines = [line for line in command_lines(page) if not re.search(r"[\[…]|\b[A-Z]{4,}\b", line)]
    for line in lines:
        command, rest = find_command(shlex.split(line))
        if isinstance(command, TyperGroup) or not rest:
            continue
        try:
            command.make_context("fiber", list(rest), obj=rest)
        except USAGE_ERROR as error:
            # In a sentence a command may stand with the option alone that is spoken of.
            is_in_a_sentence = f"`fiber {line}`" in page.read_text(encoding="utf-8").replace("\n", " ")
            is_incomplete = type(error).__name__ in ("MissingParameter", "BadOptionUsage")
            if not (is_in_a_sentence and is_incomplete):
                raise AssertionError(f"{page.name}: fiber {line}: {error.format_message()}") from error


@each_page
def test_a_recipe_of_a_command_line_is_not_shipped(page):
    for line in command_lines(page):
        for name in re.findall(r"(?:--recipe|recipes show) ([\w./]+)", line):
            is_placeholder = name.isupper()
            assert name in shipped_recipes() or (ROOT / name).is_file() or is_placeholder, f"{page.name}: {name}"


def test_the_table_of_recipes_is_not_that_of_the_shipped_ones():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    named = set()
    for row in re.findall(r"^\| (`[^|]+)\|", text, re.MULTILINE):
        named.update(re.findall(r"`(\w+)`", row))
    assert named == set(shipped_recipes())


@each_page
def test_an_example_in_python_is_no_python(page):
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python" and page.name != "CONTRIBUTING.md":  # which leaves bodies out
            compile(block, page.name, "exec")


def test_a_broken_command_line_passes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "say `fiber detect a.png x --treshold 0.5`\n\n```bash\nnice fiber evaluate scenes  # fiber eval\n```\n"
    )
    lines = list(command_lines(page))
    assert [line.strip() for line in lines] == ["evaluate scenes", "detect a.png x --treshold 0.5"]
    with pytest.raises(AssertionError, match="no evaluate"):
        find_command(lines[0].split())
    command, _ = find_command(lines[1].split())
    assert "--treshold" not in options_of(command)
    assert "--threshold" in options_of(command)
