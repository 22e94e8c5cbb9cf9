"""metrics.jsonl: what is not of its form is told with its line."""

import pytest

from fiber_cli.errors import UserError
from fiber_cli.training.records import drop_records, read_records

GOOD = b'{"step": 1, "loss": 2.5, "nan": null}\n{"step": 2, "count": 3}\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD)
    return path


def test_records_are_read(file):
    assert read_records(file) == [{"step": 1, "loss": 2.5, "nan": None}, {"step": 2, "count": 3}]
    assert read_records(file.with_name("none")) == []


BAD = [
    b"",
    b"hello",
    b"\xff\xfe\x00",
    b"null",
    b"3",
    b"[1]",
    b"{}",
    b'{"loss": 1}',
    b'{"step": "2"}',
    b'{"step": null}',
    b'{"step": [2]}',
    b'{"step": true}',
    b'{"step": 2.0}',
    b'{"step": -1}',
    b'{"step": 1' + b"0" * 30 + b"}",
    b'{"step": 2, "loss": "low"}',
    b'{"step": 2, "loss": [1]}',
    b'{"step": 2, "loss": {"a": 1}}',
    b'{"step": 2, "loss": 1' + b"0" * 400 + b"}",
    b"[" * 100_000,
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_line_of_another_form_is_a_traceback_or_lost(file, line):
    content = GOOD + line + b"\n" + GOOD
    file.write_bytes(content)
    for read in (read_records, lambda file: drop_records(file, 1)):
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 3: not a record of a run"):
            read(file)
    assert file.read_bytes() == content


def test_a_last_line_that_a_kill_cut_is_an_error(file):
    file.write_bytes(GOOD + b'{"step": 3, "lo')
    assert len(read_records(file)) == 2
    drop_records(file, 2)
    assert file.read_bytes() == GOOD


@pytest.mark.parametrize("end", [b"mine", b'{"note": "x', b"{'step"])
def test_a_last_line_of_another_s_without_an_end_is_lost(file, end):
    file.write_bytes(GOOD + end)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 3"):
        drop_records(file, 2)
    assert file.read_bytes() == GOOD + end


def test_a_whole_record_without_a_newline_is_lost(file):
    file.write_bytes(GOOD.removesuffix(b"\n"))
    assert len(read_records(file)) == 2
    drop_records(file, 2)
    assert file.read_bytes() == GOOD


def test_records_past_a_step_stay(file):
    drop_records(file, 1)
    assert file.read_bytes() == GOOD.splitlines(keepends=True)[0]


def test_a_folder_or_a_dangling_link_passes_for_no_file(tmp_path):
    for name in ("folder", "link"):
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.symlink_to("nothing")
        with pytest.raises(UserError, match="is not a file"):
            read_records(path)
