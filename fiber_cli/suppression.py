"""Non-maximum suppression by torchvision's operator, without the rest of torchvision.

`import torchvision` brings in all of torch's compiler and takes longer than a small detector does; the operator itself
lies in one library beside it.
"""

import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

#: Names of torchvision's library with the operator, of its versions from the newest.
_LIBRARIES = ("_C_stable", "_C")
#: More numbers in boxes than these are suppressed label by label on a CPU, torchvision's own limit. On GPUs none are:
#: each label would be waited for.
_FEW_ON_CPU = 4_000


@cache
def _load_operator() -> None:
    """Makes `torch.ops.torchvision.nms` known, by all of torchvision where it has no such library."""
    library = _library()
    if library is None:
        import torchvision  # noqa: F401
    else:
        torch.ops.load_library(str(library))


def _library() -> Path | None:
    """torchvision's library with its operators; None where it is not found, and where torchvision has loaded it."""
    spec = find_spec("torchvision")
    if "torchvision" in sys.modules or spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    for name in _LIBRARIES:
        for suffix in EXTENSION_SUFFIXES:
            library = folder / f"{name}{suffix}"
            if library.is_file():
                return library
    return None


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """`torchvision.ops.nms`: kept rows, int64, best score first; a box (N, 4) goes where a better one overlaps it by
    more than `threshold`."""
    _load_operator()
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, threshold)
    return kept


def nms_by_label(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """`torchvision.ops.batched_nms`: as `nms`, but boxes of different labels, int64 (N,), leave each other alone."""
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    if boxes.device.type == "cpu" and boxes.numel() > _FEW_ON_CPU:
        return _each_label_alone(boxes, scores, labels, threshold)
    # Moved so far that no two boxes of different labels overlap.
    offsets = labels.to(boxes) * (boxes.max() + 1)
    return nms(boxes + offsets[:, None], scores, threshold)


def _each_label_alone(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    is_kept = torch.zeros_like(scores, dtype=torch.bool)
    for label in labels.unique():
        (rows,) = torch.where(labels == label)
        kept = nms(boxes[rows], scores[rows], threshold)
        is_kept[rows[kept]] = True
    (rows,) = torch.where(is_kept)
    _, best_first = scores[rows].sort(descending=True)
    return rows[best_first]
