"""Stand-ins for the checkpoints that ship with the package, which say what they are and hold a single weight."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.digests import digests_of, files_of, write_digests
from fiber_cli.model.config import TINY
from fiber_cli.tasks import declared

#: Name → task of those that are likely to ship.
LIKELY = {"caption": "caption", "detection": "fine", "nlvr2": "nlvr2", "retrieval": "coarse", "vqa": "vqa"}


def ship(folder: Path, name: str, task: str, labels: tuple[str, ...] | None = None, **settings: Any) -> Path:
    """A checkpoint directory in `folder` that looks whole without being loaded."""
    checkpoint = folder / name
    (checkpoint / "tokenizer").mkdir(parents=True)
    (checkpoint / "tokenizer" / "tokenizer.json").write_text("{}")
    config = CheckpointConfig(TINY, declared(task).settings(name=task, **settings), 30, labels, "builtin")
    (checkpoint / "config.json").write_text(json.dumps(config.to_json()))
    save_file({"head": np.ones((2, 3), np.float16)}, checkpoint / "model.safetensors")
    write_digests(checkpoint, digests_of(checkpoint, files_of(checkpoint, state=False)))
    return checkpoint


def ship_likely(folder: Path) -> None:
    """One of each."""
    for name, task in LIKELY.items():
        ship(folder, name, task)
