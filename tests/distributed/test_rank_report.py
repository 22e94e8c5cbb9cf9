"""What a rank says of its failure."""

import os

import pytest

from fiber_cli.distributed.rank_report import PIPE, Report, read_reports, report

FAILURES = [Report("no such images\n  at all"), Report("a name \udcff", follows=True)]


def test_a_launcher_does_not_get_what_a_rank_says(monkeypatch, capsys):
    reading, writing = os.pipe()
    monkeypatch.setenv(PIPE, str(writing))
    for failure in FAILURES:
        report(failure)
    os.close(writing)
    assert read_reports(os.read(reading, 65536)) == FAILURES
    os.close(reading)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pipe", [None, "987654", "none"])
def test_without_a_launcher_it_is_lost(pipe, monkeypatch, capsys):
    monkeypatch.delenv(PIPE, raising=False)
    if pipe is not None:
        monkeypatch.setenv(PIPE, pipe)
    report(Report("no such images"))
    assert capsys.readouterr().err == "fiber: no such images\n"


def test_an_error_of_all_ranks_is_told_by_each(monkeypatch, capsys):
    monkeypatch.delenv(PIPE, raising=False)
    report(Report("no such images", is_told_here=False))
    assert capsys.readouterr().err == ""


def test_long_words_fill_the_pipe(monkeypatch, capsys):
    reading, writing = os.pipe()
    monkeypatch.setenv(PIPE, str(writing))
    report(Report("x" * 100_000))
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)
    assert capsys.readouterr().err == f"fiber: {'x' * 100_000}\n"
