"""A GPU that is not there: tensors that lie on "cuda", and have shapes and no values, on a machine without one.

PyTorch's FakeTensorMode refuses to mix devices and to read values. What it lacks for training is here: autocast, the
backward pass, which PyTorch begins by asking a GPU that there is, fused attention, for which it asks the GPU's kind,
and tables that are kept between passes, which are kept here as long as the mode lasts.
"""

import heapq
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch
import torch.nn.functional as F
import torchvision  # noqa: F401, whose operators have shapes for tensors without values
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction

from fiber_cli.model.kept import Kept

Network = TypeVar("Network", bound=nn.Module)
DEVICE = torch.device("cuda", 0)
#: Elements that the rows of a bias must be a multiple of for the fused kernel, else PyTorch copies it into such rows.
BIAS_ALIGNMENT = 8
#: The same of an attention's channels, in 16-bit types and in others.
CHANNEL_ALIGNMENT = {torch.float32: 4, torch.float16: 8, torch.bfloat16: 8}
FLASH_DTYPES = (torch.float16, torch.bfloat16)


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Inside, what is made on the device has no values, and neither has what is made on the host."""
    with ExitStack() as stack:
        stack.enter_context(autograd_and_autocast())
        stack.enter_context(patch("torch.nn.functional.scaled_dot_product_attention", fused_attention))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield DEVICE


@contextmanager
def autograd_and_autocast() -> Iterator[None]:
    """Inside, both work on tensors that say that they lie on a GPU, and what is kept for it is let go at the end."""
    kept: dict[tuple[Hashable, ...], Any] = {}

    def keep(self: Kept[Any], *key: Hashable) -> Any:
        known = (id(self), *key)
        if known not in kept:
            with torch.inference_mode(mode=False):
                kept[known] = self._make(*key)
        return kept[known]

    with ExitStack() as stack:
        for name, replacement in (
            ("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            ("torch.cuda.is_bf16_supported", lambda *_, **__: True),
            ("torch.Tensor.backward", backward),
            ("torch.autograd.grad", gradients),
            # By which recomputation tells one backward pass from another.
            ("torch._C._current_graph_task_id", lambda: 0),
        ):
            stack.enter_context(patch(name, replacement))
        stack.enter_context(patch.object(Kept, "__call__", keep))
        yield


def placed(make: Callable[[], Network]) -> Network:
    """A network on the device; PyTorch's own `Module.to` exchanges no weights without values."""
    with DEVICE:
        network = make()
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(DEVICE)
    return network


class UnalignedError(AssertionError):
    """PyTorch would not use its fused kernel, or copy what it is given before."""


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """F.scaled_dot_product_attention as PyTorch computes it on a GPU that has fused kernels: "flash" without a mask in
    16 bits, else "memory-efficient". UnalignedError where it would fall back to separate operations."""
    query, key, value, attn_mask = cast_for_attention(query, key, value, attn_mask)
    assert query.dtype == key.dtype == value.dtype, f"attention of {query.dtype}, {key.dtype} and {value.dtype}"
    channels = query.shape[-1]
    if channels % CHANNEL_ALIGNMENT[query.dtype]:
        raise UnalignedError(f"attention of {channels} channels a head in {query.dtype}")
    if attn_mask is None and query.dtype in FLASH_DTYPES:
        flash = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)
        return flash[0]
    if attn_mask is not None:
        attn_mask = _as_bias(attn_mask, query, key)
    with_sums = any(each.requires_grad for each in (query, key, value)) and torch.is_grad_enabled()
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, with_sums, dropout_p, is_causal, scale=scale
    )
    return efficient[0]


def cast_for_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As autocast does it before attention."""
    if not torch.is_autocast_enabled(query.device.type):
        return query, key, value, attn_mask
    dtype = torch.get_autocast_dtype(query.device.type)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(dtype)
    return query.to(dtype), key.to(dtype), value.to(dtype), attn_mask


def _as_bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """What the kernel adds to the logits."""
    if mask.dtype == torch.bool:
        bias = torch.zeros_like(mask, dtype=query.dtype)
        mask = bias.masked_fill_(mask.logical_not(), -torch.inf)
    assert mask.dtype == query.dtype, f"a mask of {mask.dtype} for queries of {query.dtype}"
    if not is_aligned(mask):
        length = mask.shape[-1]
        mask = F.pad(mask, (0, -length % BIAS_ALIGNMENT or BIAS_ALIGNMENT))[..., :length]
    return mask.expand(*query.shape[:3], key.shape[2])


def is_aligned(bias: Tensor) -> bool:
    """Whether the kernel reads a bias where it lies."""
    return bias.stride(-1) == 1 and all(step % BIAS_ALIGNMENT == 0 for step in bias.stride()[:-1])


def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Sequence[Tensor] | None = None,
) -> None:
    """Tensor.backward."""
    assert not create_graph, "not needed so far"
    assert inputs is None, "not needed so far"
    _BackwardPass([self], [gradient]).run(_accumulate)


def gradients(
    outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], **settings: Any
) -> tuple[Tensor | None, ...]:
    """torch.autograd.grad of leaves."""
    assert not settings, "not needed so far"
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    of_leaves: dict[int, Tensor] = {}

    def keep(leaf: Tensor, gradient: Tensor) -> None:
        number = id(leaf)
        of_leaves[number] = of_leaves[number] + gradient if number in of_leaves else gradient

    _BackwardPass(outputs, [None] * len(outputs)).run(keep)
    return tuple(of_leaves.get(id(leaf)) for leaf in inputs)


def _accumulate(leaf: Tensor, gradient: Tensor) -> None:
    if leaf.grad is None:
        leaf.grad = gradient.detach()
    else:
        leaf.grad += gradient


class _BackwardPass:
    """autograd's engine over the graph of some outputs: the same calls in the same order, on one thread, and an error
    where a gradient lies on another device than what it is of."""

    def __init__(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]):
        self.waiting: dict[Any, int] = {}
        self.received: dict[Any, list[Tensor | None]] = {}
        self.ready: list[tuple[int, int, Any]] = []
        roots = []
        for output, gradient in zip(outputs, gradients, strict=True):
            gradient = torch.ones_like(output) if gradient is None else gradient
            for hook in (output._backward_hooks or {}).values():
                changed = hook(gradient)
                gradient = gradient if changed is None else changed
            roots.append(output.grad_fn)
            self._receive(output.grad_fn, output.output_nr, gradient)
        self._count(roots)
        for root in dict.fromkeys(roots):
            if not self.waiting[root]:
                self._put(root)

    def _count(self, roots: Sequence[Any]) -> None:
        """How many gradients each node waits for."""
        unseen = list(dict.fromkeys(roots))
        self.waiting.update(dict.fromkeys(unseen, 0))
        while unseen:
            for node, _ in unseen.pop().next_functions:
                if node is None:
                    continue
                if node not in self.waiting:
                    self.waiting[node] = 0
                    unseen.append(node)
                self.waiting[node] += 1

    def _put(self, node: Any) -> None:
        # The latest of the forward pass first; leaves at once.
        order = -1 << 60 if hasattr(node, "variable") else -node._sequence_nr()
        heapq.heappush(self.ready, (order, id(node), node))

    def _receive(self, node: Any, number: int, gradient: Tensor) -> None:
        facts = node._input_metadata[number]
        assert gradient.device == facts.device, (
            f"{node}: a gradient on {gradient.device} of what lies on {facts.device}"
        )
        if gradient.shape != torch.Size(facts.shape):
            gradient = gradient.sum_to_size(facts.shape)
        if gradient.dtype != facts.dtype:
            gradient = gradient.to(facts.dtype)
        buffer = self.received.setdefault(node, [None] * len(node._input_metadata))
        earlier = buffer[number]
        buffer[number] = gradient if earlier is None else earlier + gradient

    @torch.no_grad()
    def run(self, take: Callable[[Tensor, Tensor], None]) -> None:
        """take: what is done with a leaf and a gradient of it."""
        while self.ready:
            _, _, node = heapq.heappop(self.ready)
            results = self._call(node, self.received.pop(node, None), take)
            # Operators of others give nothing for what is no tensor, too.
            for (following, number), gradient in zip(node.next_functions, results, strict=False):
                if following is None:
                    continue
                if gradient is not None:
                    self._receive(following, number, gradient)
                self.waiting[following] -= 1
                if not self.waiting[following]:
                    self._put(following)

    @staticmethod
    def _call(
        node: Any, received: list[Tensor | None] | None, take: Callable[[Tensor, Tensor], None]
    ) -> Sequence[Tensor | None]:
        nothing = [None] * len(node.next_functions)
        if received is None:
            return nothing
        if hasattr(node, "variable"):
            (gradient,) = received
            assert gradient is not None
            take(node.variable, gradient)
            return nothing
        if isinstance(node, BackwardCFunction):
            for number, gradient in enumerate(received):
                if gradient is None:
                    facts = node._input_metadata[number]
                    received[number] = torch.zeros(facts.shape, dtype=facts.dtype, device=facts.device)
            results = node.apply(*received)
        else:
            results = node(*received)
        return [results] if isinstance(results, Tensor) or results is None else list(results)
