"""Under which names lists of images may have a picture.

A file has its path, its name and its name without the ending. Data sets that took their pictures from COCO know them by
COCO's numbers, which `coco:57870` is for everywhere; a bare number is that too, and any other number of its own data
set.
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from fiber_cli.data.file_records import Once
from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.image_formats import SUFFIXES
from fiber_cli.data.values import whole_number

#: In front of COCO's numbers.
COCO = "coco:"
#: Visual Genome's numbers have up to seven digits, most of Flickr30k's more.
_TELLING_DIGITS = 8
#: `COCO_val2014_000000057870`, and since 2017 `000000057870`.
_COCO_STEM = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?(\d{12})")


def coco_name(number: int) -> str:
    """A picture's name by its number in COCO."""
    return f"{COCO}{number}"


def coco_number(file: str) -> int | None:
    """The number in COCO of a file that is named as COCO's are; None of any other."""
    match = _COCO_STEM.fullmatch(PurePath(file).stem)
    return int(match[1]) if match else None


def names_of_file(file: str) -> list[str]:
    """All names of an image file, from its path below the images' folder."""
    path = PurePath(file)
    names = [file, path.name, path.stem]
    number = coco_number(file)
    if number is not None:
        names += [coco_name(number), str(number)]
    return names


def distinct_name(file: str) -> str:
    """The name of an image file that tells it from those of other data sets, as far as its path says."""
    number = coco_number(file)
    return PurePath(file).name if number is None else coco_name(number)


def telling_names(names: Iterable[str]) -> set[str]:
    """Those of a picture's names that tell it from pictures of other data sets: COCO's numbers, and names of files but
    for short numbers, which several data sets have."""
    telling = set()
    for name in names:
        path = PurePath(name)
        is_file_name = path.suffix.lower() in SUFFIXES and path.name == name
        is_short_number = path.stem.isdigit() and len(path.stem) < _TELLING_DIGITS
        if name.startswith(COCO) or (is_file_name and not is_short_number):
            telling.add(name)
    return telling


def read_coco_numbers(image_data: str | Path | None) -> dict[str, int]:
    """Visual Genome's id, as text, → COCO's number of the pictures that are in both, from `image_data.json`; empty
    without it. Raises `UserError` for a file of another form."""
    if image_data is None:
        return {}
    numbers = {}
    wanted = "Visual Genome's image_data.json"
    images = read_json(image_data, wanted)
    once = Once(image_data, "the image_id", "the images")
    with expecting(image_data, wanted):
        for image in images:
            identifier = once.add(whole_number(image["image_id"], "image_id"))
            if image["coco_id"] is not None:
                numbers[str(identifier)] = whole_number(image["coco_id"], "coco_id")
    return numbers
