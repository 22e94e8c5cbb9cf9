"""How ranks ended, in words and as one exit code."""

import signal

import pytest

from fiber_cli.distributed.rank_ends import Conclusion, End, conclude
from fiber_cli.distributed.rank_report import Report
from fiber_cli.errors import EXIT_STOPPED

LOST = Report("another rank has ended", follows=True)
BAD = Report("no such images")
FAR = -signal.SIGKILL


@pytest.mark.parametrize(
    ("ends", "asked", "code", "last"),
    [
        ([End(0, 0), End(1, 0)], [], 0, None),
        ([End(0, EXIT_STOPPED), End(1, EXIT_STOPPED)], [signal.SIGTERM], EXIT_STOPPED, None),
        # A rank that was lost is no reason, whichever ends first.
        ([End(0, 1, LOST), End(1, FAR)], [], 1, "rank 1 was ended by SIGKILL, likely out of memory"),
        ([End(1, FAR), End(0, 1, LOST)], [], 1, "rank 1 was ended by SIGKILL, likely out of memory"),
        ([End(0, -signal.SIGABRT), End(1, -signal.SIGSEGV)], [], 1, "rank 1 was ended by SIGSEGV"),
        ([End(0, -signal.SIGABRT), End(1, 1, BAD)], [], 1, "rank 1: no such images"),
        ([End(0, 2, BAD), End(1, 2, BAD)], [], 2, "no such images"),
        ([End(0, 1, BAD), End(1, 1, BAD._replace(is_told_here=False))], [], 1, "no such images"),
        ([End(1, 2, BAD)], [], 2, "rank 1: no such images"),
        ([End(0, 1, LOST)], [], 1, "rank 0: another rank has ended"),
        # Signals that were passed on are no failures of the ranks.
        ([End(0, EXIT_STOPPED), End(1, 1, LOST)], [signal.SIGTERM], EXIT_STOPPED, "rank 0 was stopped by a signal"),
        ([End(0, -signal.SIGTERM), End(1, -signal.SIGTERM)], [signal.SIGTERM], 143, None),
        ([End(0, 130), End(1, 130)], [signal.SIGINT], 130, None),
        ([End(1, -signal.SIGTERM)], [], 1, "rank 1 was ended by SIGTERM, from outside: likely the scheduler"),
        ([End(1, 143)], [], 143, "rank 1 was ended by SIGTERM, from outside"),
        ([End(1, 7)], [signal.SIGTERM], 7, "rank 1 failed with exit code 7"),
    ],
)
def test_the_reason_is_buried(ends, asked, code, last):
    conclusion = conclude(ends, asked, 2)
    assert conclusion.code == code
    if last is None:
        assert not conclusion.lines
    else:
        assert conclusion.lines[-1].startswith(last)


def test_a_second_reason_is_left_out():
    ends = [End(0, 1, Report("no such images")), End(1, 1, Report("no such texts"))]
    assert conclude(ends, [], 2) == Conclusion(1, ["rank 0: no such images", "rank 1: no such texts"])
