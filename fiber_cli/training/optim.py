"""Parameter groups and learning-rate schedules.

A parameter learns at one of three rates (backbone, cross-modal, head), and decays or not, by its name and by what the
task declares.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn

from fiber_cli.checkpoints.positions import POSITION_EMBEDDING
from fiber_cli.errors import DeclarationError
from fiber_cli.tasks.declaration import ParameterKinds, TaskDeclaration

Kind = Literal["backbone", "cross_modal", "head"]
AsPublished = Literal["none", "coarse", "fine"]
Group = dict[str, Any]
#: Where the schedule "steps" falls to a tenth, as shares of the run.
STEP_SHARES = (0.67, 0.89)


def parameter_kind(name: str, kinds: ParameterKinds) -> Kind:
    """The rate at which a parameter learns.

    Inside the encoder a path component `cross` marks the fusion inside both towers, gates included, and `top` the one
    on both; the rest follows from the task's declaration. Raises DeclarationError for a parameter that it does not
    name: it would silently learn at some rate.
    """
    if name.startswith("encoder."):
        fused = name.startswith(("encoder.memory_proj", "encoder.top.")) or "cross" in name.split(".")
        return "cross_modal" if fused else "backbone"
    if name.startswith(kinds.heads):
        return "head"
    if name.startswith(kinds.cross_modal):
        return "cross_modal"
    if name.startswith(kinds.backbone):
        return "backbone"
    raise DeclarationError(
        f"the parameter {name!r} is outside the encoder and in no list of the task's declaration: name its beginning "
        "under `parameters` as one of heads, cross_modal or backbone"
    )


def check_parameters(names: Sequence[str], declaration: TaskDeclaration) -> None:
    """Raises DeclarationError, with the task's name, for a parameter outside the encoder that the declaration does not
    name, and for lists of which no prefix is of its module.

    A prefix that matches nothing is no error by itself: settings switch off objectives and leave out their heads, sizes
    leave out projections (those of `init_from.fresh` among them), and which prefixes go with which settings is not
    declared. A prefix with a misprint leaves its parameter without a name, which is refused here. So what is left to
    refuse is a list of which no prefix matches.
    """
    kinds = declaration.parameters
    try:
        for name in names:
            parameter_kind(name, kinds)
    except DeclarationError as error:
        raise DeclarationError(f"task {declaration.name!r}: {error}") from None
    prefixes = (*kinds.heads, *kinds.cross_modal, *kinds.backbone)
    if prefixes and not any(name.startswith(prefixes) for name in names):
        raise DeclarationError(
            f"task {declaration.name!r}: no parameter of its module begins with any of parameters, "
            f"which are {', '.join(prefixes)}"
        )


def decays(name: str, *, as_published: AsPublished = "none") -> bool:
    """Whether weight decay applies: not to biases, position-bias tables, the image's position embedding, norms,
    gates, the temperature and other scales.

    `as_published` "coarse" and "fine" are the published codes' rules, by fragments of their own names. The coarse one
    spares biases, position-bias tables and ordinary norms, but decays gates, the temperature, the norm of the image
    query in the cross-attention and the norms of the VQA and NLVR2 classifiers; the fine one spares only what is
    named a bias.
    """
    *path, leaf = name.split(".")
    if "bias" in leaf:
        return False
    if as_published == "fine":
        return True
    is_norm = any("norm" in component for component in path)
    if as_published == "coarse":
        return not is_norm or "cross" in path or name.startswith(("vqa.", "nlvr2."))
    is_position = name == f"encoder.{POSITION_EMBEDDING}"
    is_scale = leaf in ("alpha", "temperature", "log_scale", "image_scale", "text_scale") or "scales" in path
    return not (is_norm or is_scale or is_position)


def param_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    kinds: ParameterKinds,
    *,
    weight_decay: float,
    cross_modal_mult: float = 1.0,
    head_mult: float = 1.0,
    text_mult: float = 1.0,
    as_published: AsPublished = "none",
) -> list[Group]:
    """Groups for torch.optim: "params", "weight_decay", and beside them "name" ("head/decay") and "mult", the
    factor on the base learning rate. Frozen parameters are left out.

    text_mult: a further factor on all of the text encoder ("…/text"). as_published: "fine" also learns biases at twice
    the rate; for the rest see `decays`.
    """
    mult = {"backbone": 1.0, "cross_modal": cross_modal_mult, "head": head_mult}
    groups: dict[tuple[str, bool, bool], Group] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        kind = parameter_kind(name, kinds)
        decay = decays(name, as_published=as_published)
        factor = mult[kind]
        in_text = name.startswith("encoder.text.")
        if in_text:
            factor *= text_mult
        if as_published == "fine" and not decay:
            factor *= 2.0
        apart = in_text and text_mult != 1
        key = (kind, apart, not decay)
        if key not in groups:
            ending, group_decay = ("decay", weight_decay) if decay else ("no_decay", 0.0)
            group_name = f"{kind}/text/{ending}" if apart else f"{kind}/{ending}"
            groups[key] = {"params": [], "name": group_name, "mult": factor, "weight_decay": group_decay}
        groups[key]["params"].append(parameter)
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
    match schedule:
        case "linear":
            return 1.0 - done
        case "cosine":
            return (1.0 + math.cos(math.pi * done)) / 2
        case "constant":
            return 1.0
        case "steps":
            return 0.1 ** sum(step >= share * steps for share in STEP_SHARES)
        case "plateau":
            return 0.1**drops
    raise ValueError(f"unknown schedule {schedule!r}")


def set_lr(groups: list[Group], lr: float) -> None:
    """Give every group its share of the base learning rate `lr`."""
    for group in groups:
        group["lr"] = lr * group["mult"]
