"""Records of files: single bad ones are left out and named, many refuse the file."""

import pytest

from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError

NUMBERS = '{"numbers": [{"n": 1}, …]}'


def number(entry):
    return entry["n"] + 0


def read(entries, **options):
    records = FileRecords("some.json", "a file of numbers", NUMBERS, **options)
    return [value for _, value in records.each("numbers", entries, number)], records


def entries(good, bad):
    return [{"n": i} for i in range(good)] + [{}] * bad


@pytest.mark.parametrize(("good", "bad"), [(2, 1), (10, 4), (95, 5), (1980, 20)])
def test_a_few_bad_records_refuse_a_file(good, bad, capsys):
    values, records = read(entries(good, bad))
    assert values == list(range(good))
    assert records.left_out == [(f"numbers[{good + i}]", "KeyError: 'n'") for i in range(bad)]
    said = capsys.readouterr().err
    assert f"some.json: {bad} of {good + bad:,} numbers " in said
    assert f"left out: numbers[{good}] (KeyError: 'n')" in said
    assert said.count("KeyError") == min(bad, 3)


@pytest.mark.parametrize(("good", "bad"), [(0, 1), (1, 1), (2, 2), (94, 6), (1979, 21), (0, 50)])
def test_a_file_of_many_bad_records_is_taken(good, bad):
    with pytest.raises(
        UserError, match=rf"some.json: not a file of numbers, see numbers\[{good}\] \(KeyError: 'n'\)"
    ) as e:
        read(entries(good, bad))
    assert str(e.value).endswith(f"; wanted is {NUMBERS}")
    assert bad == 1 or f"{bad} of {good + bad:,} such" in str(e.value)


@pytest.mark.parametrize("bad", [None, 3, [], {"n": "x"}, {"n": None}])
def test_a_record_of_any_other_form_ends_the_reading(bad):
    assert read([*entries(3, 0), bad])[0] == [0, 1, 2]


def test_a_bad_record_of_a_strict_file_is_left_out():
    with pytest.raises(UserError, match=r"see numbers\[99\]"):
        read(entries(99, 1), strict=True)


def test_what_is_wrong_with_the_whole_file_is_left_out():
    def refuse(entry):
        raise UserError("the id 1 comes twice")

    with pytest.raises(UserError, match=r"^the id 1 comes twice"):
        list(FileRecords("some.json", "a file").each("numbers", entries(100, 0), refuse))


def test_the_reason_of_a_bad_sample_is_lost():
    def refuse(entry):
        raise BadSample("no such file: a.xml")

    with pytest.raises(UserError, match=r"see numbers\[0\] \(no such file: a.xml\)"):
        list(FileRecords("some.json", "a file").each("numbers", entries(1, 0), refuse))


def test_every_rank_names_what_is_left_out(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert len(read(entries(10, 1))[0]) == 10
    assert capsys.readouterr().err == ""


def test_lines_lose_their_numbers(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"1\n\n2\nx\n3\n")
    records = FileRecords(path, "a file of numbers")
    assert list(records.lines(int)) == [(1, 1), (3, 2), (5, 3)]
    [(place, reason)] = records.left_out
    assert place == "line 4"
    assert reason.startswith("ValueError: invalid literal")


@pytest.mark.parametrize("content", [[], 3, None, {}, {"numbers": None}, {"numbers": {"0": {}}}, {"numbers": "abc"}])
def test_a_file_without_the_list_is_taken(content):
    with pytest.raises(UserError, match=r"not a file of numbers, has no list 'numbers'; wanted is"):
        FileRecords("some.json", "a file of numbers", NUMBERS).entries(content, "numbers")


def test_what_comes_twice_is_taken():
    once = Once("some.json", "the id", "images")
    assert [once.add(7), once.add("7")] == [7, "7"]
    with pytest.raises(UserError, match=r"some.json: the id 7 comes twice in images; each must come once"):
        once.add(7)
