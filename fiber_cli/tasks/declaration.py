"""The declaration of a task: everything that the rest of the program needs to know of it, said once.

There is no default: what a declaration leaves out is an error where it is made, not at a run's first validation. This
module and the settings of tasks load no torch; what does is named by a `Lazy` path.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from fiber_cli.data.source import Source
from fiber_cli.data.sources import FORMATS
from fiber_cli.settings import Owner, TaskSettings
from fiber_cli.tasks.abilities import Ability

if TYPE_CHECKING:
    from fiber_cli.config.recipe import Recipe
    from fiber_cli.tasks.base import Task
    from fiber_cli.tasks.evaluation import MakeEvaluation
    from fiber_cli.tasks.training_data import MakeTrainingData

Target = TypeVar("Target")


@dataclass(frozen=True)
class Lazy(Generic[Target]):
    """Something that is loaded when it is asked for; path: `module:name`, the module with all its packages."""

    path: str

    def __post_init__(self) -> None:
        module, colon, name = self.path.partition(":")
        if not (module and colon and name.isidentifier()):
            raise TypeError(f"{self.path!r} is not of the form package.module:name")

    def load(self) -> Target:
        module, _, name = self.path.partition(":")
        target: Target = getattr(import_module(module), name)
        return target


@dataclass(frozen=True)
class ParameterKinds:
    """Prefixes of the names of all parameters outside the encoder: heads learn `optim.head_mult` times faster than the
    backbone, cross-modal parameters `optim.cross_modal_mult` times."""

    heads: tuple[str, ...]
    cross_modal: tuple[str, ...]
    backbone: tuple[str, ...]


@dataclass(frozen=True)
class WeightChanges:
    """Prefixes of the parameters that weights of another task, given by `--init-from`, may lack (`fresh`: they keep
    their random values) and may have beyond this task's (`dropped`: they are left out)."""

    fresh: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class PublishedForm:
    """A kind of checkpoint of the authors' code that becomes one of this task: the stage whose names its weights have,
    the settings it was trained with, and its text length in tokens. labels: the weights, one for each label, that tell
    how many labels there are; None for a task without labels."""

    stage: Literal["coarse", "fine"]
    settings: Mapping[str, Any]
    text_length: int
    labels: str | None = None


@dataclass(frozen=True)
class Rule:
    """Settings that are right alone and wrong together.

    keys: dotted names in a recipe, the first of which is blamed; the rule rests where one of them is wrong by itself.
    problem: what is wrong, or None.
    """

    keys: tuple[str, ...]
    problem: "Callable[[Recipe], str | None]"


def rule(*keys: str) -> "Callable[[Callable[[Recipe], str | None]], Rule]":
    """Makes a `Rule` of a function that is about these keys."""

    def decorate(problem: "Callable[[Recipe], str | None]") -> Rule:
        return Rule(keys, problem)

    return decorate


@dataclass(frozen=True, kw_only=True)
class TaskDeclaration:
    """One task. Raises TypeError for a declaration that is not whole or does not fit its settings.

    name: in recipes and on the command line; verb: the command that trains it; about: one line.
    settings: the `task` section of its recipes. rules: between its settings and others.
    reads: what its data must yield; a source of any of these types will do. scenes: the built-in scenes that it is
    evaluated on, as settings of their format (`data.sources.scenes`) but for split and count. free_image_size: images
    keep their aspect ratio, so that the windows of the image encoder keep their size.
    module, training_data, evaluation: see `tasks.base.Task`, `tasks.training_data` and `tasks.evaluation`.
    metrics: what `log.keep_best` can go by under given settings. evaluation_batch: images a pass, where none is given.
    parameters, init_from: of the module. abilities: what inference can do with a checkpoint, as far as its settings do
    not switch it off. published: kinds of checkpoint of the authors' code by the name that `fiber convert --task` has.
    """

    name: str
    verb: Literal["pretrain", "finetune"]
    about: str
    settings: type[TaskSettings]
    rules: tuple[Rule, ...]
    reads: tuple[type[Source], ...]
    scenes: tuple[Mapping[str, Any], ...]
    free_image_size: bool
    module: "Lazy[type[Task]]"
    training_data: "Lazy[MakeTrainingData]"
    evaluation: "Lazy[MakeEvaluation]"
    metrics: Callable[[Any], tuple[str, ...]]
    evaluation_batch: int
    parameters: ParameterKinds
    init_from: WeightChanges
    abilities: tuple[type[Ability], ...]
    published: Mapping[str, PublishedForm]

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise TypeError(f"task {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        fields = dataclasses.fields(self.settings)
        names = typing.get_args(fields[0].type) if fields[0].name == "name" else ()
        if self.name not in names:
            yield f"{self.settings.__name__} needs a first field `name` whose Literal has {self.name!r}"
        for setting in fields[1:]:
            if not isinstance(setting.metadata.get("owner"), Owner):
                yield f"the setting {setting.name!r} does not say whose it is: give option() an owner"
        for what in ("about", "reads", "scenes"):
            if not getattr(self, what):
                yield f"{what} is empty"
        for scenes in self.scenes:
            if scenes.get("kind") not in FORMATS:
                yield f"scenes: {dict(scenes)} names no kind of source"
        # Of classes that a type checker would refuse, and a contributor may not have run one.
        yield from _not_derived("reads", self.reads, Source)
        yield from _not_derived("abilities", self.abilities, Ability)
        for what in ("module", "training_data", "evaluation"):
            if not isinstance(getattr(self, what), Lazy):
                yield f"{what} is to be Lazy('package.module:name')"

    def can_read(self, source: type[Source]) -> bool:
        """Whether the task can be trained and evaluated on a source of this type."""
        return issubclass(source, self.reads)


def _not_derived(what: str, classes: Iterable[Any], base: type[Any]) -> Iterator[str]:
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, base)):
            yield f"{what}: {each!r} is no {base.__name__}"
