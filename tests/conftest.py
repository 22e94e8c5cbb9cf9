"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden numbers and real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("FIBER_SHARED_DIR", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set FIBER_SHARED_DIR to run this test")
    return folder
