"""Abilities: what a declaration promises, the module has as a type."""

import inspect

import pytest

from fiber_cli.tasks import TASKS, declarations, declared
from fiber_cli.tasks.abilities import Ability, Answering, Captioning, Detecting, Embedding, Matching

ABILITIES = [Embedding, Matching, Answering, Captioning, Detecting]


@pytest.mark.parametrize("ability", ABILITIES)
def test_abilities_are_abstract_and_say_what_they_need(ability):
    assert inspect.isabstract(ability)
    assert issubclass(ability, Ability)
    assert ability.needs
    with pytest.raises(TypeError, match="abstract"):
        ability()


@pytest.mark.parametrize("name", TASKS)
def test_modules_have_the_abilities_that_are_declared_and_no_other(name):
    declaration = declared(name)
    module = declaration.module.load()
    assert {ability for ability in ABILITIES if issubclass(module, ability)} == set(declaration.abilities)
    assert not inspect.isabstract(module)


def test_every_ability_is_some_tasks():
    declared_abilities = {ability for declaration in declarations() for ability in declaration.abilities}
    assert declared_abilities == set(ABILITIES)


def test_only_declared_abilities_are_switched_off(modules):
    for name, module in modules.items():
        assert module.switched_off <= set(declared(name).abilities), name
