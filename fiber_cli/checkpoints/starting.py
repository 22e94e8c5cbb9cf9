"""Which of the shipped checkpoints the training of a task begins with, where `builtin` alone is named."""

from pathlib import Path

from fiber_cli.checkpoints import shipped
from fiber_cli.checkpoints.config import read_config
from fiber_cli.errors import UserError
from fiber_cli.tasks import declarations, declared
from fiber_cli.tasks.declaration import TaskDeclaration


def shipped_to_start(task: str) -> Path:
    """The pre-trained one that has most of what the task has. Raises UserError that lists what there is where none can
    start it, or where several could."""
    of_task: dict[str, list[Path]] = {}
    for name in shipped.names():
        path = shipped.directory_of(name)
        of_task.setdefault(read_config(path).task.name, []).append(path)
    for starter in starters(task):
        paths = of_task.get(starter, [])
        if len(paths) > 1:
            able = " and ".join(map(shipped.label, paths))
            raise UserError(f"{shipped.BUILTIN}: {able} can start {task}; name one of them with --init-from")
        if paths:
            return paths[0]
    shipped.refuse_none()
    heading = f"no pre-trained checkpoint that can start {task} is shipped; name another with --init-from. There are:"
    raise UserError(heading, *shipped.in_words())


def starters(task: str) -> list[str]:
    """The tasks of pre-training whose weights can start another, those first that have most of its heads.

    A task says which of others' weights it leaves out (`init_from.dropped`); what it has itself it keeps.
    """
    target = declared(task)
    able = [source for source in declarations() if source.verb == "pretrain" and _fits(source, target)]

    def kept(source: TaskDeclaration) -> int:
        return len(_heads(source) & _heads(target))

    return [source.name for source in sorted(able, key=kept, reverse=True)]


def _fits(source: TaskDeclaration, target: TaskDeclaration) -> bool:
    """Whether every head of one has its place in the other or is left out there."""
    known = (*_heads(target), *target.init_from.dropped)
    return all(head.startswith(known) for head in _heads(source))


def _heads(declaration: TaskDeclaration) -> set[str]:
    """Prefixes of the parameters that are not the encoder's."""
    kinds = declaration.parameters
    return {*kinds.heads, *kinds.cross_modal, *kinds.backbone}
