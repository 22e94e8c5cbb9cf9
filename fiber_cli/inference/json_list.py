"""A JSON list of any length, written as its items come."""

from typing import Any, TextIO

from fiber_cli.printing import encoding_of
from fiber_cli.text_files import dump_json


class JsonList:
    """A JSON list that is written item by item; `close` ends the list, not the file."""

    def __init__(self, file: TextIO):
        self.file = file
        self.empty = True

    def add(self, item: Any) -> None:
        self.file.write("[\n" if self.empty else ",\n")
        self.file.write(dump_json(item, encoding=encoding_of(self.file)))
        self.empty = False

    def close(self) -> None:
        self.file.write("[]\n" if self.empty else "\n]\n")
        self.file.flush()
