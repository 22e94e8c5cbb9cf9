import shutil

import pytest

from fiber_cli.checkpoints.digests import check, digest_together, write_digests
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.words import WORDS_FILE, read_words, unseen_words, write_words
from fiber_cli.errors import UserError

WORDS = {"a", "dog", "3", "café", "don't"}


def test_words_are_written_out_of_order_or_read_otherwise(tmp_path):
    write_words(tmp_path, WORDS)
    lines = (tmp_path / WORDS_FILE).read_bytes().decode().split("\n")
    assert lines == [*sorted(WORDS), ""]
    assert read_words(tmp_path) == WORDS


def test_no_words_and_words_that_are_not_known_are_taken_for_each_other(tmp_path):
    assert read_words(tmp_path) is None
    write_words(tmp_path, set())
    assert read_words(tmp_path) == frozenset()


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", None])
def test_a_damaged_file_ends_in_a_traceback(tmp_path, damage):
    if damage is None:
        (tmp_path / WORDS_FILE).mkdir()
    else:
        (tmp_path / WORDS_FILE).write_bytes(damage)
    with pytest.raises(UserError, match=r"words\.txt .*copy the whole checkpoint again"):
        read_words(tmp_path)


def test_words_are_called_unseen_that_were_seen_or_the_other_way_round(tmp_path):
    assert unseen_words(tmp_path, ["anything at all"]) == []
    write_words(tmp_path, WORDS)
    assert unseen_words(tmp_path, ["A DOG, 3 cats!", "dog's café; don’t"]) == ["cats"]
    assert unseen_words(tmp_path, ["beach 42", "cats on the beach"]) == ["beach", "42", "cats", "on", "the"]
    assert unseen_words(tmp_path, ["", " . "]) == []


def test_words_that_were_added_or_changed_later_are_believed(tmp_path, saved):
    checkpoint = tmp_path / "copy"
    shutil.copytree(resolve(saved), checkpoint)
    write_words(checkpoint, WORDS)
    with pytest.raises(UserError, match=r"words\.txt is not in SHA256SUMS"):
        check(checkpoint)
    write_digests(checkpoint, digest_together(checkpoint))
    check(checkpoint)
    write_words(checkpoint, WORDS | {"cat"})
    with pytest.raises(UserError, match=r"words\.txt is not as it was written"):
        check(checkpoint)
    (checkpoint / WORDS_FILE).unlink()
    with pytest.raises(UserError, match=r"words\.txt is missing"):
        check(checkpoint)
