"""Run folders that say what they are and hold a single weight, for what chooses among them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.model.config import TINY
from fiber_cli.tasks import declared

#: Data of the paper's recipes, below a root.
FLICKR30K = {"kind": "karpathy", "json": "flickr30k/dataset_flickr30k.json", "images": "flickr30k/flickr30k-images"}
COCO_CAPTIONS = {"kind": "karpathy", "json": "coco/dataset_coco.json", "images": "coco/images"}
COCO_BOXES = {"kind": "coco", "json": "coco/annotations/instances_train2017.json", "images": "coco/images/train2017"}
OBJECTS365 = {"kind": "coco", "json": "objects365/annotations/objects365_train.json", "images": "objects365/train"}
CELLS = {"kind": "coco", "json": "cells/instances_train.json", "images": "cells/train"}
SCENES = {"kind": "scenes"}


def make_run(
    folder: Path,
    task: str,
    *sources: dict[str, Any],
    root: Path = Path("/data"),
    labels: tuple[str, ...] | None = None,
    **settings: Any,
) -> Path:
    """A run below `folder`/runs that is newer than those before it, named by its task and their number; sources: what
    it was trained on, files below `root`. Without any it has no recipe, as a converted checkpoint."""
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    age = len(list(runs.iterdir()))
    run = runs / f"{task}{age}"
    config = CheckpointConfig(TINY, declared(task).settings(name=task, **settings), 30, labels, "builtin")
    checkpoint = write_checkpoint(run, 1, config)
    if sources:
        write_recipe(run, *sources, root=root)
    latest = checkpoint.parent / "latest"
    latest.write_text("step-000001\n")
    os.utime(latest, (1e9 + age, 1e9 + age))
    return run


def write_checkpoint(run: Path, step: int, config: CheckpointConfig) -> Path:
    """A checkpoint of a run that looks whole without being loaded; nothing points to it."""
    checkpoint = run / "checkpoints" / f"step-{step:06d}"
    (checkpoint / "tokenizer").mkdir(parents=True)
    (checkpoint / "tokenizer" / "tokenizer.json").write_text("{}")
    (checkpoint / "config.json").write_text(json.dumps(config.to_json()))
    save_file({"head": np.ones(2, np.float32)}, checkpoint / "model.safetensors")
    return checkpoint


def write_recipe(run: Path, *sources: dict[str, Any], root: Path = Path("/data")) -> None:
    """What a run says that it was trained on."""
    recipe = {"data": {"train": [_below(root, source) for source in sources]}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _below(root: Path, source: dict[str, Any]) -> dict[str, Any]:
    entry = {}
    for name, value in source.items():
        entry[name] = value if name == "kind" else str(root / value)
    return entry
