"""What a user can do wrong is told in one line, and how a run ends."""

import json
import pickle

import pytest

from fiber_cli import errors
from fiber_cli.errors import UserError, first_names, optional
from fiber_cli.settings import RecipeError


def test_exit_codes_tell_ends_apart():
    codes = [errors.EXIT_OK, errors.EXIT_FAILED, errors.EXIT_USAGE, errors.EXIT_STOPPED]
    assert codes == [0, 1, 2, 75]
    assert UserError("x").exit_code == errors.EXIT_FAILED
    assert isinstance(UserError("x"), ValueError)


def test_so_many_names_as_a_message_shows():
    assert first_names([]) == "none"
    assert first_names(["a", "b"]) == "a, b"
    assert first_names([str(number) for number in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert first_names(["a", "b", "c"], limit=1) == "a and 2 more"


def test_a_package_that_is_not_there_is_told_with_its_mend():
    assert optional("json", "install it") is json
    with pytest.raises(UserError, match=r"^install it$"):
        optional("fiber_cli_no_such_package", "install it")


def test_an_error_splits_its_line_or_loses_its_details():
    error = UserError("a\nb\x1b.png: no such file", "tab\t: one", "two")
    assert str(error) == "a\\nb\\x1b.png: no such file\n  tab\\t: one\n  two"
    assert error.message == "a\\nb\\x1b.png: no such file"
    assert str(UserError(f"in a run: {error.message}", *error.details)) == f"in a run: {error}"
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error)
    assert str(RecipeError("2 problems", "one", "two")) == "2 problems\n  one\n  two"
