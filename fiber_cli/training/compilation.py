"""Whether the blocks of a run are compiled: what `runtime.compile` comes to where it runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from fiber_cli.characters import one_line
from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.distributed.collectives import gather_objects
from fiber_cli.errors import UserError
from fiber_cli.printing import first_line

#: The fewest steps of a run that `auto` compiles: graphs take minutes to make, whatever the run's length.
LONG_RUN = 2000


class Compilation(NamedTuple):
    """Whether the blocks are compiled, and what the log says of it: nothing where nobody would expect them to be."""

    used: bool
    line: str = ""


def compilation(runtime: RuntimeSettings, target: torch.device, steps: int) -> Compilation:
    """Of a run of so many steps on a device, the same on all ranks. A collective. UserError where a recipe asks for
    what does not run there."""
    if runtime.compile is False:
        return Compilation(False)
    if runtime.compile == "auto":
        if target.type != "cuda" or steps < LONG_RUN:
            return Compilation(False)
        if runtime.zero_stage == 3:
            return Compilation(False, "blocks are not compiled: ZeRO 3 gathers the weights of each when it is called")
    problem = _problem_of_any_rank(target)
    if problem is None:
        return Compilation(True, "blocks are compiled in the first steps, which takes minutes (runtime.compile)")
    if runtime.compile == "auto":
        return Compilation(False, f"blocks are not compiled, as torch.compile does not run here: {problem}")
    raise UserError(
        f"runtime.compile: torch.compile does not run here: {problem}; mend that, or set it to false, or to auto, "
        "which compiles where it runs"
    )


def _problem_of_any_rank(target: torch.device) -> str | None:
    """The first rank's that has one; all find theirs."""
    problems = gather_objects(compiling_problem(target))
    return next((problem for problem in problems if problem is not None), None)


def compiling_problem(target: torch.device) -> str | None:
    """Why torch.compile does not run on a device, as compiling a small function and its gradient says; None where it
    does. On CPUs it needs a compiler of C++, on GPUs Triton and a compiler of C."""
    numbers = torch.ones(8, device=target, requires_grad=True)
    with _quiet():
        try:
            torch.compile(_small)(numbers).backward()
        except Exception as error:  # of compilers, of Triton, of torch's several layers
            return one_line(first_line(error)) or type(error).__name__
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, torch does not log what the caller will say, at length."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _small(numbers: Tensor) -> Tensor:
    return (numbers.sin() + 1).sum()
