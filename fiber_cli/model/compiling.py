"""torch.compile of a network, block by block: blocks of a kind share their graphs, so that there are few."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn

from fiber_cli.model.detector.dyhead import DyBlock
from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.model.swin import SwinBlock
from fiber_cli.model.text import TextLayer
from fiber_cli.model.top_fusion import TopLayer

#: What is compiled, each by itself.
BLOCKS = (SwinBlock, TextLayer, TopLayer, DyBlock)
#: All blocks of all stages are specialisations of the same few functions; torch gives up after 8.
RECOMPILE_LIMIT = 128


class CompiledMethods:
    """Methods of blocks beside their `forward`, compiled when they are first called."""

    def __init__(self, options: dict[str, Any]):
        self._options = options
        self._compiled: dict[MethodType, Callable[..., Any]] = {}

    def __call__(self, method: MethodType) -> Callable[..., Any]:
        """The method's compiled form."""
        if method not in self._compiled:
            self._compiled[method] = torch.compile(method, **self._options)
        return self._compiled[method]


def compile_blocks(network: nn.Module, *, any_size: bool, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks of a network in place; parameter names stay as they are.

    any_size: pictures come in many sizes, so that graphs are made for any at once; else for the first one, and for any
    when a second one comes. backend: torch.compile's.
    """
    options: dict[str, Any] = {"dynamic": True if any_size else None, "backend": backend}
    torch.compiler.config.recompile_limit = RECOMPILE_LIMIT
    # Sides that are equal in the first picture need not be equal in the next.
    torch.fx.experimental._config.use_duck_shape = not any_size
    for module in network.modules():
        if isinstance(module, BLOCKS):
            module.compile(**options)
        elif isinstance(module, FusedEncoder):
            module.compiled_method = CompiledMethods(options)
