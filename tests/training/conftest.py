"""Fixtures of the training tests."""

import pytest
import toy_runs

from fiber_cli.errors import EXIT_OK


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The folder of the toy's uninterrupted run in one process."""
    folder = tmp_path_factory.mktemp("plain")
    codes, log = toy_runs.run(folder)
    assert codes == [EXIT_OK], log
    return folder
