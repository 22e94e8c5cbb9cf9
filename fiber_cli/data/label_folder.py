"""Which form the labels of a folder have: COCO's JSON, Ultralytics' data.yaml or Pascal VOC's XML, as tools export
them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import escape
from pathlib import Path
from typing import Literal, NamedTuple

from fiber_cli.data.coco_json import file_name
from fiber_cli.data.coco_labels import WANTED, read_coco
from fiber_cli.data.data_yaml import keys_of_data_yaml
from fiber_cli.data.folder import in_layout_on_disk, lies_below
from fiber_cli.data.json_lists import ListInFile, read_json_lists
from fiber_cli.data.labelled_set import SPLIT_NAMES, LabelledSet, split_names
from fiber_cli.data.voc_labels import (
    ANNOTATIONS,
    LISTS,
    PICTURES,
    VocOptions,
    annotation_files,
    names_in,
    read_voc,
    split_list,
    voc_files,
)
from fiber_cli.data.yolo_labels import read_yolo, yolo_files
from fiber_cli.errors import WRONG_CONTENT, UserError, first_names

Form = Literal["coco", "yolo", "voc"]
#: Where tools put the JSON of a split, below the folder.
_JSON_FILES = (
    "{split}/_annotations.coco.json",
    "instances_{split}.json",
    "instances_{split}20[0-9][0-9].json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}20[0-9][0-9].json",
    "annotations/{split}.json",
    "{split}.json",
    "{split}/annotations.json",
    "{split}/instances.json",
    "{split}/labels.json",
)
#: Where they put its pictures; the JSON's own folder is looked into, too.
_JSON_IMAGES = ("{split}", "{split}20[0-9][0-9]", "images/{split}", "images/{split}20[0-9][0-9]", "images")
_YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
#: Entries of a folder that are named where nothing is found.
_NAMED = 12


class FoundLabels(NamedTuple):
    """The labels of a split. file: what they were found by; read: reads them, with many bad records if it is told
    so; looks_at: the files that this reads or asks for."""

    form: Form
    file: Path
    read: Callable[[bool], LabelledSet]
    looks_at: Callable[[], Iterable[Path]]


def find_labels(
    folder: str | Path,
    split: str,
    form: Form | None = None,
    *,
    json: str | Path | None = None,
    images: str | Path | None = None,
) -> FoundLabels:
    """The labels of a split of a folder.

    form: the only one that is looked for. json, images: of COCO's form, where they have other names than tools give
    them. `UserError` that says what was looked for where there is none, and for several forms.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one with the labels as data.root")
    if json is not None or images is not None:
        form = "coco"
    found = list(_found(folder, split, form, json, images))
    if len({each.form for each in found}) > 1:
        forms = ", ".join(f"{each.form} ({each.file})" for each in found)
        first = found[0].form
        raise UserError(
            f"{folder}: has labels of {split!r} in several forms: {forms}; name one as `form`, in training by "
            f"data.train.0.form={first} data.val.0.form={first}, for `fiber data check` in an entry of --source"
        )
    if found:
        return found[0]
    raise UserError(
        f"{folder}: no labels of the split {split!r} are found; looked for:", *_looked_for(folder, split, form)
    )


def splits_of(folder: str | Path, form: Form | None = None) -> list[str]:
    """Those of train, val and test that the folder has labels of."""
    splits = []
    for split in SPLIT_NAMES:
        if any(_found(Path(folder), split, form, None, None)):
            splits.append(split)
    return splits


def _found(
    folder: Path, split: str, form: Form | None, json: str | Path | None, images: str | Path | None
) -> Iterator[FoundLabels]:
    """The first of each form."""
    if form in (None, "coco"):
        files = [Path(json)] if json is not None else list(_below(folder, _JSON_FILES, split))
        for file in files[:1]:
            yield FoundLabels("coco", file, _coco_reader(folder, split, file, images), partial(_itself, file))
    if form in (None, "yolo"):
        for file in _data_yamls(folder, split):
            yield FoundLabels("yolo", file, _yolo_reader(file, split), partial(yolo_files, file, split))
            break
    if form in (None, "voc"):
        yield from _voc(folder, split)


def _below(folder: Path, patterns: tuple[str, ...], split: str) -> Iterator[Path]:
    for name in split_names(split):
        for pattern in patterns:
            yield from sorted(folder.glob(pattern.format(split=escape(name))))


def _coco_reader(folder: Path, split: str, file: Path, images: str | Path | None) -> Callable[[bool], LabelledSet]:
    def read(lenient: bool) -> LabelledSet:
        return read_coco(file, images or _images_of(folder, split, file), lenient=lenient)

    return read


def _images_of(folder: Path, split: str, file: Path) -> Path:
    """The folder below which the pictures of a JSON lie: that of the first that is there, as it is named, else without
    its first folders. `UserError` where there is none."""
    content = read_json_lists(file, WANTED)
    entries = content.get("images") if isinstance(content, dict) else None
    files = []
    for entry in entries if isinstance(entries, list | ListInFile) else ():
        try:
            files.append(file_name(entry))
        except WRONG_CONTENT:
            continue  # told where the file is read
    candidates = list(_below(folder, _JSON_IMAGES, split))
    candidates += [folder, file.parent, file.parent / "data", file.parent / "images"]
    folders = list(filter(Path.is_dir, dict.fromkeys(candidates)))
    for candidate in folders:
        if lies_below(candidate, files):
            return candidate
    for candidate in folders:
        if lies_below(candidate, in_layout_on_disk(candidate, files)):
            return candidate
    named = files[0] if files else "any"
    looked = ", ".join(map(str, folders))
    raise UserError(f"{file}: its images, such as {named}, lie in none of {looked}; name their folder as `images`")


def _data_yamls(folder: Path, split: str) -> Iterator[Path]:
    """Those of a folder that have the split, the usual names first."""
    usual = [folder / name for name in _YAML_FILES]
    others = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    wanted = set(split_names(split))
    for file in dict.fromkeys([*usual, *others]):
        if wanted & keys_of_data_yaml(file):
            yield file


def _yolo_reader(file: Path, split: str) -> Callable[[bool], LabelledSet]:
    def read(lenient: bool) -> LabelledSet:
        return read_yolo(file, split, lenient=lenient)

    return read


def _voc(folder: Path, split: str) -> Iterator[FoundLabels]:
    """VOC's own folders with a list, else XML files beside the pictures in a folder of the split, else in such folders
    of both."""
    file = split_list(folder, split)
    if file is not None and annotation_files(folder):
        looks_at = partial(voc_files, folder, split)
        yield FoundLabels("voc", file, _voc_reader(folder, folder, split, None), looks_at)
        return
    for name in split_names(split):
        annotations = folder / ANNOTATIONS / name
        if annotations.is_dir() and annotation_files(annotations):
            pictures = list(filter(Path.is_dir, (folder / parent / name for parent in PICTURES)))
            images = pictures[0] if pictures else None
            looks_at = partial(_voc_files, folder, annotations, images)
            yield FoundLabels("voc", annotations, _voc_reader(folder, annotations, None, images), looks_at)
            return
        if (folder / name).is_dir() and annotation_files(folder / name):
            looks_at = partial(_voc_files, folder, folder / name, None)
            yield FoundLabels("voc", folder / name, _voc_reader(folder, folder / name, None, None), looks_at)
            return


def _voc_reader(folder: Path, home: Path, split: str | None, images: Path | None) -> Callable[[bool], LabelledSet]:
    """The names are those of all splits, so that all have the same."""

    def read(lenient: bool) -> LabelledSet:
        options = VocOptions(names=names_in(annotation_files(folder)))
        return read_voc(home, split, images, options, lenient=lenient)

    return read


def _itself(file: Path) -> Iterable[Path]:
    return (file,)


def _voc_files(folder: Path, home: Path, images: Path | None) -> Iterator[Path]:
    """Those of a split, and those of all, which have the names."""
    yield from voc_files(home, None, images)
    yield from annotation_files(folder)


def _looked_for(folder: Path, split: str, form: Form | None) -> Iterator[str]:
    """What there would have to be, a line for each form, and what there is."""
    first = split_names(split)[0]
    if form in (None, "coco"):
        files = [pattern.format(split=first) for pattern in _JSON_FILES if "[" not in pattern]
        yield f"COCO's JSON: {', '.join(files)}"
    if form in (None, "yolo"):
        yield f"Ultralytics' data.yaml: a .yaml in the folder with `names` and `{first}`"
    if form in (None, "voc"):
        yield (
            f"Pascal VOC's XML: Annotations/ with {LISTS[0]}/{first}.txt, Annotations/{first}/, or {first}/ with XML "
            "files beside the pictures"
        )
    others = [name for name in splits_of(folder, form) if name != first]
    if others:
        yield f"there are labels of {', '.join(others)}"
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    yield f"the folder has {first_names(entries, _NAMED)}"
