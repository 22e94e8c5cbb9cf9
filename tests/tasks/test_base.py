"""What every task's module shares."""

from dataclasses import dataclass

import pytest
import torch
from postponed import LateSettings
from torch import nn

from fiber_cli.errors import DeclarationError
from fiber_cli.model.config import TINY
from fiber_cli.settings import Owner, option, owned
from fiber_cli.tasks import TASKS, declared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext


class Least(Task):
    """A task that has nothing but what it must have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, batch):
        return {"loss": self.layer(batch["x"]).mean()}

    def predict(self, batch):
        return self.layer(batch["x"])


def test_a_task_must_give_losses_and_predictions():
    class Half(Task):
        forward = Least.forward

    with pytest.raises(TypeError, match="abstract method"):
        Half()


def test_what_a_task_does_not_say_is_nothing():
    task = Least()
    assert task.switched_off == frozenset()
    assert task.step_state() == {}
    assert task.resume_state() == {}
    assert task.prepare_training(None) is None
    task.load_resume_state({})
    assert task({"x": torch.ones(3, 2)})["loss"].requires_grad


def test_what_a_step_changes_is_what_a_run_goes_on_from():
    class Counting(Least):
        def step_state(self):
            return {"count": torch.ones(1)}

    assert Counting().resume_state() == {"count": torch.ones(1)}


@pytest.mark.parametrize("name", TASKS)
def test_a_context_gives_the_sizes_and_the_settings_of_the_model(name, contexts):
    class Recording(Least):
        def __init__(self, config, **settings):
            super().__init__()
            self.config, self.settings = config, settings

    context = contexts[name]
    task = Recording.from_context(context)
    assert task.config is context.model
    assert task.settings == owned(context.settings, Owner.MODEL)


@pytest.mark.parametrize("name", TASKS)
def test_every_module_is_made_of_its_context(name, contexts, modules):
    assert type(modules[name]) is declared(name).module.load()
    assert modules[name].encoder.config == contexts[name].model


class Sized(Least):
    """Takes luck, and the length that nothing gives."""

    def __init__(self, config, *, luck: float = 0.5):
        super().__init__()


def context_of(settings):
    return TaskContext(settings, TINY, None, 12)


def test_a_setting_goes_nowhere():
    @dataclass(frozen=True)
    class Settings(LateSettings):
        patience: int = option("Of the guesser.", 1, owner=Owner.MODEL)

    assert isinstance(Sized.from_context(context_of(LateSettings("late"))), Sized)
    with pytest.raises(DeclarationError, match=r"task 'late': the setting 'patience' is the model's .* Sized has no"):
        Sized.from_context(context_of(Settings("late")))


def test_an_argument_comes_from_nowhere():
    class Longer(Sized):
        def __init__(self, config, length: int, *, luck: float = 0.5):
            super().__init__(config, luck=luck)

    with pytest.raises(DeclarationError, match="task 'late': Longer needs the argument 'length', and no setting"):
        Longer.from_context(context_of(LateSettings("late")))

    # Not the model's.
    class Sided(Sized):
        def __init__(self, config, sides, luck):
            super().__init__(config, luck=luck)

    with pytest.raises(DeclarationError, match="Sided needs the argument 'sides'"):
        Sided.from_context(context_of(LateSettings("late")))
