"""The splits of labelled data that are to be checked, from what names them: folders, files, entries of recipes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fiber_cli.data.coco_labels import read_coco
from fiber_cli.data.data_yaml import read_data_yaml
from fiber_cli.data.label_check import LabelSplit
from fiber_cli.data.label_folder import find_labels, splits_of
from fiber_cli.data.labelled_set import SPLIT_NAMES, split_names
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.folder import LabelFolderSettings
from fiber_cli.data.sources.voc import VocSettings
from fiber_cli.data.sources.yolo import YoloSettings
from fiber_cli.data.voc_labels import VocOptions, annotation_files, read_voc
from fiber_cli.data.yolo_labels import read_yolo
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings

_JSON, _YAML = (".json",), (".yaml", ".yml")


def splits_at(place: Path, images: Path | None = None) -> Iterator[LabelSplit]:
    """All splits of a folder as labelling tools export it, of a data.yaml, or the one of a JSON file in COCO's form,
    whose pictures lie in `images` or where tools put them. Whatever can be read of them is, however much cannot.
    `UserError` where nothing is found."""
    if place.suffix.lower() in _JSON and place.is_file():
        name = _split_in(place)
        found = find_labels(place.parent, name, json=place, images=images)
        yield LabelSplit(place.stem, str(place), found.read(True))
    elif images is not None:
        raise UserError(
            f"--images {images}: is of a JSON file in COCO's form; {place} says itself where its images are"
        )
    elif place.suffix.lower() in _YAML and place.is_file():
        for split in read_data_yaml(place).splits:
            yield LabelSplit(split, str(place), read_yolo(place, split, lenient=True))
    elif place.is_dir():
        yield from _splits_below(place)
    else:
        raise UserError(f"{place}: is no folder, data.yaml or JSON file in COCO's form")


def _splits_below(folder: Path) -> Iterator[LabelSplit]:
    """Those of a folder; of one that has XML files and no splits, all of it."""
    splits = splits_of(folder)
    for split in splits:
        found = find_labels(folder, split)
        yield LabelSplit(split, str(found.file), found.read(True))
    if not splits and annotation_files(folder):
        yield LabelSplit("all", str(folder), read_voc(folder, None, lenient=True))
    elif not splits:
        find_labels(folder, next(iter(SPLIT_NAMES)))  # says what was looked for


def _split_in(file: Path) -> str:
    """The split that the name of a file tells, train where it tells none: the folders of pictures go by it."""
    words = file.stem.lower().replace("-", "_").replace("20", "_20").split("_")
    for split in SPLIT_NAMES:
        if any(name in words for name in split_names(split)):
            return split
    return next(iter(SPLIT_NAMES))


def split_of_entry(settings: SourceSettings) -> LabelSplit:
    """That of an entry of a recipe. `UserError` for one of a kind that has no boxes drawn by people."""
    match settings:
        case CocoSettings():
            labelled = read_coco(settings.json, settings.images, lenient=True)
            return LabelSplit(settings.name or Path(settings.json).stem, settings.json, labelled)
        case YoloSettings():
            labelled = read_yolo(settings.data, settings.split, lenient=True)
            return LabelSplit(settings.name or settings.split, settings.data, labelled)
        case VocSettings():
            options = VocOptions(settings.boxes, settings.difficult, settings.names)
            labelled = read_voc(settings.folder, settings.split, settings.images, options, lenient=True)
            return LabelSplit(settings.name or settings.split or "all", settings.folder, labelled)
        case LabelFolderSettings():
            found = find_labels(
                settings.folder, settings.split, settings.form, json=settings.json, images=settings.images
            )
            return LabelSplit(settings.name or settings.split, str(found.file), found.read(True))
    raise UserError(f"--source: {settings.kind} has no labels to check; give an entry of coco, yolo, voc or folder")


def named_apart(splits: Sequence[LabelSplit]) -> list[LabelSplit]:
    """The splits, those of equal names with the files that they were found by."""
    names = [split.name for split in splits]
    apart = []
    for split in splits:
        if names.count(split.name) > 1:
            split = split._replace(name=f"{split.name} of {split.by}")
        apart.append(split)
    return apart
