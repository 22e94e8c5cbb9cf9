"""NLVR2 and NLVR: statements that are true or false of two images or of one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from fiber_cli.data.columns import Coded, Texts
from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.image_names import names_of_file
from fiber_cli.data.images import open_image
from fiber_cli.data.records import Statement
from fiber_cli.data.source import Source, StatementSource
from fiber_cli.data.sources.format import Format
from fiber_cli.data.values import flag, identifier, path_text, some_text
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_json
from fiber_cli.settings import SourceSettings, option

#: Where NLVR2's images are looked for below the folder that is given.
_LAYOUTS = ("{split}/{directory}", "{directory}", "")
#: What is kept of a label.
_LABELS = {"True": True, "False": False, "None": None}
_FORM = (
    '{"sentence": …, "identifier": "split-set-pair-sentence", "label": "True"}'
    ', or any identifier with "image", or with "left" and "right"'
)


@dataclass(frozen=True)
class StatementsSettings(SourceSettings):
    """NLVR2's or NLVR's JSONL with an image folder."""

    kind: Literal["statements"]
    jsonl: str = option("The JSONL file.", path=True)
    images: str = option("Folder with the images.", path=True)


class StatementFile(FolderSource, StatementSource):
    """One sample per line of a JSONL file: `sentence`, `identifier`, `label` (may be missing), and the images.

    These are `image`, or `left` and `right`, below `images`; or NLVR2's own, `split-set-pair-img0.png` and `-img1.png`
    for the identifier `split-set-pair-sentence`, in `images`/split/directory, `images`/directory or `images` itself,
    where `directory` is given by the line or empty. Raises `UserError` for lines that are not of this form.
    """

    def __init__(self, jsonl: str | Path, images: str | Path):
        records = FileRecords(jsonl, "a JSONL file of statements", _FORM)
        reader = _LineReader(jsonl)
        lines = [line for _, line in records.lines(reader.read)]
        if not lines:
            raise UserError(f"{jsonl}: holds no statement; give a JSONL file such as NLVR2's dev.json")
        self.left_out = records.left_out
        statements = [line.statement for line in lines]
        self._sentences = Texts(statement.text for statement in statements)
        self._labels = Coded(str(statement.label) for statement in statements)
        self._groups = Texts(statement.group for statement in statements)
        files_of = _find_images(lines, Path(images))
        self.images_each = len(files_of[0])
        if any(len(files) != self.images_each for files in files_of):
            raise UserError(f"{jsonl}: some lines have one image and some have two; make a file of each")
        # The left ones and the right ones, or the only ones.
        self._sides = [Texts(files) for files in zip(*files_of, strict=True)]
        keys = [statement.identifier for statement in statements]
        super().__init__(Path(jsonl).stem, images, self._sides[0], keys)

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return (arguments["jsonl"],)

    def statements(self, i: int) -> tuple[Statement, ...]:
        label = _LABELS[self._labels[i]]
        return (Statement(self._sentences[i], label, self.key(i), self._groups[i]),)

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return self._sentences

    def image_names(self, i: int) -> list[str]:
        names = [self.key(i)]
        for side in self._sides:
            names += names_of_file(side[i])
        return names

    def images(self, i: int, at_least: int = 0) -> tuple[Image.Image, ...]:
        """The one picture, or the left and the right one, decoded smaller where no side falls below `at_least` > 0."""
        paths = [self.folder / side[i] for side in self._sides]
        return tuple(open_image(path, self.max_pixels, at_least=at_least) for path in paths)


STATEMENTS = Format(kind="statements", settings=StatementsSettings, source=StatementFile)


class _Line(NamedTuple):
    statement: Statement
    row: dict[str, Any]


class _LineReader:
    def __init__(self, path: str | Path):
        self.ids = Once(path, "the identifier", "the lines")

    def read(self, line: bytes) -> _Line:
        row = parse_json(line)
        statement = _statement(row)
        for file in _files(row, ""):
            path_text(file, "an image file")
        self.ids.add(statement.identifier)
        return _Line(statement, row)


def _statement(row: dict[str, Any]) -> Statement:
    own = str(identifier(row["identifier"], "the identifier"))
    return Statement(some_text(row["sentence"], "the sentence"), _label(row.get("label")), own, _group(own))


def _label(label: Any) -> bool | None:
    """Whether a statement is true; None where that is not told."""
    if label is None or label == "None":
        return None
    return flag(label, "the label")


def _find_images(lines: list[_Line], folder: Path) -> list[tuple[str, ...]]:
    """The image files of every line, in the first layout in which some of 32 lines have theirs."""
    probes = range(0, len(lines), max(1, len(lines) // 32))
    layouts = [[_files(line.row, layout) for line in lines] for layout in _LAYOUTS]
    for files in layouts:
        if any((folder / files[i][0]).is_file() for i in probes):
            return files
    return layouts[0]


def _files(row: dict[str, Any], layout: str) -> tuple[str, ...]:
    if "image" in row:
        return (row["image"],)
    if "left" in row:
        return row["left"], row["right"]
    split, number, pair, _ = row["identifier"].split("-")
    folder = layout.format(split=split, directory=row.get("directory", ""))
    return tuple(str(Path(folder, f"{split}-{number}-{pair}-img{side}.png")) for side in (0, 1))


def _group(identifier: str) -> str:
    """The statement apart from which images it is about, by NLVR2's `split-set-pair-sentence` and NLVR's
    `statement-image-order` as their official evaluations have it; any other identifier stands alone."""
    match identifier.split("-"):
        case [split, number, _, which]:
            return f"{split}-{number}-{which}"
        case [number, _, _]:
            return number
    return identifier
