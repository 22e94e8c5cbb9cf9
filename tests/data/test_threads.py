"""Work that is done in threads, in order, and left alone where nobody waits for it."""

import threading
import time

import pytest

from fiber_cli.data.threads import map_in_threads


def test_results_come_in_another_order():
    def slow(number):
        time.sleep(0.02 * (3 - number % 4))
        return number * number

    assert list(map_in_threads(slow, range(12), 5)) == [number * number for number in range(12)]
    assert list(map_in_threads(slow, [], 5)) == []


def test_more_work_together_than_is_allowed():
    working, most = set(), []

    def note(number):
        working.add(number)
        most.append(len(working))
        time.sleep(0.02)
        working.discard(number)

    list(map_in_threads(note, range(20), 3))
    assert 1 < max(most) <= 3


def test_after_an_error_the_rest_is_done_or_waited_for():
    done, may_end = [], threading.Event()

    def fail(number):
        if number == 1:
            raise ValueError("the second")
        if number == 2:
            may_end.wait(30)
        done.append(number)

    began = time.monotonic()
    with pytest.raises(ValueError, match="the second"):
        list(map_in_threads(fail, range(1000), 2))
    assert time.monotonic() - began < 10
    count = len(done)
    may_end.set()
    time.sleep(0.1)
    assert len(done) <= count + 2
