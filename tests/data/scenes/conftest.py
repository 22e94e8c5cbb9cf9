"""Scenes that several tests look at."""

import pytest

from fiber_cli.data.scenes.layout import Scene, scene


@pytest.fixture(scope="session")
def some_scenes() -> list[Scene]:
    return [scene(0, "val", index) for index in range(200)]


@pytest.fixture(scope="session")
def many_scenes() -> list[Scene]:
    return [scene(1, "val", index) for index in range(1600)]
