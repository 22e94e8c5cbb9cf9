"""What the files of a run are called, for all who write, look for or read them. Loads nothing else of the program."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Beside its checkpoints: where its weights began, the resolved recipe, a record a logged step, what it came to.
INIT_FROM, RECIPE, METRICS, SUMMARY = "init_from", "recipe.yaml", "metrics.jsonl", "summary.json"
#: Its pictures, and the folders of TensorBoard and of Weights & Biases.
CURVES, BOARD, WANDB = "curves.png", "tensorboard", "wandb"
#: The folder of its checkpoints, and in it the files that name one of them.
CHECKPOINTS = "checkpoints"
LATEST, BEST = "latest", "best"
POINTERS = (LATEST, BEST)
#: The folder of its evaluations, a folder each, and the figures in that.
EVALUATIONS, RESULTS = "eval", "results.json"


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint directory is of; None where it stands alone, as shipped ones do."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None


def hardware_of(facts: Mapping[str, Any]) -> str:
    """What a file with the words of `distributed.device` says of the hardware; before version 0.2 as "device"."""
    return str(facts.get("hardware") or facts.get("device") or "an unknown device")
