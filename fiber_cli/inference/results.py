"""What `Fiber` answers with: detections of a picture that can be written, drawn and shown, and texts with their
scores."""

import base64
import html
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from PIL import Image

from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.errors import UserError, optional
from fiber_cli.inference.addresses import is_address
from fiber_cli.inference.annotate import SAME_OBJECT_IOU, annotated, enlargement
from fiber_cli.inference.arguments import FilePath, Flag, checked
from fiber_cli.inference.detections import Detection, best_of_objects, to_supervision
from fiber_cli.inference.pictures import Given, read_picture
from fiber_cli.outputs import Outputs
from fiber_cli.text_files import dump_json

if TYPE_CHECKING:
    import pandas
    import supervision

#: Longer side, in pixels, that a picture is shown with in a notebook.
_SHOWN = 640
_COLUMNS = ("label", "index", "score", "x1", "y1", "x2", "y2")


class Detections(list[Detection]):
    """The detections of one picture, best first: a list of `Detection`, and what can be made of it.

    size: the picture's (width, height) in pixels, upright. path: the path or address that was given, None for what was
    given otherwise. The picture itself is kept; of a path it is read again where it is drawn.
    """

    def __init__(
        self,
        detections: Iterable[Detection] = (),
        *,
        size: tuple[int, int] = (0, 0),
        path: str | None = None,
        picture: Image.Image | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(detections)
        self.size = size
        self.path = path
        self._picture = picture
        self._max_pixels = max_pixels

    @classmethod
    def of(cls, detections: Iterable[Detection], opened: Image.Image, given: Given, max_pixels: int) -> Self:
        """Those in a picture that was opened from what a user has given."""
        if not isinstance(given, str | os.PathLike):
            return cls(detections, size=opened.size, picture=opened)
        path = os.fspath(given)
        held = opened if is_address(path) else None
        return cls(detections, size=opened.size, path=path, picture=held, max_pixels=max_pixels)

    def __reduce__(self) -> tuple[Any, ...]:
        # The picture stays behind: results go to other processes, and may be many.
        return _unpickled, (list(self), self.size, self.path, self._max_pixels)

    @property
    def labels(self) -> list[str]:
        """The label of each, as it was asked for."""
        return [detection.label for detection in self]

    @property
    def scores(self) -> np.ndarray:
        """Float32 (n,), 0 to 1."""
        return np.array([detection.score for detection in self], np.float32)

    @property
    def boxes(self) -> np.ndarray:
        """Float32 (n, 4): x1, y1, x2, y2, edges in pixels."""
        return np.array([detection.box for detection in self], np.float32).reshape(-1, 4)

    def image(self) -> Image.Image:
        """The picture, RGB and upright. UserError where it is no longer there."""
        if self._picture is not None:
            return self._picture
        if self.path is None:
            raise UserError("these detections have come without their picture, which only `detect` gives them")
        return read_picture(self.path, self._max_pixels)

    def to_dict(self) -> dict[str, Any]:
        """`image` (the path, or None), `width`, `height`, and `detections`, each with `label`, `index`, `score` and
        `box`; JSON can hold all of it."""
        described = []
        for detection in self:
            described.append({**detection._asdict(), "box": list(detection.box)})
        width, height = self.size
        return {"image": self.path, "width": width, "height": height, "detections": described}

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row for each: label, index, score, x1, y1, x2, y2. UserError without pandas."""
        pandas = optional("pandas", "pandas is not installed; get it by `pip install pandas`")
        rows = []
        for detection in self:
            rows.append((detection.label, detection.index, detection.score, *detection.box))
        return pandas.DataFrame(rows, columns=list(_COLUMNS))

    def to_supervision(self) -> "supervision.Detections":
        """For the package `supervision`; UserError without it."""
        return to_supervision(self)

    @checked
    def draw(self, *, every: Flag = False) -> Image.Image:
        """The picture with the boxes, labels and scores, a small one enlarged. An object is drawn once, under its best
        name; every=True draws all of its boxes."""
        drawn = list(self) if every else best_of_objects(self, SAME_OBJECT_IOU)
        picture = self.image()
        return annotated(picture, drawn, enlargement(picture.size))

    @checked
    def save(self, file: FilePath, *, every: Flag = False, force: Flag = False) -> Path:
        """Write what `draw` gives into a picture file, or `to_dict` into one that ends in `.json`; its path. UserError
        for another ending, and for a file that fiber has not written, but for force=True."""
        path = Path(file)
        inputs = []
        if self.path is not None and not is_address(self.path):
            inputs.append(Path(str(self.path)))
        outputs = Outputs(force=force, inputs=inputs)
        outputs.reserve(path)
        if path.suffix.lower() == ".json":
            outputs.write(path, dump_json(self.to_dict(), indent=2) + "\n")
            return path
        Image.init()
        form = Image.registered_extensions().get(path.suffix.lower())
        if form not in Image.SAVE:
            raise UserError(f"{path}: its ending is of no picture that can be written; name a .png, .jpg or .json file")
        outputs.write(path, _encoded(self.draw(every=every), form))
        return path

    @checked
    def show(self, *, every: Flag = False) -> None:
        """In a notebook below its cell, elsewhere in the system's viewer of pictures."""
        picture = self.draw(every=every)
        if "ipykernel" in sys.modules:
            display = optional("IPython.display", "IPython is not installed; get it by `pip install ipython`")
            display.display(picture)
        else:
            picture.show()

    def _repr_html_(self) -> str:
        """For notebooks: the picture, where it can be read, and a table."""
        rows = []
        for detection in self:
            edges = " ".join(f"{edge:.1f}" for edge in detection.box)
            rows.append(
                f"<tr><td>{html.escape(detection.label)}</td><td>{detection.score:.3f}</td><td>{edges}</td></tr>"
            )
        table = f"<table><tr><th>label</th><th>score</th><th>x1 y1 x2 y2</th></tr>{''.join(rows)}</table>"
        try:
            picture = self.draw()
        except UserError as error:
            return f"<p>{html.escape(str(error))}</p>{table}"
        picture.thumbnail((_SHOWN, _SHOWN))
        encoded = base64.b64encode(_encoded(picture, "PNG")).decode()
        return f'<img alt="detections" src="data:image/png;base64,{encoded}">{table}'


def _unpickled(detections: list[Detection], size: tuple[int, int], path: str | None, max_pixels: int) -> Detections:
    return Detections(detections, size=size, path=path, max_pixels=max_pixels)


def _encoded(picture: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, quality=95)
    return stream.getvalue()


class ScoredText(NamedTuple):
    """An answer or a caption. score: 0 to 1, of a closed list of answers the model's probability that people give it,
    of generated texts the geometric mean of the probabilities of their tokens."""

    text: str
    score: float
