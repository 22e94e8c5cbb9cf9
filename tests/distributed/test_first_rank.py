"""One rank's error ends all, and is told once."""

import pytest

from fiber_cli.distributed import collectives
from fiber_cli.distributed.first_rank import on_first_rank
from fiber_cli.errors import UserError


def fail():
    raise UserError("no")


def test_the_first_ranks_error_is_lost():
    with pytest.raises(UserError, match="no"):
        on_first_rank(fail)
    done = []
    on_first_rank(lambda: done.append(1))
    assert done == [1]


def test_another_rank_waits_or_tells_it_again(monkeypatch):
    monkeypatch.setattr(collectives, "is_main", lambda: False)
    monkeypatch.setattr(collectives, "gather_objects", lambda failed: [True, failed])
    with pytest.raises(SystemExit) as ended:
        on_first_rank(fail)
    assert ended.value.code == 1
    monkeypatch.setattr(collectives, "gather_objects", lambda failed: [False, failed])
    on_first_rank(fail)
