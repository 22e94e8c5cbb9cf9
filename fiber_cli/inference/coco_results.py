"""Detections as a results file in COCO's form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fiber_cli.inference.detections import Detection
from fiber_cli.inference.json_list import JsonList
from fiber_cli.inference.video import Shot
from fiber_cli.text_files import dump_json


class CocoResults:
    """Results in COCO's form in `file`; images and categories, whose ids count from 1, beside it in
    `<name>-images.json`, in the form of a truth without annotations.

    Boxes are xywh in pixels, as an evaluation has them but not beyond the picture.
    """

    def __init__(self, file: Path, names: Sequence[str]):
        self.truth_file = file.with_name(f"{file.stem}-images.json")
        self.file = file.open("w", encoding="utf-8")
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
            self.results.add(result)

    def close(self) -> None:
        self.results.close()
        self.file.close()
        truth = {"info": {}, "images": self.images, "categories": self.categories, "annotations": []}
        self.truth_file.write_text(dump_json(truth), encoding="utf-8")
