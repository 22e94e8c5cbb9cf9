"""The data sets that `fiber eval` knows by name: where their files lie below a folder, as README's table says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSettings
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.data.sources.mdetr import MdetrSettings
from fiber_cli.data.sources.nocaps import NocapsSettings
from fiber_cli.data.sources.statements import StatementsSettings
from fiber_cli.data.sources.vqa import VqaSourceSettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.odinw import read_odinw
from fiber_cli.settings import SourceSettings
from fiber_cli.tasks.abilities import Ability, Captioning
from fiber_cli.tasks.declaration import TaskDeclaration

Value = TypeVar("Value")


class Request(NamedTuple):
    """What was asked for. folder: that of the data set; split: None where none is named; kind: the format, out of the
    data set's, that the task reads."""

    name: str
    split: str | None
    folder: Path
    kind: str


class EvalData(NamedTuple):
    """The sources of an evaluation, as entries of a recipe."""

    name: str
    split: str
    sources: list[SourceSettings]


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


class ImageFolder(NamedTuple):
    """there: what is looked for below a data set's folder; base: what the file names of the JSON are relative to."""

    there: str
    base: str


class VqaFiles(NamedTuple):
    """Beginnings of the names of VQAv2's files, and its image folder."""

    questions: str
    annotations: str | None
    images: str


#: COCO's file names in Karpathy's JSON begin with val2014/.
KARPATHY_IMAGES = {
    "coco": (ImageFolder("val2014", "."), ImageFolder("images/val2014", "images")),
    "flickr30k": (ImageFolder("images", "images"), ImageFolder("flickr30k-images", "flickr30k-images")),
    "flickr8k": (ImageFolder("images", "images"), ImageFolder("Flicker8k_Dataset", "Flicker8k_Dataset")),
}
VQA_FILES = {
    "val": VqaFiles("v2_OpenEnded_mscoco_val2014", "v2_mscoco_val2014", "val2014"),
    "test-dev": VqaFiles("v2_OpenEnded_mscoco_test-dev2015", None, "test2015"),
    "test": VqaFiles("v2_OpenEnded_mscoco_test2015", None, "test2015"),
}
#: Split → JSON lines and image folder of NLVR2 (test-P is test1).
NLVR2_FILES = {"dev": ("dev.json", "dev"), "test": ("test1.json", "test1")}
NOCAPS_FILES = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
#: Split → file and image folder of detection.
COCO_FILES = {"val": ("annotations/instances_val2017.json", "val2017")}
LVIS_FILES = {"val": ("lvis_v1_val.json", "."), "minival": ("lvis_v1_minival_inserted_image_name.json", ".")}
REFERRING_SPLITS = {
    "refcoco": ("val", "testA", "testB"),
    "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
}


def existing_file(path: Path) -> str:
    """The path; UserError where there is no such file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; --root names the folder with {path.name} and the images")
    return str(path)


def _of_split(table: Mapping[str, Value], split: str, dataset: str) -> Value:
    if split not in table:
        raise UserError(f"--split {split}: {dataset} has {', '.join(table)}")
    return table[split]


def _karpathy(request: Request) -> EvalData:
    name = request.name.removesuffix("_caption")
    split = request.split or "test"
    json = existing_file(request.folder / f"dataset_{name}.json")
    for images in KARPATHY_IMAGES[name]:
        if (request.folder / images.there).is_dir():
            folder = str(request.folder / images.base)
            source = KarpathySettings(kind="karpathy", json=json, images=folder, split=split)
            return EvalData(request.name, split, [source])
    wanted = " or ".join(f"{images.there}/" for images in KARPATHY_IMAGES[name])
    raise UserError(f"{request.folder}: no images of {name} there; wanted is {wanted}")


def _coco(request: Request) -> EvalData:
    """COCO's captions or its boxes, whichever the task reads."""
    return _karpathy(request) if request.kind == "karpathy" else _boxes(request, COCO_FILES)


def _lvis(request: Request) -> EvalData:
    return _boxes(request, LVIS_FILES)


def _boxes(request: Request, files: Mapping[str, tuple[str, str]]) -> EvalData:
    split = request.split or "val"
    file, images = _of_split(files, split, request.name)
    below = request.folder / "images"
    folder = below if below.is_dir() else request.folder
    json = existing_file(request.folder / file)
    source = CocoSettings(kind="coco", json=json, images=str(folder / images))
    return EvalData(request.name, split, [source])


def _nocaps(request: Request) -> EvalData:
    split = request.split or "val"
    json = existing_file(request.folder / _of_split(NOCAPS_FILES, split, request.name))
    source = NocapsSettings(kind="nocaps", json=json, images=str(request.folder / "images"))
    return EvalData(request.name, split, [source])


def _vqav2(request: Request) -> EvalData:
    split = request.split or "val"
    files = _of_split(VQA_FILES, split, request.name)
    annotations = None
    questions = existing_file(request.folder / f"{files.questions}_questions.json")
    if files.annotations is not None:
        annotations = existing_file(request.folder / f"{files.annotations}_annotations.json")
    source = VqaSourceSettings(
        kind="vqa",
        questions=questions,
        annotations=annotations,
        images=str(request.folder / files.images),
        pattern=f"COCO_{files.images}_{{image_id:012d}}.jpg",
    )
    return EvalData(request.name, split, [source])


def _nlvr2(request: Request) -> EvalData:
    split = request.split or "dev"
    lines, images = _of_split(NLVR2_FILES, split, request.name)
    folder = request.folder / images
    if not folder.is_dir() and (request.folder / "images" / images).is_dir():
        folder = request.folder / "images" / images
    jsonl = existing_file(request.folder / lines)
    source = StatementsSettings(kind="statements", jsonl=jsonl, images=str(folder))
    return EvalData(request.name, split, [source])


def _odinw13(request: Request) -> EvalData:
    if request.split:
        raise UserError(f"{request.name} has no --split; name the file to evaluate")
    return EvalData(request.name, "test", read_odinw(existing_file(request.folder / "odinw13.yaml")))


def _flickr30k_entities(request: Request) -> EvalData:
    splits = {"train": "train", "val": "val", "test": "test"}
    split = request.split or "test"
    images = str(request.folder / "flickr30k-images")
    of_split = _of_split(splits, split, request.name)
    source = FlickrEntitiesSettings(
        kind="flickr_entities",
        folder=str(request.folder),
        images=images,
        split=of_split,  # type: ignore[arg-type]
    )
    return EvalData(request.name, split, [source])


def _referring(request: Request) -> EvalData:
    split = request.split or "val"
    _of_split(dict.fromkeys(REFERRING_SPLITS[request.name]), split, request.name)
    json = existing_file(request.folder / f"final_{request.name}_{split}.json")
    source = MdetrSettings(kind="mdetr", json=json, images=str(request.folder / "train2014"), refers=True)
    return EvalData(request.name, split, [source])


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
