"""TensorBoard's event files, written record by record.

TensorBoard's own writer works in a thread, whose errors, such as a full disk, come late, as a traceback, or not at all.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from fiber_cli.training.appended import AppendedFile

#: What the names of event files begin with.
PREFIX = "events.out.tfevents"
#: The first record of a file says of which form it is.
_VERSION = "brain.Event:2"


class Board(AppendedFile):
    """An event file in `folder` of a run that continues at `start`: what earlier files have from there on is left out
    of the curves. Raises OSError."""

    def __init__(self, folder: Path, *, start: int):
        folder.mkdir(exist_ok=True)
        super().__init__(folder / f"{PREFIX}.{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}")
        self._records = RecordWriter(self)
        try:
            self._add(Event(file_version=_VERSION))
            self._add(Event(step=start, session_log=SessionLog(status=SessionLog.START)))
        except BaseException:
            self.close()
            raise

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """The numbers of a step, each a point of its curve. Raises OSError, and UserError where the file is gone."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._add(Event(step=step, summary=Summary(value=values)))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
