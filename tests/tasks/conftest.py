"""Fixtures of the tests of tasks."""

import pytest

from fiber_cli.checkpoints.loading import new_task
from fiber_cli.model.config import TINY
from fiber_cli.tasks import TASKS, declared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext

#: Settings that make a module small.
SMALL = {"channels": 32, "blocks": 1}


@pytest.fixture(scope="session")
def contexts(tokenizer) -> dict[str, TaskContext]:
    """Of every declared task, with small settings and two labels."""
    made = {}
    for name in TASKS:
        settings = declared(name).settings
        small = {setting: value for setting, value in SMALL.items() if setting in settings.__dataclass_fields__}
        made[name] = TaskContext(settings(name=name, **small), TINY, tokenizer, 12, ("a", "b"))
    return made


@pytest.fixture(scope="session")
def modules(contexts) -> dict[str, Task]:
    """The module of every declared task, with fresh weights."""
    return {name: new_task(context) for name, context in contexts.items()}
