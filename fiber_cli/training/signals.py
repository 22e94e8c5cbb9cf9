"""Asking a run to stop without losing its work."""

import signal
from types import FrameType
from typing import Self

from fiber_cli.stop_signals import leave_terminal, signals_to_handle


class StopRequest:
    """While entered, SIGTERM, SIGUSR1, SIGHUP and the first SIGINT set `asked` instead of ending the process; a
    second SIGINT ends it at once (KeyboardInterrupt). SIGHUP stays ignored where it is, as under nohup."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._handle) for number in signals_to_handle()}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        leave_terminal(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = True
