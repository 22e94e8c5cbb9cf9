"""Fixtures of the tests of region-level tasks."""

import json

import pytest

from fiber_cli.data.text import load_tokenizer


@pytest.fixture(scope="session")
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer("builtin")
