"""Image-text retrieval by a task's features, in one process or many."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from fiber_cli import dist
from fiber_cli.data.evalset import RetrievalSet
from fiber_cli.errors import UserError
from fiber_cli.metrics.retrieval import recalls

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_context(precision: str, device: torch.device) -> AbstractContextManager:
    """Autocast for "bf16" and "fp16", nothing for "fp32"."""
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


@torch.no_grad()
def retrieval(
    task: nn.Module, evalset: RetrievalSet, *, batch_size: int, workers: int, precision: str = "fp32"
) -> tuple[dict[str, float], dict[str, Any]]:
    """ITC retrieval by the task's features: metrics "itc/ir@1" …, in percent, and how many images and texts
    they are from, which images could not be read and how many captions were cut.

    Every rank embeds its share; rows come together by their number, each counted once. Images that cannot be
    read are left out with their texts. All ranks return the same.
    """
    device = next(task.parameters()).device
    was_training = task.training
    task.eval()
    rows: dict[str, dict[int, np.ndarray]] = {"images": {}, "texts": {}}
    bad, truncated = [], 0
    for kind, found in rows.items():
        loader = evalset.loader(
            kind, rank=dist.rank(), world=dist.world_size(), batch_size=batch_size, workers=workers
        )
        for batch in loader:
            bad += batch.get("bad", [])
            truncated += batch.get("truncated", 0)
            if len(batch["index"]):
                with precision_context(precision, device):
                    out = task.predict(to_device(batch, device))
                found.update(zip(out["index"].tolist(), out["features"].float().cpu().numpy()))
    task.train(was_training)
    result = None
    shares = dist.gather_objects((rows, bad, truncated))
    if dist.is_main():
        images, texts = ({n: row for share in shares for n, row in share[0][kind].items()} for kind in rows)
        metrics, counts = _recalls(images, texts, evalset.text_image)
        counts |= {
            "bad": evalset.left_out + [pair for share in shares for pair in share[1]],
            "truncated": sum(share[2] for share in shares),
        }
        result = {f"itc/{name}": value for name, value in metrics.items()}, counts
    return dist.gather_objects(result)[0]


def _recalls(
    images: dict[int, np.ndarray], texts: dict[int, np.ndarray], text_image: np.ndarray
) -> tuple[dict[str, float], dict[str, Any]]:
    image_numbers = sorted(images)
    text_numbers = [n for n in sorted(texts) if text_image[n] in images]
    if not text_numbers:
        raise UserError("retrieval: no image with a text could be read; check the data set's paths")
    scores = np.stack([images[n] for n in image_numbers]) @ np.stack([texts[n] for n in text_numbers]).T
    place = {number: row for row, number in enumerate(image_numbers)}
    owners = np.array([place[text_image[n]] for n in text_numbers])
    return recalls(scores, owners), {"images": len(image_numbers), "texts": len(text_numbers)}
