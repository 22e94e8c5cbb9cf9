"""What the DATASET of `fiber eval` means: built-in scenes, a known name, a JSON of a known form, or shards."""

from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.errors import UserError

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
NAMES = ("scenes", *KARPATHY, "coco_caption", "nocaps", "vqav2", "nlvr2")
#: Task → the kinds of source that it can be evaluated on.
KINDS = {
    "vqa": ("vqa", "scenes"),
    "nlvr2": ("statements", "scenes"),
    "caption": ("karpathy", "webdataset", "nocaps", "scenes"),
    "coarse": ("karpathy", "webdataset", "scenes"),
    "retrieval": ("karpathy", "webdataset", "scenes"),
}
SCENES = 200


class EvalData(NamedTuple):
    """`sources` in a recipe's form: `kind` and its settings."""

    name: str
    split: str
    sources: list[dict[str, Any]]


def eval_data(dataset: str, split: str | None = None, root: Path | None = None) -> EvalData:
    """Sources of an evaluation.

    dataset: a name in `NAMES`, whose files lie in `root` (the current folder if None) as README's table says; the path
    of a Karpathy JSON or of a statements JSONL, whose images lie in `root` or in images/ beside it; or a folder, glob
    or pattern of shards, which have no splits. The split is val of scenes and of VQAv2, dev of NLVR2, else test (of
    nocaps val). Raises UserError.
    """
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
        f"unknown dataset {dataset!r}: give one of {', '.join(NAMES)}, a Karpathy JSON, a JSONL of statements, or a "
        "folder or pattern of .tar shards"
    )


def tasks_of(data: EvalData) -> tuple[str, ...]:
    """The tasks that can be evaluated on the data; none named where all can."""
    able = tuple(name for name, kinds in KINDS.items() if data.sources[0]["kind"] in kinds)
    return () if len(able) == len(KINDS) else able


def check_task(data: EvalData, task: str, checkpoint: Path) -> None:
    """Raises UserError unless a task of that name can be evaluated on the data."""
    kind = data.sources[0]["kind"]
    if kind not in KINDS[task]:
        raise UserError(f"{data.name} is for checkpoints of {', '.join(tasks_of(data))}; {checkpoint} is one of {task}")


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
