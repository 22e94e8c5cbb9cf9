"""What the first rank does for all."""

from collections.abc import Callable

from fiber_cli.distributed import collectives
from fiber_cli.errors import EXIT_FAILED, UserError


def on_first_rank(action: Callable[[], object]) -> None:
    """Have the first rank do something; every rank calls this. A UserError of it is raised there and ends the other
    ranks, which have nothing to add, with SystemExit, so that none of them waits for it."""
    problem: UserError | None = None
    if collectives.is_main():
        try:
            action()
        except UserError as error:
            problem = error
    has_failed = collectives.gather_objects(problem is not None)[0]
    if problem is not None:
        raise problem
    if has_failed:
        raise SystemExit(EXIT_FAILED)
