"""What the installed DeepSpeed has under the names of `deepspeed_engine.PRIVATE_NAMES`."""

import inspect
import os
from enum import EnumType
from importlib import import_module

import torch
from torch import nn

from fiber_cli.distributed.group import init_from_env
from fiber_cli.training.deepspeed_engine import ENGINE, ZERO_OPTIMIZER

ABSENT = "nothing"
#: Precisions by ZeRO stage under which the engine's attributes are looked at.
LOOKED_AT = [(0, None), (0, "float16"), (1, "float16"), (1, None), (3, "bfloat16")]


def forms(names):
    """The forms that each of the names has, in a process of its own; see `PrivateName.form`."""
    os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    init_from_env(always=True)
    import deepspeed

    deepspeed.ops.__compatible_ops__ = {}
    engines = [_engine(stage, dtype) for stage, dtype in LOOKED_AT]
    zero_optimizers = [
        engine.optimizer for engine, (stage, _) in zip(engines, LOOKED_AT, strict=True) if stage > 0
    ]
    owners = {ENGINE: engines, ZERO_OPTIMIZER: zero_optimizers}
    return [sorted({_form(owner, private.name) for owner in _owners(private.owner, owners)}) for private in names]


def _engine(stage, dtype):
    import deepspeed

    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}}
    if dtype is not None:
        config["torch_autocast"] = {"enabled": True, "dtype": dtype}
    module = nn.Linear(2, 2)
    engine, *_ = deepspeed.initialize(model=module, optimizer=torch.optim.AdamW(module.parameters()), config=config)
    return engine


def _owners(owner, objects):
    """The objects that a name belongs to; none where a module or class of that name is gone."""
    if owner in objects:
        return objects[owner]
    module, _, name = owner.partition(":")
    try:
        imported = import_module(module)
    except ImportError:
        return [None]
    return [getattr(imported, name, None) if name else imported]


def _form(owner, name):
    if owner is None or not hasattr(owner, name):
        return ABSENT
    value = getattr(owner, name)
    if isinstance(value, EnumType):
        return "EnumType"
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"({', '.join(inspect.signature(value).parameters)})"
    return type(value).__name__
