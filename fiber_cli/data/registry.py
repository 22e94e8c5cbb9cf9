"""What the DATASET of `fiber eval` means: built-in scenes, a known name, a Karpathy JSON, or shards."""

from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.errors import UserError

#: Where each dataset's images are looked for below its folder: what must be there, and the folder that the
#: file names in its JSON are relative to (COCO's begin with val2014/).
KNOWN = {
    "coco": (("val2014", "."), ("images/val2014", "images")),
    "flickr30k": (("images", "images"), ("flickr30k-images", "flickr30k-images")),
    "flickr8k": (("images", "images"), ("Flicker8k_Dataset", "Flicker8k_Dataset")),
}
SCENES = 200


class EvalData(NamedTuple):
    """`sources` in a recipe's form: `kind` and its settings."""

    name: str
    split: str
    sources: list[dict[str, Any]]


def eval_data(dataset: str, split: str | None = None, root: Path | None = None) -> EvalData:
    """Sources of an evaluation.

    dataset: `scenes` (split val); a name in KNOWN, whose dataset_<name>.json and images lie in `root` (the
    current folder if None; split test); the path of a Karpathy JSON, whose images lie in `root` or in images/
    beside it (split test); or a folder, glob or pattern of shards, which have no splits. Raises UserError.
    """
    path = Path(dataset)
    if dataset == "scenes":
        split = split or "val"
        return EvalData(dataset, split, [{"kind": "scenes", "split": split, "count": SCENES}])
    if dataset in KNOWN:
        folder, split = Path(root or "."), split or "test"
        json = folder / f"dataset_{dataset}.json"
        if not json.is_file():
            raise UserError(f"{json}: no such file; --root names the folder with {json.name} and the images")
        images = [folder / base for there, base in KNOWN[dataset] if (folder / there).is_dir()]
        if not images:
            looked = " or ".join(f"{there}/" for there, _ in KNOWN[dataset])
            raise UserError(f"{folder}: no images of {dataset} there; wanted is {looked}")
        return EvalData(dataset, split, [_karpathy(json, images[0], split)])
    if path.suffix == ".json":
        images, split = root or path.parent / "images", split or "test"
        return EvalData(path.stem.removeprefix("dataset_"), split, [_karpathy(path, images, split)])
    if path.is_dir() or path.suffix == ".tar":
        if split or root:
            raise UserError(f"{dataset}: shards have no --split and no --root; name the shards to evaluate")
        name = path.name if path.is_dir() else path.resolve().parent.name
        return EvalData(name, "all", [{"kind": "webdataset", "shards": dataset}])
    raise UserError(
        f"unknown dataset {dataset!r}: give one of scenes, {', '.join(KNOWN)}, a Karpathy JSON file, "
        "or a folder or pattern of .tar shards"
    )


def _karpathy(json: Path, images: Path, split: str) -> dict[str, Any]:
    return {"kind": "karpathy", "json": str(json), "images": str(images), "split": split}
