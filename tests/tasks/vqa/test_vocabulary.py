"""The list of answers: what is in it, and in which order."""

import pytest
from vqa_files import annotation, write_annotations

from fiber_cli.errors import UserError
from fiber_cli.tasks.vqa.vocabulary import build_vocabulary, read_vocabulary, write_vocabulary


def test_normalised_answers_are_counted_over_all_files(tmp_path):
    """Nine times is enough; the order is that of the first occurrence, of rare spellings too."""
    first = ["a dog", "net", *["yes"] * 9, *["Dog"] * 4, *["cat"] * 8]
    second = ["dog."] * 4 + ["net"] * 8 + ["two", *["2"] * 8, "bird"]
    files = []
    for name, said in (("train.json", first), ("val.json", second)):
        entries = [annotation(number, [text]) for number, text in enumerate(said)]
        files.append(write_annotations(tmp_path / name, entries))
    assert build_vocabulary(files) == ["dog", "net", "yes", "2"]
    assert build_vocabulary(files[:1]) == ["yes"]
    assert build_vocabulary(files, minimum=8)[3] == "cat"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "folder" / "answers.json"
    write_vocabulary(path, ["dog", "café", ""])
    assert read_vocabulary(path) == ["dog", "café", ""]
    assert "café" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('["a", "b", "a"]', "names 'a' more than once"),
        ("[]", "not a vocabulary"),
        ('{"yes": 0}', "not a vocabulary"),
        ('["yes", 3]', "not a vocabulary"),
        ("yes", "not valid JSON"),
    ],
)
def test_files_that_are_no_vocabulary_are_told(tmp_path, content, match):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=rf"bad\.json.*{match}"):
        read_vocabulary(tmp_path / "bad.json")
