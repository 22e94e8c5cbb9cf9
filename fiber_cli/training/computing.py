"""How a task computes in training, as far as its numbers do not say: compiled or not, and in which precision and order
of memory its parts."""

from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.model.detector.dyhead import DeformConv, DyBlock
from fiber_cli.model.norm import LayerNorm
from fiber_cli.tasks.base import Task


def prepare(task: Task, runtime: RuntimeSettings, *, compiled: bool, any_size: bool) -> None:
    """Make a task compute as the recipe says. compiled: see `compilation`. any_size: see `compile_blocks`."""
    task.encoder.checkpoint_activations = runtime.activation_checkpointing
    for module in task.modules():
        if isinstance(module, LayerNorm):
            module.in_low_precision = runtime.norms == "low"
        elif isinstance(module, DeformConv):
            module.in_low_precision = runtime.deformable == "low"
        elif isinstance(module, DyBlock):
            module.channels_last = runtime.channels_last
    if compiled:
        compile_blocks(task, any_size=any_size)
