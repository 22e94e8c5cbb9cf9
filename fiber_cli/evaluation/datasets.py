"""What the DATASET of `fiber eval` means: built-in scenes, a known name, a file of a known form, or shards."""

from pathlib import Path
from typing import Any

from fiber_cli.data.coco_json import has_captions
from fiber_cli.data.data_yaml import keys_of_data_yaml
from fiber_cli.data.json_lists import read_json_lists
from fiber_cli.data.packing import LABEL_MAP
from fiber_cli.data.remote_files import is_there
from fiber_cli.data.shard_files import set_name
from fiber_cli.data.sources import source_format
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.folder import LabelFolderSettings
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.data.sources.mdetr import MdetrSettings
from fiber_cli.data.sources.odvg import OdvgSettings
from fiber_cli.data.sources.odvg_record import read_label_map
from fiber_cli.data.sources.region_shards import RegionShardsSettings
from fiber_cli.data.sources.statements import StatementsSettings
from fiber_cli.data.sources.webdataset import WebDatasetSettings
from fiber_cli.data.sources.yolo import YoloSettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.dataset_forms import check_name
from fiber_cli.evaluation.known import KNOWN, EvalData, Request, existing_file, existing_folder
from fiber_cli.evaluation.names import DATASETS, SCENES
from fiber_cli.evaluation.odinw import prompts_in_words, read_odinw
from fiber_cli.evaluation.question_files import holds_questions, question_file
from fiber_cli.printing import say
from fiber_cli.remote_paths import beside, is_remote
from fiber_cli.settings import SourceSettings
from fiber_cli.tasks import declarations, declared
from fiber_cli.tasks.declaration import TaskDeclaration

#: The data set that has prompts of its own.
PROMPTED = "odinw13"
#: How many scenes are evaluated.
SCENE_COUNT = 200
#: Ending of a file's name → formats that it can hold; a task reads the first that it can.
KINDS_OF_FILES = {
    ".json": ("karpathy", "coco", "mdetr"),
    ".jsonl": ("statements", "odvg"),
    ".yaml": ("coco",),
    ".yml": ("coco",),
}
KINDS_OF_SHARDS = ("webdataset", "region_shards")


def tasks_for(dataset: str) -> tuple[str, ...]:
    """The tasks that can be evaluated on a dataset of that name, or on a file of its form as far as the name tells."""
    return tuple(declaration.name for declaration in declarations() if _suits(dataset, declaration))


def eval_data(
    dataset: str,
    task: str,
    split: str | None = None,
    root: Path | None = None,
    *,
    images: Path | None = None,
    published_prompts: bool = False,
) -> EvalData:
    """Sources of an evaluation of a task.

    dataset: `scenes`, or a name in `KNOWN`, whose files lie in `root` (the current folder if None) as is said in
    docs/evaluation.md, its pictures also in `images`; the path of a Karpathy JSON, of a JSON with boxes, of
    VQAv2's questions (`question_files`) or of a statements JSONL, whose images lie in `images` (or `root`, which is the
    same of a file) or in images/ beside it; an ODVG JSONL or shards of such records, with the names of detection in
    label_map.json beside them; a YAML list of detection sets in ODinW's manner; a data.yaml of Ultralytics, or a folder
    with boxes in its form, COCO's or Pascal VOC's; or a folder, glob or pattern of shards, which have no splits.
    published_prompts: of odinw13.
    The split is test of captions, of Flickr30k Entities and of ODinW, dev of NLVR2, else val. Raises UserError.
    """
    declaration = declared(task)
    check_name(dataset, [name for name in DATASETS if _suits(name, declaration)])
    if not _suits(dataset, declaration):
        raise UserError(f"{dataset} is for checkpoints of {', '.join(tasks_for(dataset))}, not of {task}")
    if published_prompts and dataset != PROMPTED:
        raise UserError(f"--published-prompts are those of {PROMPTED}; {dataset} has none")
    if dataset == SCENES:
        if root or images:
            raise UserError(f"{SCENES} are built in: leave out --root and --images")
        return _scenes(declaration, split or "val")
    if dataset in KNOWN:
        known = KNOWN[dataset]
        kind = _readable(known.kinds, declaration)
        assert kind is not None
        return known.find(Request(dataset, split, Path(root or "."), kind, images, published_prompts))
    path = Path(dataset)
    if keys_of_data_yaml(path) or (_readable(("folder",), declaration) is not None and _has_folders(path)):
        if root or images:
            raise UserError(f"{dataset} names its images itself: leave out --root and --images")
        return _labelled(path, split or "val")
    if path.suffix in KINDS_OF_FILES:
        return _file(path, declaration, split, _images_of_a_file(root, images))
    return _shards(dataset, declaration, split, root or images)


def _suits(dataset: str, declaration: TaskDeclaration) -> bool:
    if dataset in KNOWN:
        known = KNOWN[dataset]
        return _readable(known.kinds, declaration) is not None and known.suits(declaration)
    kinds = _kinds_of_file(Path(dataset))
    return kinds is None or _readable(kinds, declaration) is not None


def _kinds_of_file(path: Path) -> tuple[str, ...] | None:
    """The formats that a file can hold, by its ending, of JSON by what it holds too; None for no known ending."""
    if path.suffix == ".json" and holds_questions(path):
        return ("vqa",)
    return KINDS_OF_FILES.get(path.suffix)


def _readable(kinds: tuple[str, ...], declaration: TaskDeclaration) -> str | None:
    """The first of the formats that a task can read."""
    for kind in kinds:
        if declaration.can_read(source_format(kind).source):
            return kind
    return None


def _scenes(declaration: TaskDeclaration, split: Any) -> EvalData:
    return EvalData(SCENES, split, declaration.scene_settings(split, SCENE_COUNT))


def _images_of_a_file(root: Path | None, images: Path | None) -> Path | None:
    """The image folder that is named for a file, by either option."""
    if root is not None and images is not None:
        raise UserError(f"--root {root} and --images {images}: of a file both name its images, give --images alone")
    if images is not None:
        existing_folder(images)
    return root or images


def _file(path: Path, declaration: TaskDeclaration, split: str | None, named: Path | None) -> EvalData:
    kinds = _kinds_of_file(path)
    assert kinds is not None, "files of no known ending are no data set"
    kind = _readable(kinds, declaration)
    if kind == "karpathy":
        split = split or "test"
        images = str(named or path.parent / "images")
        source = KarpathySettings(kind="karpathy", json=str(path), images=images, split=split)
        return EvalData(path.stem.removeprefix("dataset_"), split, [source])
    if split:
        raise UserError(f"{path} has no --split; name the file to evaluate")
    if kind == "vqa":
        return _whole(path, question_file(path, named or path.parent / "images"))
    if kind == "statements":
        images = str(named or path.parent / "images")
        return _whole(path, StatementsSettings(kind="statements", jsonl=existing_file(path), images=images))
    if kind == "odvg":
        images = str(named or path.parent)
        label_map = _label_map(path.parent)
        return _whole(path, OdvgSettings(kind="odvg", jsonl=existing_file(path), images=images, label_map=label_map))
    if path.suffix == ".json":
        return _whole(path, _json_with_boxes(path, str(named or path.parent / "images")))
    if named is not None:
        raise UserError(f"{path} names the images of its sets itself: leave out --root and --images")
    sets = read_odinw(existing_file(path))
    return EvalData(path.stem, "test", list(sets), details=prompts_in_words(sets))


def _has_folders(path: Path) -> bool:
    """Whether a folder is one of pictures and labels, and not of shards."""
    return path.is_dir() and not any(path.glob("*.tar")) and any(entry.is_dir() for entry in path.iterdir())


def _labelled(path: Path, split: str) -> EvalData:
    if path.is_dir():
        name = path.absolute().name
        return EvalData(name, split, [LabelFolderSettings(kind="folder", split=split, folder=str(path), name=name)])
    name = path.absolute().parent.name
    return EvalData(name, split, [YoloSettings(kind="yolo", data=str(path), split=split, name=name)])


def _whole(path: Path, source: SourceSettings) -> EvalData:
    return EvalData(path.stem, "all", [source])


def _json_with_boxes(path: Path, images: str) -> SourceSettings:
    """A file in COCO's form, or in MDETR's, whose images have captions."""
    content = read_json_lists(path, "a JSON with boxes")
    if not isinstance(content, dict):
        raise UserError(f"{path}: a list; wanted is an object with images, annotations and categories")
    if has_captions(content):
        return MdetrSettings(kind="mdetr", json=str(path), images=images)
    return CocoSettings(kind="coco", json=str(path), images=images)


def _shards(dataset: str, declaration: TaskDeclaration, split: str | None, named: Path | None) -> EvalData:
    path = Path(dataset)
    kind = _readable(KINDS_OF_SHARDS, declaration)
    if kind is None:
        raise UserError(f"{dataset}: a checkpoint of {declaration.name} cannot be evaluated on shards")
    if kind == "region_shards":
        if split:
            raise UserError(f"{dataset} has no --split; name the file to evaluate")
        if named:
            raise UserError(f"{dataset}: shards hold their images; leave out --root and --images")
        label_map = _label_map_of_shards(dataset)
        regions = RegionShardsSettings(kind="region_shards", shards=dataset, label_map=label_map)
        return EvalData(set_name(dataset), "all", [regions]) if is_remote(dataset) else _whole(path, regions)
    if split or named:
        raise UserError(f"{dataset}: shards have no --split and no --root or --images; name the shards to evaluate")
    local = path if path.is_dir() else path.resolve().parent
    name = set_name(dataset) if is_remote(dataset) else local.name
    return EvalData(name, "all", [WebDatasetSettings(kind="webdataset", shards=dataset)])


def _label_map(folder: Path) -> str | None:
    """The names of detection records, where they lie beside them."""
    file = folder / LABEL_MAP
    return str(file) if file.is_file() else None


def _label_map_of_shards(shards: str) -> str | None:
    """The same beside shards, those at an address too."""
    if not is_remote(shards):
        path = Path(shards)
        return _label_map(path if path.is_dir() else path.parent)
    url = beside(shards, LABEL_MAP)
    try:
        if url is None or not is_there(url):
            return None
        read_label_map(url)
    except (OSError, UserError) as error:  # some servers forbid what is not there, others send a page in its place
        say(f"{error}; goes on without it, as boxes of phrases need no names")
        return None
    return url
