"""What a rank says of its failure: to its launcher, which tells it once and at last, else on standard error."""

import json
import os
from typing import NamedTuple

from fiber_cli.printing import say_lines

#: The descriptor of the pipe to the launcher, for the ranks that `launch` starts.
PIPE = "FIBER_RANK_REPORT"
#: Bytes that a pipe takes without a reader; longer words go to standard error.
_LIMIT = 16000


class Report(NamedTuple):
    """Why a rank failed. follows: because another rank had ended, which is no reason of its own. is_told_here: whether
    this rank tells it where no launcher does, because all have the same to tell."""

    message: str
    follows: bool = False
    is_told_here: bool = True


def report(failure: Report) -> None:
    """Tell the user, through the launcher where there is one."""
    line = json.dumps(failure._asdict()).encode() + b"\n"
    pipe = os.environ.get(PIPE)
    if pipe is not None and len(line) <= _LIMIT:
        try:
            os.write(int(pipe), line)
            return
        except (OSError, ValueError):
            pass  # no launcher reads it
    if failure.is_told_here:
        say_lines(f"fiber: {failure.message}")


def read_reports(content: bytes) -> list[Report]:
    """What came through a rank's pipe."""
    reports = []
    for line in content.splitlines():
        reports.append(Report(**json.loads(line)))
    return reports
