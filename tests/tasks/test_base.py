"""What every task's module shares."""

import pytest
import torch
from torch import nn

from fiber_cli.settings import Owner, owned
from fiber_cli.tasks import TASKS, declared
from fiber_cli.tasks.base import Task


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
