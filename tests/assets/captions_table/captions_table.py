"""A table of captions: lines of a file name, a tab and a caption."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fiber_cli.data.files import expecting, read_lines
from fiber_cli.data.folder import CaptionedFolder
from fiber_cli.data.sources.format import Format
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class CaptionsTableSettings(SourceSettings):
    """A table of captions with an image folder."""

    kind: Literal["captions_table"]
    table: str = option("The file: a name, a tab and a caption a line.", path=True)
    images: str = option("Folder with the images.", path=True)


class CaptionsTableSource(CaptionedFolder):
    """The images of a table. Raises `UserError` for a line of another form."""

    def __init__(self, table: str | Path, images: str | Path):
        captions: dict[str, list[str]] = {}
        for number, line in read_lines(table, "a table of captions"):
            with expecting(f"{table}, line {number}", "a name, a tab and a caption"):
                file, caption = line.decode().split("\t")
                captions.setdefault(file, []).append(caption)
        super().__init__(Path(table).stem, images, list(captions), list(captions.values()))


CAPTIONS_TABLE = Format(kind="captions_table", settings=CaptionsTableSettings, source=CaptionsTableSource)
