"""One folder a task; adding one is adding a folder, a line in `TASKS`, a recipe and a test.

Importing this package loads the table alone; the declarations load no torch.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from fiber_cli.errors import DeclarationError, UserError
from fiber_cli.printing import say_lines
from fiber_cli.settings import TaskSettings, load_declaration
from fiber_cli.tasks.abilities import Ability
from fiber_cli.tasks.declaration import PublishedForm, TaskDeclaration

#: Name in recipes and on the command line → package of this folder and its declaration.
TASKS = {
    "coarse": "coarse:COARSE",
    "fine": "regions:FINE",
    "retrieval": "retrieval:RETRIEVAL",
    "vqa": "vqa:VQA",
    "vqa_generated": "vqa_generated:GENERATED_VQA",
    "nlvr2": "nlvr2:NLVR2",
    "caption": "caption:CAPTION",
    "detection": "regions:DETECTION",
    "grounding": "regions:GROUNDING",
    "refexp": "regions:REFEXP",
}


@cache
def declared(name: str) -> TaskDeclaration:
    """The declaration of a task. Raises UserError for a name that is not in the table, DeclarationError for a line of
    it that leads to no whole declaration of that name."""
    if name not in TASKS:
        raise UserError(f"task {name!r} is unknown to this version; it knows {', '.join(TASKS)}")
    line = TASKS[name]
    declaration = load_declaration(__name__, "TASKS", name, line, form="folder:DECLARATION", kind=TaskDeclaration)
    if declaration.name != name:
        raise DeclarationError(f"TASKS names {line} for {name!r}, which declares {declaration.name!r}")
    return declaration


def declarations() -> Iterator[TaskDeclaration]:
    """All of them, in the order of the table. One that is wrong is told on standard error and left out, so that the
    commands of other tasks and the help go on; asking for it by name is an error."""
    for name in TASKS:
        try:
            declaration = declared(name)
        except DeclarationError as error:
            _tell_once(str(error))
            continue
        yield declaration


@cache
def _tell_once(message: str) -> None:
    say_lines(f"fiber: left out: {message}")


def tasks_with(ability: type[Ability]) -> tuple[str, ...]:
    """The tasks whose checkpoints can do something, as far as their settings do not switch it off."""
    return tuple(declaration.name for declaration in declarations() if ability in declaration.abilities)


def published_forms() -> dict[str, tuple[TaskDeclaration, PublishedForm]]:
    """The kinds of checkpoint of the authors' code that can be converted, each with the task that it becomes one of."""
    forms = {}
    for declaration in declarations():
        for name, form in declaration.published_checkpoints.items():
            forms[name] = declaration, form
    return forms


class SettingsByName(Mapping[str, type[TaskSettings]]):
    """Task → settings class."""

    def __getitem__(self, name: str) -> type[TaskSettings]:
        if name not in TASKS:
            raise KeyError(name)
        return declared(name).settings

    def __iter__(self) -> Iterator[str]:
        return iter(TASKS)

    def __len__(self) -> int:
        return len(TASKS)
