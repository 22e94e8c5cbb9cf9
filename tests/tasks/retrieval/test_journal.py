"""Scores on disk are read back whole, by any rank, for the same key alone."""

import numpy as np
import pytest
from file_size_limit import files_up_to

from fiber_cli.errors import UserError
from fiber_cli.tasks.retrieval.journal import Journal, check_journal

ENTRIES = {3: ([0, 5], [0.5, -1.5]), 4: ([1], [2.25])}


@pytest.fixture
def folder(tmp_path):
    """A journal of one rank with `ENTRIES`."""
    journal = Journal(tmp_path / "scores", "key")
    journal.read(0, empty(8))
    for image, (texts, scores) in ENTRIES.items():
        journal.append(image, np.array(texts), np.array(scores))
    return tmp_path / "scores"


def empty(images):
    return np.full((images, 6), np.nan, dtype=np.float32)


def test_scores_are_read_back(folder):
    scores = empty(8)
    Journal(folder, "key").read(0, scores)
    assert (scores[3, 0], scores[3, 5], scores[4, 1]) == (0.5, -1.5, 2.25)
    assert np.isnan(scores).sum() == scores.size - 3


def test_a_rank_reads_the_scores_of_its_images_in_all_files(folder):
    (folder / "0.bin").rename(folder / "7.bin")
    scores = empty(2)
    Journal(folder, "key").read(4, scores)
    assert scores[0, 1] == 2.25
    assert np.isnan(scores).sum() == scores.size - 1


@pytest.mark.parametrize("cut", [1, 4, 7, 11])
def test_a_record_cut_short_is_dropped_and_written_anew(folder, cut):
    file = folder / "0.bin"
    file.write_bytes(file.read_bytes()[:-cut])
    journal, scores = Journal(folder, "key"), empty(8)
    journal.read(0, scores)
    assert np.isnan(scores[4]).all()
    journal.append(4, np.array([1, 2]), np.array([9.0, 8.0]))
    Journal(folder, "key").read(0, scores)
    assert (scores[3, 5], scores[4, 1], scores[4, 2]) == (-1.5, 9.0, 8.0)


def test_scores_of_another_key_are_thrown_away(folder, capsys):
    scores = empty(8)
    Journal(folder, "other").read(0, scores)
    assert np.isnan(scores).all()
    assert "starting afresh" in capsys.readouterr().err


def test_a_complete_run_leaves_nothing(folder):
    journal = Journal(folder, "key")
    journal.read(0, empty(8))
    journal.remove()
    assert not folder.exists()


def test_files_of_others_are_removed(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.bin").write_text("mine")
    journal = Journal(folder, "other")
    journal.read(0, empty(8))
    journal.remove()
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "mine.bin"}


@pytest.mark.parametrize("name", ["key", "0.bin", "notes.txt"])
def test_a_folder_of_others_is_taken_for_a_journal(tmp_path, name):
    (tmp_path / name).write_text("mine")
    for use in (check_journal, lambda folder: Journal(folder, "key")):
        with pytest.raises(UserError, match="holds something else"):
            use(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_journal_of_the_version_before_is_not_continued(tmp_path):
    journal = Journal(tmp_path / "scores", "ab" * 16)
    journal.read(0, empty(8))
    journal.append(3, np.array([0]), np.array([0.5]))
    (tmp_path / "scores" / "key").write_text("ab" * 16)
    scores = empty(8)
    Journal(tmp_path / "scores", "ab" * 16).read(0, scores)
    assert scores[3, 0] == 0.5


def test_a_full_disk_ends_the_evaluation(folder, capsys):
    """The scores are in memory as well."""
    journal = Journal(folder, "key")
    journal.read(0, empty(8))
    with files_up_to(50):
        for image in range(5, 8):
            journal.append(image, np.array([1, 2]), np.array([1.0, 2.0]))
    assert capsys.readouterr().err.count("pair scores are no longer kept (File too large") == 1
    assert not (folder / "0.bin").exists()
    journal.remove()
    assert not folder.exists()
