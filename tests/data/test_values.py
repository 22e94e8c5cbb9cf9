"""Values of records: what is exact is read, whatever its type; what is not is told."""

import pytest

from fiber_cli.data.values import (
    finite_number,
    flag,
    identifier,
    listed,
    path_text,
    some_text,
    text,
    whole_number,
)


@pytest.mark.parametrize(("value", "read"), [(7, 7), ("7", 7), (7.0, 7), ("7.0", 7), (" 12 ", 12), ("-3", -3), (0, 0)])
def test_a_whole_number_is_lost_for_its_type(value, read):
    number = whole_number(value, "height")
    assert number == read
    assert type(number) is int


@pytest.mark.parametrize("value", [None, True, 7.5, "7.5", "", "seven", [7], float("nan"), float("inf"), "1e3"])
def test_a_number_that_is_not_whole_is_rounded(value):
    with pytest.raises(TypeError, match=r"height .* is no whole number"):
        whole_number(value, "height")


@pytest.mark.parametrize(("value", "read"), [(7, 7.0), ("7.25", 7.25), (-0.5, -0.5), ("1e3", 1000.0)])
def test_a_number_is_lost_for_its_type(value, read):
    assert finite_number(value, "bbox") == read


@pytest.mark.parametrize(
    "value", [None, True, [1], "wide", "", float("nan"), "inf", 10**400, -(10**400), "1" + "0" * 400]
)
def test_what_is_no_number_is_taken(value):
    with pytest.raises((TypeError, ValueError), match=r"bbox|could not convert"):
        finite_number(value, "bbox")


@pytest.mark.parametrize("value", [None, 0, False, 0.0, "0", "0.0", " 0 ", "false", "False"])
def test_a_flag_that_is_not_set_is_set(value):
    assert flag(value, "iscrowd") is False


@pytest.mark.parametrize("value", [1, True, 1.0, "1", "1.0", "1.", "true", "TRUE"])
def test_a_flag_that_is_set_is_not_set(value):
    assert flag(value, "iscrowd") is True


@pytest.mark.parametrize("value", [2, -1, "", "no", "2", "0.5", "10", [], {}, 0.5, 10**400])
def test_a_flag_of_another_value_is_guessed(value):
    with pytest.raises(ValueError, match="iscrowd must be 0 or 1, it is"):
        flag(value, "iscrowd")


def test_a_large_whole_number_is_rounded():
    for value in (2**63 + 1, 2**70, 10**400):
        assert whole_number(value, "id") == identifier(value) == whole_number(str(value), "id") == value


@pytest.mark.parametrize("value", ["1234", None, 3, {"0": 1}])
def test_what_is_no_list_is_taken_apart(value):
    assert listed([1, 2], "bbox") == [1, 2]
    with pytest.raises(TypeError, match="bbox must be a list, it is"):
        listed(value, "bbox")


def test_equal_ids_are_two():
    assert identifier(7) == identifier("7") == identifier(7.0) == 7


def test_different_ids_are_one():
    assert identifier("007") == "007"
    assert identifier("7.0") == "7.0"
    assert identifier("a") == "a"


@pytest.mark.parametrize("value", [None, True, 7.5, [], " "])
def test_what_is_no_id_is_taken(value):
    with pytest.raises((TypeError, ValueError), match="id"):
        identifier(value)


def test_what_is_no_text_is_taken():
    assert text("", "raw") == ""
    with pytest.raises(TypeError, match="raw must be text, it is 3"):
        text(3, "raw")
    with pytest.raises(ValueError, match="name is empty"):
        some_text(" ", "name")


@pytest.mark.parametrize("damaged", ["a\ud800", "caf\udce9", "a\0b"])
def test_a_damaged_text_is_taken(damaged):
    with pytest.raises(ValueError, match=r"the caption is damaged, it holds \\(ud800|udce9|x00)"):
        text(damaged, "the caption")


def test_the_name_of_a_file_must_be_utf_8():
    assert path_text("caf\udce9.png", "file_name") == "caf\udce9.png"
    for wrong in ("a\0.png", " ", ""):
        with pytest.raises(ValueError, match="file_name"):
            path_text(wrong, "file_name")
    with pytest.raises(TypeError, match="file_name must be text, it is 7"):
        path_text(7, "file_name")
