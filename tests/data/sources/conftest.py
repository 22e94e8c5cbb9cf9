"""Fixtures of the tests of sources."""

import json
from pathlib import Path

import pytest
from image_files import jpeg


@pytest.fixture
def karpathy_coco(tmp_path) -> Path:
    """A folder in COCO's form: sub-folders, restval beside train; the fifth image is missing."""
    images = []
    for i, split in enumerate(["train", "restval", "val", "test", "train"]):
        image = {"filename": f"{i}.jpg", "filepath": "sub", "split": split, "imgid": i, "cocoid": 100 + i}
        sentences = [{"raw": text} for text in (f" caption {i} 0 ", f"caption {i} 1", " ")]
        images.append(image | {"sentences": sentences})
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for i in range(4):
        (tmp_path / "images" / "sub" / f"{i}.jpg").write_bytes(jpeg())
    return tmp_path
