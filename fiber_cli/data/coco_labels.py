"""A JSON file in COCO's form as labels of pictures below a folder."""

from pathlib import Path

from fiber_cli.data.coco_json import BACKGROUND, CocoCategory, CocoJson, check_names, read_coco_json
from fiber_cli.data.folder import in_layout_on_disk
from fiber_cli.data.labelled_set import LabelledSet
from fiber_cli.errors import UserError

WANTED = "a detection JSON in COCO's form"


def read_coco(json: str | Path, images: str | Path, *, lenient: bool = False) -> LabelledSet:
    """The images of the file with their objects; categories in the order of their ids. Where no image lies under its
    name in the file, the layout that does without the name's first folders is taken, see `in_layout_on_disk`. lenient:
    see `read_coco_json`. `UserError` for a file of another form or without categories."""
    files = read_coco_json(json, WANTED, labelled=True, lenient=lenient)
    categories = _categories(json, files)
    paths = in_layout_on_disk(images, [image.file for image in files.images])
    return LabelledSet("COCO's (JSON)", Path(images), files, paths, categories)


def _categories(path: str | Path, files: CocoJson) -> list[CocoCategory]:
    """The categories that are names of things, by their ids; `UserError` where there is none, or two are alike."""
    categories = _of_things(files)
    if not categories:
        raise UserError(f"{path}: has no categories; detection needs their names")
    check_names(path, [category.name for category in categories])
    return categories


def _of_things(file: CocoJson) -> list[CocoCategory]:
    """The categories that are names of things, by their ids."""
    used = set(file.columns.category_ids)
    categories = sorted(file.categories)
    parents = {category.supercategory for category in categories}
    return [each for each in categories if each.identifier in used or not _is_background(each, parents)]


def _is_background(category: CocoCategory, parents: set[str | None]) -> bool:
    groups_all = category.supercategory == "none" and category.name in parents
    return category.identifier == 0 and (groups_all or category.name in (BACKGROUND, "background"))
