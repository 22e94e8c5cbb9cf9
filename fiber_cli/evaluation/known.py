"""The data sets that `fiber eval` knows by name, and where their files lie.

The annotations lie in the folder that is named, or below it in the folder that the recipes have for them, so that
`--root` is either a data set's own folder or the recipes' `data.root`. Pictures lie beside the annotations, or where
the recipes have them, or in the folder that `--images` names.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSettings
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.data.sources.mdetr import MdetrSettings
from fiber_cli.data.sources.nocaps import NocapsSettings
from fiber_cli.data.sources.statements import StatementsSettings
from fiber_cli.data.sources.vqa import VqaSourceSettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.odinw import prompts_in_words, read_odinw
from fiber_cli.evaluation.odinw13 import SETS, SPLITS, completeness, find_archive
from fiber_cli.settings import SourceSettings
from fiber_cli.tasks.abilities import Ability, Captioning
from fiber_cli.tasks.declaration import TaskDeclaration

Value = TypeVar("Value")


class Request(NamedTuple):
    """What was asked for. root: the folder of the data set, or of the recipes' data; split: None where none is named;
    kind: the format, out of the data set's, that the task reads; images: the folder of the pictures, where it is named;
    published_prompts: ODinW's."""

    name: str
    split: str | None
    root: Path
    kind: str
    images: Path | None = None
    published_prompts: bool = False


@dataclass(frozen=True)
class EvalData:
    """The sources of an evaluation, as entries of a recipe.

    variant: how the results' folder tells the evaluation from others of the same data. details: what results.json says
    of it besides. notes: lines for the reader.
    """

    name: str
    split: str
    sources: list[SourceSettings]
    variant: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownDataset:
    """kinds: the formats that it can be opened in. ability: what a task must be able to do, where not every task that
    reads such a format will do. find: its sources; raises UserError."""

    kinds: tuple[str, ...]
    find: Callable[[Request], EvalData]
    ability: type[Ability] | None = None

    def suits(self, declaration: TaskDeclaration) -> bool:
        """Whether the task, which reads such a format, is what the data set is for."""
        return self.ability is None or self.ability in declaration.abilities


class MissingData(UserError):
    """A file or a folder of a data set that is not there; places: where it may lie, as paths."""

    def __init__(self, message: str, places: Sequence[str]):
        super().__init__(message)
        self.places = tuple(places)


class ImageFolder(NamedTuple):
    """there: what is looked for from the annotations' folder; base: what their file names are relative to."""

    there: str
    base: str


class VqaFiles(NamedTuple):
    """Beginnings of the names of VQAv2's files, and its image folder."""

    questions: str
    annotations: str | None
    images: str


def _same(*folders: str) -> tuple[ImageFolder, ...]:
    """Folders that the annotations' file names are relative to."""
    return tuple(ImageFolder(folder, folder) for folder in folders)


def _folders_of_coco(name: str) -> list[str]:
    """Where COCO's pictures of a year and split can lie: in the data set's folder, or in COCO's beside it."""
    return [name, f"images/{name}", f"../coco/images/{name}", f"../coco/{name}"]


def _above(folders: Sequence[str]) -> tuple[ImageFolder, ...]:
    """Folders whose own name is part of the annotations' file names, such as val2014/."""
    return tuple(ImageFolder(folder, os.path.dirname(folder) or ".") for folder in folders)


#: Data set → where the images of Karpathy's JSON lie.
KARPATHY_IMAGES = {
    "coco": _above(_folders_of_coco("val2014")),
    "flickr30k": _same("flickr30k-images", "images"),
    "flickr8k": _same("Flicker8k_Dataset", "images"),
}
VQA_FILES = {
    "val": VqaFiles("v2_OpenEnded_mscoco_val2014", "v2_mscoco_val2014", "val2014"),
    "test-dev": VqaFiles("v2_OpenEnded_mscoco_test-dev2015", None, "test2015"),
    "test": VqaFiles("v2_OpenEnded_mscoco_test2015", None, "test2015"),
}
#: Split → JSON lines and image folder of NLVR2 (test-P is test1).
NLVR2_FILES = {"dev": ("dev.json", "dev"), "test": ("test1.json", "test1")}
NOCAPS_FILES = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
LVIS_FILES = {"val": "lvis_v1_val.json", "minival": "lvis_v1_minival_inserted_image_name.json"}
ENTITY_IMAGES = _same("flickr30k-images", "images", "../flickr30k/flickr30k-images")
#: Data set → split → its files, the better first; MDETR has RefCOCOg's test once more with spans put right.
REFERRING_FILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "refcoco": {
        "val": ("finetune_refcoco_val.json",),
        "testA": ("finetune_refcoco_testA.json",),
        "testB": ("finetune_refcoco_testB.json",),
    },
    "refcoco+": {
        "val": ("finetune_refcoco+_val.json",),
        "testA": ("finetune_refcoco+_testA.json",),
        "testB": ("finetune_refcoco+_testB.json",),
    },
    "refcocog": {
        "val": ("finetune_refcocog_val.json",),
        "test": ("finetune_refcocog_test_corrected.json", "finetune_refcocog_test.json"),
    },
}


def existing_file(path: Path) -> str:
    """The path; UserError where there is no such file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; name the file to evaluate, and its images with --images")
    return str(path)


class Annotations(NamedTuple):
    """A file and the folder of the data set that it was found in."""

    file: Path
    folder: Path


def find_annotations(request: Request, below: str, *names: str) -> Annotations:
    """The first of the files `names` in --root, or in the folder `below` it that the recipes have for the data set.

    Raises MissingData.
    """
    for folder in (request.root, request.root / below):
        for name in names:
            if (folder / name).is_file():
                return Annotations(folder / name, folder)
    missing = request.root / names[0]
    raise MissingData(
        f"{missing}: no such file; --root names the folder with {names[0]}, or the one with {below}/{names[0]}",
        [str(request.root / below / name) for name in names],
    )


def find_images(request: Request, folder: Path, places: Sequence[ImageFolder]) -> str:
    """The folder that the annotations' file names are relative to: that of --images, else the first place, seen from
    the annotations' folder, that exists. Raises MissingData, and UserError for a folder of --images."""
    if request.images is not None:
        return _base_of(Path(existing_folder(request.images)), places[0])
    for place in places:
        if os.path.isdir(_seen_from(folder, place.there)):
            return _seen_from(folder, place.base)
    wanted = " or ".join(f"{place.there}/" for place in places)
    raise MissingData(
        f"{folder}: no images of {request.name} there; wanted is {wanted}, or name their folder by --images",
        [_seen_from(folder, place.there) for place in places],
    )


def _base_of(images: Path, place: ImageFolder) -> str:
    """The named folder, or the one above it where the file names begin with its name, as val2014/ of COCO."""
    year = os.path.basename(place.there)
    is_part_of_names = place.base != place.there and not (images / year).is_dir()
    whole = Path(os.path.abspath(images))
    if is_part_of_names and whole.name == year:
        return str(whole.parent)
    return str(images)


def existing_folder(images: Path) -> str:
    """The folder that --images names; UserError where there is none."""
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder")
    return str(images)


def _seen_from(folder: Path, place: str) -> str:
    # By name, so that a folder which is a link has its siblings beside the link.
    return os.path.normpath(folder / place)


def _of_split(table: Mapping[str, Value], split: str, dataset: str) -> Value:
    if split not in table:
        raise UserError(f"--split {split}: {dataset} has {', '.join(table)}")
    return table[split]


def _karpathy(request: Request) -> EvalData:
    name = request.name.removesuffix("_caption")
    split = request.split or "test"
    found = find_annotations(request, name, f"dataset_{name}.json")
    images = find_images(request, found.folder, KARPATHY_IMAGES[name])
    source = KarpathySettings(kind="karpathy", json=str(found.file), images=images, split=split)
    return EvalData(request.name, split, [source])


def _coco(request: Request) -> EvalData:
    """COCO's captions or its boxes, whichever the task reads."""
    if request.kind == "karpathy":
        return _karpathy(request)
    files = {"val": "annotations/instances_val2017.json"}
    split = request.split or "val"
    found = find_annotations(request, "coco", _of_split(files, split, request.name))
    images = find_images(request, found.folder, _same(*_folders_of_coco("val2017")))
    return EvalData(request.name, split, [CocoSettings(kind="coco", json=str(found.file), images=images)])


def _lvis(request: Request) -> EvalData:
    """LVIS' val has pictures of COCO's val2017 and train2017."""
    split = request.split or "val"
    found = find_annotations(request, "lvis", _of_split(LVIS_FILES, split, request.name))
    images = find_images(request, found.folder, _above(_folders_of_coco("val2017")))
    return EvalData(request.name, split, [CocoSettings(kind="coco", json=str(found.file), images=images)])


def _nocaps(request: Request) -> EvalData:
    split = request.split or "val"
    found = find_annotations(request, "nocaps", _of_split(NOCAPS_FILES, split, request.name))
    images = find_images(request, found.folder, _same(f"images/{split}", "images", split))
    return EvalData(request.name, split, [NocapsSettings(kind="nocaps", json=str(found.file), images=images)])


def _vqav2(request: Request) -> EvalData:
    split = request.split or "val"
    files = _of_split(VQA_FILES, split, request.name)
    questions = find_annotations(request, "vqa", f"{files.questions}_questions.json")
    annotations = None
    if files.annotations is not None:
        annotations = str(find_annotations(request, "vqa", f"{files.annotations}_annotations.json").file)
    source = VqaSourceSettings(
        kind="vqa",
        questions=str(questions.file),
        annotations=annotations,
        images=find_images(request, questions.folder, _same(*_folders_of_coco(files.images))),
        pattern=f"COCO_{files.images}_{{image_id:012d}}.jpg",
    )
    return EvalData(request.name, split, [source])


def _nlvr2(request: Request) -> EvalData:
    split = request.split or "dev"
    lines, images = _of_split(NLVR2_FILES, split, request.name)
    found = find_annotations(request, "nlvr2", lines)
    folder = find_images(request, found.folder, _same(images, f"images/{images}"))
    return EvalData(request.name, split, [StatementsSettings(kind="statements", jsonl=str(found.file), images=folder)])


def _odinw13(request: Request) -> EvalData:
    if request.images is not None:
        raise UserError("--images: the pictures of odinw13 lie in the archive's folders; leave it out")
    own_list = request.root / "odinw13.yaml"
    if own_list.is_file():
        if request.split or request.published_prompts:
            raise UserError(f"{own_list} names its files and prompts itself; leave out --split and --published-prompts")
        sets = read_odinw(own_list)
        return EvalData(request.name, "test", list(sets), details=prompts_in_words(sets))
    split = request.split or "test"
    _of_split(dict.fromkeys(SPLITS), split, request.name)
    archive = find_archive(request.root, (split,))
    sources: list[SourceSettings] = []
    for odinw_set in archive.present:
        sources.append(archive.source(odinw_set, split, published_prompts=request.published_prompts))
    prompts = "published" if request.published_prompts else "names"
    notes = ["prompts: as published" if request.published_prompts else "prompts: the names alone"]
    name = request.name
    incomplete = completeness(archive.missing)
    if incomplete is not None:
        # A mean over fewer sets is another number, under another name.
        name = f"{request.name}-{len(sources)}-of-{len(SETS)}"
        notes.append(incomplete)
    variant = "published-prompts" if request.published_prompts else ""
    details = {"prompts": prompts, "missing_sets": archive.missing}
    return EvalData(name, split, sources, variant, details, tuple(notes))


def _flickr30k_entities(request: Request) -> EvalData:
    splits = {"train": "train", "val": "val", "test": "test"}
    split = request.split or "test"
    of_split = _of_split(splits, split, request.name)
    found = find_annotations(request, "flickr30k_entities", f"{of_split}.txt")
    source = FlickrEntitiesSettings(
        kind="flickr_entities",
        folder=str(found.folder),
        images=find_images(request, found.folder, ENTITY_IMAGES),
        split=of_split,  # type: ignore[arg-type]
    )
    return EvalData(request.name, split, [source])


def _referring(request: Request) -> EvalData:
    split = request.split or "val"
    names = _of_split(REFERRING_FILES[request.name], split, request.name)
    found = find_annotations(request, "mdetr", *names)
    images = find_images(request, found.folder, _same(*_folders_of_coco("train2014")))
    source = MdetrSettings(kind="mdetr", json=str(found.file), images=images, refers=True)
    details = {"annotations": found.file.name}
    # Where there are two files, the reader must know which it was.
    notes = (f"annotations: {found.file.name}",) if len(names) > 1 else ()
    return EvalData(request.name, split, [source], details=details, notes=notes)


KNOWN = {
    "coco": KnownDataset(("karpathy", "coco"), _coco),
    "flickr30k": KnownDataset(("karpathy",), _karpathy),
    "flickr8k": KnownDataset(("karpathy",), _karpathy),
    "coco_caption": KnownDataset(("karpathy",), _karpathy, Captioning),
    "nocaps": KnownDataset(("nocaps",), _nocaps, Captioning),
    "vqav2": KnownDataset(("vqa",), _vqav2),
    "nlvr2": KnownDataset(("statements",), _nlvr2),
    "lvis": KnownDataset(("coco",), _lvis),
    "odinw13": KnownDataset(("coco",), _odinw13),
    "flickr30k_entities": KnownDataset(("flickr_entities",), _flickr30k_entities),
    "refcoco": KnownDataset(("mdetr",), _referring),
    "refcoco+": KnownDataset(("mdetr",), _referring),
    "refcocog": KnownDataset(("mdetr",), _referring),
}
