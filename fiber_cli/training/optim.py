"""Parameter groups and learning-rate schedules.

One table says, by parameter name, which of three learning rates a parameter gets (backbone, cross-modal,
head) and whether it decays. The moving average of the weights is here as well.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

#: Kind → prefixes of parameter names; first match wins, the rest is backbone. A path component `cross` marks
#: the fusion inside both towers.
PREFIXES = {
    "head": ("mlm.", "itm.", "vqa.", "nlvr2.", "detector."),
    "cross_modal": ("encoder.memory_proj", "pool.", "itc_pool."),
}


def kind_of(name: str) -> str:
    """ "backbone", "cross_modal" or "head"; the temperature counts as backbone, gates as cross-modal."""
    for kind, prefixes in PREFIXES.items():
        if name.startswith(prefixes):
            return kind
    return "cross_modal" if "cross" in name.split(".") else "backbone"


def decays(name: str, *, published: str = "none") -> bool:
    """Whether weight decay applies: not to biases, position-bias tables, norms, gates, the temperature and other scales.

    `published` "coarse" and "fine" are the published codes' rules, by fragments of their own names. The coarse one
    spares biases, position-bias tables and ordinary norms, but decays gates, the temperature, the norm of the image
    query in the cross-attention and the norms of the VQA and NLVR2 classifiers; the fine one spares only what is
    named a bias.
    """
    *path, leaf = name.split(".")
    if "bias" in leaf:
        return False
    norm = any("norm" in part for part in path)
    if published == "coarse":
        return not norm or "cross" in path or name.startswith(("vqa.", "nlvr2."))
    return published == "fine" or not (norm or leaf in ("alpha", "temperature", "log_scale") or "scales" in path)


def param_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    cross_modal_mult: float = 1.0,
    head_mult: float = 1.0,
    text_mult: float = 1.0,
    published: str = "none",
) -> list[dict[str, Any]]:
    """Groups for torch.optim: "params", "weight_decay", and beside them "name" ("head/decay") and "mult", the
    factor on the base learning rate. Frozen parameters are left out.

    text_mult: a further factor on all of the text encoder ("…/text"). published: "fine" also learns biases at twice
    the rate; for the rest see `decays`.
    """
    mult = {"backbone": 1.0, "cross_modal": cross_modal_mult, "head": head_mult}
    groups: dict[tuple, dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        kind, decay = kind_of(name), decays(name, published=published)
        text, double = name.startswith("encoder.text."), published == "fine" and not decay
        key = (kind, text and text_mult != 1, not decay)
        settings = {
            "name": f"{kind}{'/text' if key[1] else ''}/{'decay' if decay else 'no_decay'}",
            "mult": mult[kind] * (text_mult if text else 1.0) * (2.0 if double else 1.0),
            "weight_decay": weight_decay if decay else 0.0,
        }
        groups.setdefault(key, {"params": [], **settings})["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def lr_factor(step: int, *, steps: int, warmup: int, schedule: str, drops: int = 0) -> float:
    """Factor on the learning rate of the update number `step`, counted from 0.

    Rises linearly to 1 over `warmup` updates, then falls towards 0 after `steps` updates ("linear", "cosine"), stays
    ("constant"), or falls to a tenth at 67% and again at 89% of `steps` ("steps") or `drops` times ("plateau"). No
    update has the factor 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    factors = {"linear": 1.0 - done, "cosine": (1.0 + math.cos(math.pi * done)) / 2, "constant": 1.0}
    factors |= {"steps": 0.1 ** sum(step >= share * steps for share in (0.67, 0.89)), "plateau": 0.1**drops}
    return factors[schedule]


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
