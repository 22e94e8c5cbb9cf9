"""Detections as a results file in COCO's form."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fiber_cli.inference.detections import Detection
from fiber_cli.inference.json_list import JsonList
from fiber_cli.inference.video import Shot
from fiber_cli.outputs import Outputs, Pending, explained, is_stream
from fiber_cli.printing import say
from fiber_cli.text_files import dump_json


class CocoResults:
    """Results in COCO's form in `file`; images and categories, whose ids count from 1, beside it in
    `<name>-images.json`, in the form of a truth without annotations.

    Boxes are xywh in pixels, as an evaluation has them but not beyond the picture. `close` gives the finished files
    their names, `drop` takes them away. A pipe or a device gets the results alone, which is told. UserError where a
    file may not or cannot be written.
    """

    def __init__(self, file: Path, names: Sequence[str], outputs: Outputs | None = None):
        self.path = file
        self.outputs = outputs or Outputs()
        self._pending: list[Pending] = []
        try:
            for each in coco_files(file):
                self._pending.append(self.outputs.begin(each))
            with explained(file):
                self.file = self._pending[-1].temporary.open("w", encoding="utf-8")
        except BaseException:
            self._drop_pending()
            raise
        self.results = JsonList(self.file)
        self.images: list[dict[str, Any]] = []
        self.categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]

    def add(self, shot: Shot, detections: Sequence[Detection]) -> None:
        image_id = len(self.images) + 1
        described = shot.to_json()
        file_name = described.pop("image")
        self.images.append({"id": image_id, "file_name": file_name} | described)
        for detection in detections:
            x1, y1, x2, y2 = detection.box
            result = {
                "image_id": image_id,
                "category_id": detection.index + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": detection.score,
            }
            with explained(self.path):
                self.results.add(result)

    def close(self) -> None:
        try:
            self._finish()
            self.outputs.publish(*self._pending)
        except BaseException:
            self.drop()
            raise

    def _finish(self) -> None:
        with explained(self.path):
            self.results.close()
            self.file.close()
        if len(self._pending) == 1:
            say(f"{self.path}: a pipe or a device: the file of images and categories is left out")
            return
        truth_file = self._pending[0]
        truth = {"info": {}, "images": self.images, "categories": self.categories, "annotations": []}
        with explained(truth_file.file):
            truth_file.temporary.write_text(dump_json(truth), encoding="utf-8")

    def drop(self) -> None:
        with suppress(OSError):  # what the buffer still holds has no place on a full disk
            self.file.close()
        self._drop_pending()

    def _drop_pending(self) -> None:
        for pending in self._pending:
            pending.drop()


def coco_files(file: Path) -> list[Path]:
    """What `CocoResults` writes, the results last."""
    return [file] if is_stream(file) else [file.with_name(f"{file.stem}-images.json"), file]
