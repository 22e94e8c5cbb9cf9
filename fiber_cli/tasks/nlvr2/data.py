"""NLVR2 and NLVR: statements that are true or false of two images or of one, for training and for evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fiber_cli.tasks.evalset import EvalSet, Score
from fiber_cli.data.files import expecting, read_lines
from fiber_cli.data.images import FolderSource, open_image
from fiber_cli.data.loader import TextReader, speaks_of_sides
from fiber_cli.data.source import BadSample, Source
from fiber_cli.data.text import encode_one
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.tasks.nlvr2.metrics import accuracies

_LABELS = {"true": True, "false": False, "none": None}
#: Where NLVR2's images are looked for below the folder that is given.
_LAYOUTS = ("{split}/{directory}", "{directory}", "")


class Statement(NamedTuple):
    """label: None where it is not known. group: equal for what counts together in the consistency."""

    text: str
    label: bool | None
    identifier: str
    group: str


class StatementSource(FolderSource):
    """One sample per line of a JSONL file: `sentence`, `identifier`, `label` (may be missing), and the images.

    These are `image`, or `left` and `right`, below `images`; or NLVR2's own, `split-set-pair-img0.png` and `-img1.png`
    for the identifier `split-set-pair-sentence`, in `images`/split/directory, `images`/directory or `images` itself,
    where `directory` is given by the line or empty. Raises `UserError` for lines that are not of this form.
    """

    def __init__(self, jsonl: str | Path, images: str | Path):
        self._statements, rows = _read(jsonl)
        layouts = [[_files(row, layout) for row in rows] for layout in _LAYOUTS]
        probes = range(0, len(rows), max(1, len(rows) // 32))
        there = (files for files in layouts if any(Path(images, files[i][0]).is_file() for i in probes))
        self._images = next(there, layouts[0])
        self.images_each = len(self._images[0])  # of a statement
        if any(len(files) != self.images_each for files in self._images):
            raise UserError(f"{jsonl}: some lines have one image and some have two; make a file of each")
        keys = [statement.identifier for statement in self._statements]
        super().__init__(Path(jsonl).stem, images, [files[0] for files in self._images], keys=keys)

    def statements(self, i: int) -> tuple[Statement, ...]:
        return (self._statements[i],)

    def images(self, i: int, at_least: int = 0) -> tuple[Image.Image, ...]:
        """The one picture, or the left and the right one, decoded smaller where no side falls below `at_least` > 0."""
        return tuple(open_image(self.folder / file, self.max_pixels, at_least=at_least) for file in self._images[i])


def _read(path: str | Path) -> tuple[list[Statement], list[dict[str, Any]]]:
    form = '{"sentence": …, "identifier": "split-set-pair-sentence", "label": "True"}'
    form += ', or any identifier with "image", or with "left" and "right"'
    statements, rows = [], []
    for number, line in read_lines(path, "a JSONL file of statements"):
        with expecting(f"{path}, line {number}", "a statement", form):
            row = json.loads(line)
            label, identifier = _LABELS[str(row.get("label")).lower()], str(row["identifier"])
            statements.append(Statement(row["sentence"], label, identifier, _group(identifier)))
            if not all(isinstance(text, str) for text in (row["sentence"], *_files(row, ""))):
                raise TypeError("the sentence and the image files must be texts")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: holds no statement; give a JSONL file such as NLVR2's dev.json")
    return statements, rows


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


class StatementReader(TextReader):
    """One of the statements of a sample, with its one or two images.

    Gives `pixels` uint8 (images, 3, H, W), the text, and `labels` int64, 1 for a true statement.
    """

    def __call__(self, source: Source, i: int, rng: np.random.Generator) -> dict[str, Any]:
        statements = [statement for statement in source.statements(i) if statement.label is not None]
        if not statements:
            raise BadSample("no statement with a label")
        text, label, *_ = statements[rng.integers(len(statements))]
        flip = not speaks_of_sides(text)
        pixels = torch.stack([self.transform(image, rng, flip=flip) for image in source.images(i, self.least)])
        return self.sample(source, i, text, pixels) | {"labels": torch.tensor(int(label))}


class StatementSet(EvalSet):
    """Every statement of the sources."""

    def __init__(self, sources: Sequence[Source], tokenizer, text_length: int, image_size: int | tuple[int, int]):
        self.tokenizer, self.text_length = tokenizer, text_length
        self.transform = EvalTransform(image_size)
        self.items: list[tuple[Source, int, Statement]] = [
            (source, i, each) for source in sources for i in range(len(source)) for each in source.statements(i)
        ]
        if len({source.images_each for source in sources}) > 1:
            raise UserError("statements about one image and about two cannot be evaluated together; take one kind")
        self.ids = [statement.identifier for _, _, statement in self.items]

    def read(self, index: int) -> dict[str, Any]:
        source, i, statement = self.items[index]
        pixels = torch.stack([self.transform(image) for image in source.images(i)])
        return {"pixels": pixels, **encode_one(self.tokenizer, statement.text, self.text_length)}

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """Accuracy and consistency of the predictions, 1 for true, over the statements that have a label."""
        given = [(*self.items[index], bool(row)) for index, row in sorted(predictions.items())]
        known = [(answer, each.label, (source.name, each.group)) for source, _, each, answer in given
                 if each.label is not None]  # fmt: skip
        metrics = accuracies(*zip(*known)) if known else {}
        files = {"predictions.csv": "".join(f"{each.identifier},{answer}\n" for _, _, each, answer in given)}
        unknown = len(given) - len(known)
        return Score(metrics, files, [f"{unknown} statements have no label: predicted only"] if unknown else [])
