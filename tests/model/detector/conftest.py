"""Published numbers, read once."""

import json
from typing import Any

import pytest


@pytest.fixture(scope="session")
def units(shared) -> dict[str, Any]:
    """What the published code's functions gave for small inputs."""
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())["units"]
