"""How a task computes in training, as far as its numbers do not say: compiled or not, and in which precision and order
of memory its parts."""

import torch

from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.model.detector.dyhead import DeformConv, DyBlock
from fiber_cli.model.norm import LayerNorm
from fiber_cli.tasks.base import Task


def prepare(task: Task, runtime: RuntimeSettings, device: torch.device, *, any_size: bool) -> None:
    """Make a task on `device` compute as the recipe says. any_size: see `compile_blocks`."""
    task.encoder.checkpoint_activations = runtime.activation_checkpointing
    for module in task.modules():
        if isinstance(module, LayerNorm):
            module.in_low_precision = runtime.norms == "low"
        elif isinstance(module, DeformConv):
            module.in_low_precision = runtime.deformable == "low"
        elif isinstance(module, DyBlock):
            module.channels_last = runtime.channels_last
    if compiles(runtime, device):
        compile_blocks(task, any_size=any_size)


def compiles(runtime: RuntimeSettings, device: torch.device) -> bool:
    """Whether the blocks are compiled: where nothing is said, on GPUs, but not where DeepSpeed gathers parameters in
    every block."""
    if runtime.compile is not None:
        return runtime.compile
    return device.type == "cuda" and runtime.zero_stage < 3
