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
NO_ENGINE = "no engine, because deepspeed.initialize fails,"
#: ZeRO stages and precisions under which the engine's attributes are looked at.
ENGINES = [(0, None), (0, "float16"), (1, None), (1, "float16"), (3, "bfloat16")]


def forms(names):
    """The forms that each of the names has, see `PrivateName.form`; to be called in a process of its own."""
    os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    observed = {}
    for private in names:
        if private.owner not in (ENGINE, ZERO_OPTIMIZER):
            observed[private] = [_form(_owner(private.owner), private.name)]
    objects = _objects()
    for private in names:
        if private.owner in objects:
            observed[private] = sorted({_form(owner, private.name) for owner in objects[private.owner]})
        elif private not in observed:
            observed[private] = [NO_ENGINE]
    return [observed[private] for private in names]


def _owner(name):
    """A module or class, or None where there is none of that name."""
    module, _, inside = name.partition(":")
    try:
        imported = import_module(module)
    except ImportError:
        return None
    return getattr(imported, inside, None) if inside else imported


def _objects():
    """Engines and optimisers of different kinds; none of a version whose engines cannot be made as ours are."""
    init_from_env(always=True)
    import deepspeed

    deepspeed.ops.__compatible_ops__ = {}
    objects = {ENGINE: [], ZERO_OPTIMIZER: []}
    for stage, dtype in ENGINES:
        try:
            engine = _engine(stage, dtype)
        except Exception as error:
            print(f"deepspeed.initialize at stage {stage}: {error!r}")
            return {}
        objects[ENGINE].append(engine)
        if stage > 0:
            objects[ZERO_OPTIMIZER].append(engine.optimizer)
    return objects


def _engine(stage, dtype):
    import deepspeed

    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}}
    if dtype is not None:
        config["torch_autocast"] = {"enabled": True, "dtype": dtype}
    module = nn.Linear(2, 2)
    engine, *_ = deepspeed.initialize(model=module, optimizer=torch.optim.AdamW(module.parameters()), config=config)
    return engine


def _form(owner, name):
    if owner is None or not hasattr(owner, name):
        return ABSENT
    value = getattr(owner, name)
    if isinstance(value, EnumType):
        return "EnumType"
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"({', '.join(inspect.signature(value).parameters)})"
    return type(value).__name__
