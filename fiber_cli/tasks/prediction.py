"""A task's predictions for all items of an evaluation set, in one process or many."""

import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.evalset import EvalSet

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_context(precision: str, device: torch.device) -> torch.autocast:
    """Autocast for "bf16" and "fp16", nothing for "fp32"."""
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision in AUTOCAST)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


class Predictions(NamedTuple):
    """`rows` by item number; (id, reason) of the items left out; how many texts were cut."""

    rows: dict[int, np.ndarray]
    bad: list[tuple[str, str]]
    truncated: int


@torch.no_grad()
def predict_all(
    task: nn.Module, evalset: EvalSet, *, batch_size: int, workers: int, precision: str = "fp32", what: str = ""
) -> Predictions:
    """`task.predict` of every item, the same on all ranks.

    Every rank predicts its share; rows come together by their number, each counted once. `what` names the items on
    the progress bar, which a terminal gets.
    """
    device = next(task.parameters()).device
    was_training = task.training
    task.eval()
    rows, bad, truncated = {}, [], 0
    batches = evalset.loader(rank=dist.rank(), world=dist.world_size(), batch_size=batch_size, workers=workers)
    shown = dist.is_main() and sys.stderr.isatty()
    for batch in tqdm(batches, desc=what, unit="batch", disable=not shown, leave=False, dynamic_ncols=True):
        bad += batch["bad"]
        truncated += batch["truncated"]
        if len(batch["index"]):
            with precision_context(precision, device):
                out = task.predict(to_device(batch, device))
            if torch.is_tensor(out):
                out = (out.float() if out.is_floating_point() else out).cpu().numpy()
            rows.update(zip(batch["index"].tolist(), out))
    task.train(was_training)
    shares = dist.gather_objects((rows, bad, truncated))
    return Predictions(
        {number: row for part, _, _ in shares for number, row in part.items()},
        [*evalset.left_out, *(pair for _, part, _ in shares for pair in part)],
        sum(part for _, _, part in shares),
    )
