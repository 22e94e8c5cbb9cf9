"""NLVR2's and NLVR's files for tests."""

import json
from collections.abc import Iterable
from pathlib import Path

from image_files import encoded
from PIL import Image

from fiber_cli.data.sources.statements import StatementFile


def red_picture(red: int, format: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", (48, 32), (red, 0, 0)), format)


def write_statements(
    folder: Path, files: dict[str, int], rows: list[dict], name: str = "some.jsonl"
) -> tuple[Path, Path]:
    """The JSONL and the folder of pictures: file name → level of red. Every other .png is a JPEG, as in NLVR2."""
    for number, (file, red) in enumerate(files.items()):
        path = folder / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(red_picture(red, "JPEG" if number % 2 else "PNG"))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name, folder / "images"


def reds(images: Iterable[Image.Image]) -> list[int]:
    return [round(image.getpixel((5, 5))[0], -1) for image in images]


def statements_about_pairs(folder: Path, broken: bool = False) -> StatementFile:
    """Three statements about two pairs; with `broken` the right picture of the second pair is none."""
    files = {}
    for pair in (0, 1):
        for side in (0, 1):
            files[f"dev-1-{pair}-img{side}.png"] = 60 + 40 * (2 * pair + side)
    rows = [
        {"sentence": "there is a dog", "identifier": "dev-1-0-0", "label": "True"},
        {"sentence": "there is a dog", "identifier": "dev-1-1-0", "label": "False"},
        {"sentence": "a cat is in the left image", "identifier": "dev-1-0-1", "label": "False"},
    ]
    paths = write_statements(folder, files, rows, "pairs.jsonl")
    if broken:
        (folder / "images" / "dev-1-1-img1.png").write_bytes(red_picture(9)[:60])
    return StatementFile(*paths)
