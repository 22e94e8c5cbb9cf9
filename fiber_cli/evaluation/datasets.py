"""What the DATASET of `fiber eval` means: built-in scenes, a known name, a JSON of a known form, or shards."""

from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.data.files import read_json
from fiber_cli.errors import UserError
from fiber_cli.kinds import KINDS, REGION_TASKS

#: Where each dataset's images are looked for below its folder: what must be there, and the folder that the
#: file names in its JSON are relative to (COCO's begin with val2014/).
KARPATHY = {
    "coco": (("val2014", "."), ("images/val2014", "images")),
    "flickr30k": (("images", "images"), ("flickr30k-images", "flickr30k-images")),
    "flickr8k": (("images", "images"), ("Flicker8k_Dataset", "Flicker8k_Dataset")),
}
#: Split → what is appended to the file names of VQAv2's questions, its annotations, and the image folder.
VQA = {
    "val": ("v2_OpenEnded_mscoco_val2014", "v2_mscoco_val2014", "val2014"),
    "test-dev": ("v2_OpenEnded_mscoco_test-dev2015", None, "test2015"),
    "test": ("v2_OpenEnded_mscoco_test2015", None, "test2015"),
}
#: Split → JSON lines and image folder of NLVR2 (test-P is test1).
NLVR2 = {"dev": ("dev.json", "dev"), "test": ("test1.json", "test1")}
NOCAPS = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
#: Split → file and image folder of COCO's detection.
COCO = {"val": ("annotations/instances_val2017.json", "val2017")}
LVIS = {"val": ("lvis_v1_val.json", "."), "minival": ("lvis_v1_minival_inserted_image_name.json", ".")}
REFERRING = {
    "refcoco": ("val", "testA", "testB"),
    "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
}
#: What `fiber eval` knows by name → the tasks that it is for, where not all are.
NAMES = {
    "scenes": tuple(KINDS),
    "coco": ("coarse", "retrieval", "caption", *REGION_TASKS),
    **dict.fromkeys(("flickr30k", "flickr8k"), ("coarse", "retrieval", "caption")),
    **dict.fromkeys(("coco_caption", "nocaps"), ("caption",)),
    "vqav2": ("vqa",),
    "nlvr2": ("nlvr2",),
    **dict.fromkeys(("lvis", "odinw13", "flickr30k_entities", *REFERRING), REGION_TASKS),
}
#: Scenes, and the side at which those for detectors are drawn.
SCENES, SCENE_SIZE = 200, 128


class EvalData(NamedTuple):
    """`sources` in a recipe's form: `kind` and its settings."""

    name: str
    split: str
    sources: list[dict[str, Any]]


def tasks_for(dataset: str) -> tuple[str, ...]:
    """The tasks that can be evaluated on a dataset of that name, or on a file of its form as far as the name tells."""
    by_ending = {".jsonl": ("nlvr2", *REGION_TASKS), ".yaml": REGION_TASKS, ".yml": REGION_TASKS}
    return NAMES.get(dataset, by_ending.get(Path(dataset).suffix, tuple(KINDS)))


def eval_data(dataset: str, task: str, split: str | None = None, root: Path | None = None) -> EvalData:
    """Sources of an evaluation of a task.

    dataset: a name in `NAMES`, whose files lie in `root` (the current folder if None) as README's table says; the path
    of a Karpathy JSON, of a JSON with boxes, or of a statements JSONL, whose images lie in `root` or in images/ beside
    it; an ODVG JSONL or shards of such records, with the names of detection in label_map.json beside them; a YAML list
    of detection sets in ODinW's manner; or a folder, glob or pattern of shards, which have no splits.
    The split is val of scenes and of VQAv2, dev of NLVR2, else test where there is one. Raises UserError.
    """
    if task not in tasks_for(dataset):
        raise UserError(f"{dataset} is for checkpoints of {', '.join(tasks_for(dataset))}, not of {task}")
    region = _region_data if task in REGION_TASKS else _image_data
    data = region(dataset, task, split, root)
    wrong = {source["kind"] for source in data.sources} - set(KINDS[task])
    if wrong:
        raise UserError(f"{dataset}: a checkpoint of {task} cannot be evaluated on data of kind {', '.join(wrong)}")
    return data


def _region_data(dataset: str, task: str, split: str | None, root: Path | None) -> EvalData:
    path, folder = Path(dataset), Path(root or ".")
    if dataset == "scenes":
        what = {"detection": ("detection",), "grounding": ("grounding",), "refexp": ("referring",)}
        split, kinds = split or "val", what.get(task, ("detection", "referring"))
        spec = {"split": split, "count": SCENES, "image_size": SCENE_SIZE}
        return EvalData(dataset, split, [spec | {"kind": f"scene_{kind}"} for kind in kinds])
    if dataset in ("coco", "lvis"):
        file, images = _choose({"coco": COCO, "lvis": LVIS}[dataset], split := split or "val", dataset)
        images = str((folder / "images" if (folder / "images").is_dir() else folder) / images)
        return EvalData(dataset, split, [{"kind": "coco", "json": _file(folder / file), "images": images}])
    if dataset == "flickr30k_entities":
        images = str(folder / "flickr30k-images")
        spec = {"folder": str(folder), "images": images, "split": split or "test"}
        return EvalData(dataset, split or "test", [{"kind": "flickr_entities", **spec}])
    if dataset in REFERRING:
        _choose(dict.fromkeys(REFERRING[dataset]), split := split or "val", dataset)
        spec = {"kind": "mdetr", "json": _file(folder / f"final_{dataset}_{split}.json"), "refers": True}
        return EvalData(dataset, split, [{**spec, "images": str(folder / "train2014")}])
    if split:
        raise UserError(f"{dataset} has no --split; name the file to evaluate")
    if dataset == "odinw13" or path.suffix in (".yaml", ".yml"):
        from fiber_cli.data.sources.coco import read_odinw  # brings torch with it

        listed = folder / "odinw13.yaml" if dataset == "odinw13" else path
        return EvalData(path.stem, "test", [{"kind": "coco", **entry} for entry in read_odinw(_file(listed))])
    if path.suffix == ".json":
        images = str(root or path.parent / "images")
        content = read_json(path, "a JSON with boxes")
        if not isinstance(content, dict):
            raise UserError(f"{path}: a list; wanted is an object with images, annotations and categories")
        kind = "mdetr" if "tokens_positive" in next(iter(content.get("annotations") or ()), ()) else "coco"
        return EvalData(path.stem, "all", [{"kind": kind, "json": _file(path), "images": images}])
    names = (path if path.is_dir() else path.parent) / "label_map.json"
    spec = {"label_map": str(names)} if names.is_file() else {}
    if path.suffix == ".jsonl":
        spec |= {"kind": "odvg", "jsonl": _file(path), "images": str(root or path.parent)}
        return EvalData(path.stem, "all", [spec])
    if path.is_dir() or path.suffix == ".tar":
        if root:
            raise UserError(f"{dataset}: shards hold their images; leave out --root")
        return EvalData(path.stem, "all", [spec | {"kind": "region_shards", "shards": dataset}])
    raise UserError(
        f"unknown dataset {dataset!r}: give one of {', '.join(n for n, able in NAMES.items() if task in able)}, a JSON in "
        "COCO's or MDETR's form, an ODVG JSONL, a YAML list of sets, or a folder or pattern of .tar shards"
    )


def _image_data(dataset: str, task: str, split: str | None, root: Path | None) -> EvalData:
    path, folder = Path(dataset), Path(root or ".")
    if dataset == "scenes":
        split = split or "val"
        return EvalData(dataset, split, [{"kind": "scenes", "split": split, "count": SCENES}])
    if dataset == "vqav2":
        questions, annotations, images = _choose(VQA, split := split or "val", dataset)
        spec = {"questions": _file(folder / f"{questions}_questions.json"), "images": str(folder / images)}
        if annotations:
            spec["annotations"] = _file(folder / f"{annotations}_annotations.json")
        return EvalData(dataset, split, [{"kind": "vqa", "pattern": f"COCO_{images}_{{image_id:012d}}.jpg", **spec}])
    if dataset == "nlvr2":
        lines, images = _choose(NLVR2, split := split or "dev", dataset)
        images = next((f for f in (folder / images, folder / "images" / images) if f.is_dir()), folder / images)
        return EvalData(dataset, split, [{"kind": "statements", "jsonl": _file(folder / lines), "images": str(images)}])
    if dataset == "nocaps":
        json = _file(folder / _choose(NOCAPS, split := split or "val", dataset))
        return EvalData(dataset, split, [{"kind": "nocaps", "json": json, "images": str(folder / "images")}])
    if (known := dataset.removesuffix("_caption")) in KARPATHY:
        json, split = _file(folder / f"dataset_{known}.json"), split or "test"
        images = [folder / base for there, base in KARPATHY[known] if (folder / there).is_dir()]
        if not images:
            looked = " or ".join(f"{there}/" for there, _ in KARPATHY[known])
            raise UserError(f"{folder}: no images of {known} there; wanted is {looked}")
        return EvalData(dataset, split, [_karpathy(json, images[0], split)])
    if path.suffix == ".jsonl":
        if split:
            raise UserError(f"{dataset}: a JSONL of statements has no --split; name the file to evaluate")
        spec = {"jsonl": _file(path), "images": str(root or path.parent / "images")}
        return EvalData(path.stem, "all", [{"kind": "statements", **spec}])
    if path.suffix == ".json":
        images, split = root or path.parent / "images", split or "test"
        return EvalData(path.stem.removeprefix("dataset_"), split, [_karpathy(path, images, split)])
    if path.is_dir() or path.suffix == ".tar":
        if split or root:
            raise UserError(f"{dataset}: shards have no --split and no --root; name the shards to evaluate")
        name = path.name if path.is_dir() else path.resolve().parent.name
        return EvalData(name, "all", [{"kind": "webdataset", "shards": dataset}])
    raise UserError(
        f"unknown dataset {dataset!r}: give one of {', '.join(NAMES)}, a JSON, a JSONL of statements, or a folder or "
        "pattern of .tar shards"
    )


def _file(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; --root names the folder with {path.name} and the images")
    return str(path)


def _choose(table: dict[str, Any], split: str, dataset: str) -> Any:
    if split not in table:
        raise UserError(f"--split {split}: {dataset} has {', '.join(table)}")
    return table[split]


def _karpathy(json: Path | str, images: Path, split: str) -> dict[str, Any]:
    return {"kind": "karpathy", "json": str(json), "images": str(images), "split": split}
