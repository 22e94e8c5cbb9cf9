"""Asking a run to stop without losing its work."""

import signal
from types import FrameType
from typing import Self

from fiber_cli.distributed.launch import STOP_SIGNALS


class StopRequest:
    """While entered, SIGTERM, SIGUSR1 and the first SIGINT set `asked` instead of ending the process; a
    second SIGINT ends it at once (KeyboardInterrupt)."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = True
