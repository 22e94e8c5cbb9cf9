"""The declaration of a task: everything that the rest of the program needs to know of it, said once.

There is no default: what a declaration leaves out is an error where it is made, not at a run's first validation. This
module and the settings of tasks load no torch; what does is named by a `Lazy` path.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from fiber_cli.data.source import Source
from fiber_cli.data.sources import FORMATS, source_format
from fiber_cli.errors import DeclarationError
from fiber_cli.settings import Owner, SourceSettings, TaskSettings, field_types, load_named
from fiber_cli.tasks.abilities import Ability

if TYPE_CHECKING:
    from fiber_cli.config.recipe import Recipe
    from fiber_cli.tasks.base import Task
    from fiber_cli.tasks.evaluation import MakeEvaluation
    from fiber_cli.tasks.training_data import MakeTrainingData

Target = TypeVar("Target")

VERBS = ("pretrain", "finetune")
#: The fields of a declaration that are loaded when they are asked for.
LAZY = ("module", "training_data", "evaluation")


@dataclass(frozen=True)
class Lazy(Generic[Target]):
    """Something that is loaded when it is asked for; path: `module:name`, the module with all its packages."""

    path: str
    #: What names it, in words; a declaration fills it in.
    where: str = field(default="Lazy", compare=False)

    def __post_init__(self) -> None:
        module, colon, name = self.path.partition(":")
        if not (module and colon and name.isidentifier()):
            raise DeclarationError(f"{self.path!r} is not of the form package.module:name")

    def load(self) -> Target:
        """Raises DeclarationError where the path leads nowhere; other errors are the module's own."""
        target: Target = load_named(*self.path.split(":"), where=f"{self.where}: {self.path!r}")
        return target


@dataclass(frozen=True)
class ParameterKinds:
    """Prefixes of the names of all parameters outside the encoder: heads learn `optim.head_mult` times faster than the
    backbone, cross-modal parameters `optim.cross_modal_mult` times."""

    heads: tuple[str, ...]
    cross_modal: tuple[str, ...]
    backbone: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises DeclarationError for what are no prefixes, and where a parameter could be of two kinds."""
        lists = {"heads": self.heads, "cross_modal": self.cross_modal, "backbone": self.backbone}
        known: dict[str, str] = {}
        for what, prefixes in lists.items():
            _check_prefixes(f"parameters: {what}", prefixes)
            for prefix in prefixes:
                if prefix.startswith("encoder."):
                    raise DeclarationError(
                        f"parameters: {what}: {prefix!r} is inside the encoder, whose rates are fixed"
                    )
                for other, where in known.items():
                    if prefix.startswith(other) or other.startswith(prefix):
                        raise DeclarationError(
                            f"parameters: {prefix!r} in {what} and {other!r} in {where} begin the same names: one "
                            "parameter learns at one rate"
                        )
                known[prefix] = what


@dataclass(frozen=True)
class WeightChanges:
    """Prefixes of the parameters that weights of another task, given by `--init-from`, may lack (`fresh`: they keep
    their random values) and may have beyond this task's (`dropped`: they are left out)."""

    fresh: tuple[str, ...]
    dropped: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises DeclarationError for what are no prefixes."""
        _check_prefixes("init_from: fresh", self.fresh)
        _check_prefixes("init_from: dropped", self.dropped)


def _check_prefixes(what: str, prefixes: Any) -> None:
    # Of types that a type checker would refuse: ("head.") is a text, whose letters would each be a prefix.
    if not isinstance(prefixes, tuple):
        raise DeclarationError(f"{what} is to be a tuple of texts, not {prefixes!r}; one alone is ('head.',)")
    for prefix in prefixes:
        if not isinstance(prefix, str) or not prefix:
            raise DeclarationError(f"{what}: {prefix!r} is to be a text, the beginning of parameters' names")


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
    """One task. Raises DeclarationError for a declaration that is not whole or does not fit its settings.

    name: in recipes and on the command line; verb: the command that trains it; about: one line.
    settings: the `task` section of its recipes. rules: between its settings and others.
    reads: what its data must yield; a source of any of these types will do. scenes: the built-in scenes that it is
    evaluated on, as settings of their format (`data.sources.scenes`) but for split and count. free_image_size: images
    keep their aspect ratio, so that the windows of the image encoder keep their size.
    module, training_data, evaluation: see `tasks.base.Task`, `tasks.training_data` and `tasks.evaluation`.
    metrics: what `log.keep_best` can go by under given settings. evaluation_batch: images a pass, where none is given.
    calibrated: settings of the model that validation chooses where a recipe leaves them null, each with the metric that
    gives its value. parameters, init_from: of the module. abilities: what inference can do with a checkpoint, as far as
    its settings do not switch it off. published_checkpoints: kinds of checkpoint of the authors' code by the name that
    `fiber convert --task` has.
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
    calibrated: Mapping[str, str]
    parameters: ParameterKinds
    init_from: WeightChanges
    abilities: tuple[type[Ability], ...]
    published_checkpoints: Mapping[str, PublishedForm]

    def __post_init__(self) -> None:
        # One after the other: what is of another type cannot be looked into.
        for problem in chain(self._problems_of_types(), self._problems()):
            raise DeclarationError(f"task {self.name!r}: {problem}")
        for what in LAZY:
            located = dataclasses.replace(getattr(self, what), where=f"task {self.name!r}: {what}")
            object.__setattr__(self, what, located)

    def _problems_of_types(self) -> Iterator[str]:
        """What a type checker would refuse; a contributor may not have run one."""
        given: Any = self
        if given.verb not in VERBS:
            yield f"verb is {given.verb!r}: give one of {', '.join(VERBS)}"
        if type(given.evaluation_batch) is not int or given.evaluation_batch < 1:
            yield f"evaluation_batch is {given.evaluation_batch!r}: give a whole number, at least 1"
        for what in ("rules", "reads", "scenes", "abilities"):
            if not isinstance(getattr(given, what), tuple):
                yield f"{what} is to be a tuple, not {getattr(given, what)!r}; one alone is (it,)"
        if not isinstance(given.free_image_size, bool):
            yield f"free_image_size is {given.free_image_size!r}: give True or False"
        if not callable(given.metrics):
            yield f"metrics is {given.metrics!r}: give a function from settings to a tuple of names"
        for what, kind in (("parameters", ParameterKinds), ("init_from", WeightChanges)):
            if not isinstance(getattr(given, what), kind):
                yield f"{what} is {getattr(given, what)!r}, no {kind.__name__}"
        for what in LAZY:
            if not isinstance(getattr(given, what), Lazy):
                yield f"{what} is to be Lazy('package.module:name')"
        if not isinstance(given.calibrated, Mapping):
            yield f"calibrated is {given.calibrated!r}: give a mapping, {{}} where there is none"
        if not isinstance(given.published_checkpoints, Mapping):
            yield f"published_checkpoints is {given.published_checkpoints!r}: give a mapping, {{}} where there are none"

    def _problems(self) -> Iterator[str]:
        fields = dataclasses.fields(self.settings)
        first = field_types(self.settings)[fields[0].name]
        names = typing.get_args(first) if fields[0].name == "name" else ()
        if self.name not in names:
            yield f"{self.settings.__name__} needs a first field `name` whose Literal has {self.name!r}"
        for setting in fields[1:]:
            if not isinstance(setting.metadata.get("owner"), Owner):
                yield f"the setting {setting.name!r} does not say whose it is: give option() an owner"
        for what in ("about", "reads", "scenes"):
            if not getattr(self, what):
                yield f"{what} is empty"
        settings = {setting.name: setting for setting in fields}
        for name in self.calibrated:
            if name not in settings or settings[name].metadata.get("owner") is not Owner.MODEL:
                yield f"calibrated: {name!r} is no setting of {self.settings.__name__} that belongs to the model"
        for scenes in self.scenes:
            if scenes.get("kind") not in FORMATS:
                yield f"scenes: {dict(scenes)} names no kind of source"
            if "split" in scenes or "count" in scenes:
                yield f"scenes: {dict(scenes)}: leave out split and count, `fiber eval` gives them"
        rules: Iterable[Any] = self.rules
        for each in rules:
            if not isinstance(each, Rule):
                yield f"rules: {each!r} is no Rule: make it one with @rule(its keys)"
        forms: Mapping[str, Any] = self.published_checkpoints
        for name, form in forms.items():
            if not isinstance(form, PublishedForm):
                yield f"published_checkpoints: {name!r} is {form!r}, no PublishedForm"
        yield from _not_derived("reads", self.reads, Source)
        yield from _not_derived("abilities", self.abilities, Ability)

    def load_module(self) -> "type[Task]":
        """The module's class. Raises DeclarationError where it is no task or lacks an ability that is declared."""
        from fiber_cli.tasks.base import Task

        module: Any = self.module.load()
        bases: tuple[type[Any], ...] = (Task, *self.abilities)
        for base in bases:
            if not (isinstance(module, type) and issubclass(module, base)):
                what = "module" if base is Task else "abilities"
                raise DeclarationError(
                    f"task {self.name!r}: {what}: {self.module.path} is not derived from {base.__name__}: make it a "
                    f"base class, or correct {what} in the declaration"
                )
        loaded: type[Task] = module
        return loaded

    def metric_names(self, settings: TaskSettings) -> tuple[str, ...]:
        """What `log.keep_best` can go by. Raises DeclarationError where `metrics` gives anything but a tuple of
        texts, such as a text, of which every part would be a metric."""
        names: Any = self.metrics(settings)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise DeclarationError(f"task {self.name!r}: metrics gives {names!r}, which is no tuple of texts")
        return names

    def calibrated_values(self, settings: TaskSettings, metrics: Mapping[str, float]) -> dict[str, float]:
        """The settings that validation chooses, as far as they are left null and their metrics are there."""
        given = dataclasses.asdict(settings)
        values = {}
        for name, metric in self.calibrated.items():
            if given[name] is None and metric in metrics:
                values[name] = metrics[metric]
        return values

    def scene_settings(self, split: Any, count: int) -> list[SourceSettings]:
        """The built-in scenes of a split as entries of a recipe. Raises DeclarationError where the task cannot read
        them or their format does not have the settings."""
        entries = []
        for scenes in self.scenes:
            scene_format = source_format(scenes["kind"])
            if not self.can_read(scene_format.source):
                wanted = " or ".join(each.yields for each in self.reads)
                raise DeclarationError(f"task {self.name!r}: scenes: {dict(scenes)} has no {wanted}, which it reads")
            try:
                make: Callable[..., SourceSettings] = scene_format.settings
                entries.append(make(**scenes, split=split, count=count))
            except TypeError as error:
                raise DeclarationError(f"task {self.name!r}: scenes: {dict(scenes)}: {error}") from error
        return entries

    def can_read(self, source: type[Source]) -> bool:
        """Whether the task can be trained and evaluated on a source of this type."""
        return issubclass(source, self.reads)


def _not_derived(what: str, classes: Iterable[Any], base: type[Any]) -> Iterator[str]:
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, base)):
            yield f"{what}: {each!r} is no {base.__name__}"
