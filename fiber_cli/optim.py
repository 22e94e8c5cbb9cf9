"""Parameter groups and learning-rate schedules.

One table says, by parameter name, which of three learning rates a parameter gets (backbone, cross-modal,
head) and whether it decays. The moving average of the weights is here as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

#: Kind → prefixes of parameter names; first match wins, the rest is backbone. A path component `cross` marks
#: the fusion inside both towers.
PREFIXES = {
    "head": ("mlm.", "itm.", "vqa.", "nlvr2."),
    "cross_modal": ("encoder.memory_proj", "pool.", "itc_pool."),
}
KINDS = ("backbone", "cross_modal", "head")


def kind_of(name: str) -> str:
    """ "backbone", "cross_modal" or "head"; the temperature counts as backbone, gates as cross-modal."""
    for kind, prefixes in PREFIXES.items():
        if name.startswith(prefixes):
            return kind
    return "cross_modal" if "cross" in name.split(".") else "backbone"


def decays(name: str, *, published: bool = False) -> bool:
    """Whether weight decay applies: not to biases, position-bias tables, norms, gates and the temperature.

    `published` is the published code's rule, by fragments of its own names: it spares biases, position-bias
    tables and ordinary norms, but decays gates, the temperature, the norm of the image query in the
    cross-attention and the norms of the VQA and NLVR2 classifiers.
    """
    *path, leaf = name.split(".")
    if "bias" in leaf:
        return False
    norm = any("norm" in part for part in path)
    if published:
        return not norm or "cross" in path or name.startswith(("vqa.", "nlvr2."))
    return not (norm or leaf in ("alpha", "temperature"))


def param_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    cross_modal_mult: float = 1.0,
    head_mult: float = 1.0,
    published_decay: bool = False,
) -> list[dict[str, Any]]:
    """Groups for torch.optim: "params", "weight_decay", and beside them "name" ("head/decay"), "names" and
    "mult", the factor on the base learning rate. Frozen parameters are left out, empty groups too."""
    mult = {"backbone": 1.0, "cross_modal": cross_modal_mult, "head": head_mult}
    groups = {
        (kind, decay): {
            "params": [],
            "names": [],
            "name": f"{kind}/{'decay' if decay else 'no_decay'}",
            "mult": mult[kind],
            "weight_decay": weight_decay if decay else 0.0,
        }
        for kind in KINDS
        for decay in (True, False)
    }
    for name, parameter in named:
        if parameter.requires_grad:
            group = groups[kind_of(name), decays(name, published=published_decay)]
            group["params"].append(parameter)
            group["names"].append(name)
    return [group for group in groups.values() if group["params"]]


def adamw(groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> torch.optim.AdamW:
    """AdamW over `param_groups`, fused on CUDA."""
    fused = all(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), eps=eps, fused=fused)


def lr_factor(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """Factor on the learning rate of the update number `step`, counted from 0.

    Rises linearly to 1 over `warmup` updates, then falls towards 0 after `steps` updates ("linear", "cosine")
    or stays ("constant"). No update has the factor 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return {"linear": 1.0 - done, "cosine": (1.0 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]


def set_lr(groups: list[dict[str, Any]], lr: float) -> None:
    """Give every group its share of the base learning rate `lr`."""
    for group in groups:
        group["lr"] = lr * group["mult"]


class Ema:
    """An exponential moving average of a task's weights, in a copy of the task.

    The decay of update number n (from 0) is min(decay, (1 + n) / (10 + n)), so that the first weights are
    soon forgotten.
    """

    def __init__(self, task: nn.Module, decay: float):
        self.task, self.decay = copy.deepcopy(task).requires_grad_(False).eval(), decay

    @torch.no_grad()
    def update(self, task: nn.Module, number: int) -> None:
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.task.parameters()), [p.detach() for p in task.parameters()], 1 - decay)
