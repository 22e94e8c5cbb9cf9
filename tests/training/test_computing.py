"""A recipe's settings of how is computed reach the modules that compute."""

import pytest
import torch
from good_recipe import good, problems

from fiber_cli.model.config import TINY
from fiber_cli.model.detector.dyhead import DeformConv, DyBlock
from fiber_cli.model.norm import LayerNorm
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.training.computing import prepare


def modules(task, kind):
    return [module for module in task.modules() if isinstance(module, kind)]


def test_settings_do_not_reach_their_modules():
    task = RegionTask(TINY, channels=32, blocks=1)
    prepare(task, good().runtime, compiled=False, any_size=True)
    assert not any(norm.in_low_precision for norm in modules(task, LayerNorm))
    assert not any(conv.in_low_precision for conv in modules(task, DeformConv))
    assert not task.encoder.checkpoint_activations
    changed = good(
        "runtime.precision=bf16",
        "runtime.norms=low",
        "runtime.deformable=low",
        "runtime.channels_last=true",
        "runtime.activation_checkpointing=true",
    ).runtime
    prepare(task, changed, compiled=False, any_size=True)
    assert len(modules(task, LayerNorm)) > 20
    assert all(norm.in_low_precision for norm in modules(task, LayerNorm))
    assert all(conv.in_low_precision for conv in modules(task, DeformConv))
    assert all(block.channels_last for block in modules(task, DyBlock))
    assert task.encoder.checkpoint_activations
    # All layer norms there are, those inside other packages' modules too.
    assert not [norm for norm in modules(task, torch.nn.LayerNorm) if not isinstance(norm, LayerNorm)]


def compiled_blocks(compiled):
    task = RegionTask(TINY, channels=32, blocks=1)
    prepare(task, good().runtime, compiled=compiled, any_size=True)
    return [module for module in task.modules() if module._compiled_call_impl is not None]


def test_blocks_are_compiled_where_nobody_asked():
    assert not compiled_blocks(False)
    assert compiled_blocks(True)


@pytest.mark.parametrize("name", ["norms", "deformable"])
def test_low_precision_of_full_precision(name):
    (problem,) = problems(f"runtime.{name}=low")
    assert f"runtime.{name}: low is the precision of the run, which is fp32" in problem
