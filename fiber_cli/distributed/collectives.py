"""Ranks and the few collectives the toolkit needs; everything is a no-op in one process.

Works on gloo (CPU) and NCCL. Every rank must call a collective in the same order.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as td
from torch import Tensor

from fiber_cli.distributed.device import device
from fiber_cli.distributed.group import main_is_done, wait_for_main

Result = TypeVar("Result")


#: Whether this thread computes as if there were no other ranks.
_is_alone: ContextVar[bool] = ContextVar("is_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank is the only one, for what one of them computes by itself: the others take part in nothing."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def rank() -> int:
    return td.get_rank() if _has_others() else 0


def world_size() -> int:
    return td.get_world_size() if _has_others() else 1


def _has_others() -> bool:
    return td.is_initialized() and not _is_alone.get()


def is_main() -> bool:
    return rank() == 0


def gather_objects(obj: Any) -> list[Any]:
    """The picklable `obj` of every rank, in rank order, on every rank."""
    if world_size() == 1:
        return [obj]
    gathered: list[Any] = [None] * world_size()
    td.all_gather_object(gathered, obj)
    return gathered


def gather_on_main(obj: Any) -> list[Any] | None:
    """The picklable `obj` of every rank, in rank order, on rank 0 alone; None on the others."""
    if world_size() == 1:
        return [obj]
    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    td.gather_object(obj, gathered, dst=0)
    return gathered


def from_main(compute: Callable[[], Result]) -> Result:
    """What `compute` returns on rank 0 alone, on every rank. The others wait for it far longer than in a collective."""
    result = None
    if is_main():
        try:
            result = compute()
        finally:
            main_is_done()
    else:
        wait_for_main()
    of_main: Result = gather_objects(result)[0]
    return of_main


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, as a new tensor; not differentiable."""
    total = tensor.detach().clone()
    if world_size() > 1:
        td.all_reduce(total)
    return total


def all_reduce_max(tensor: Tensor) -> Tensor:
    """The largest of all ranks, element by element, as a new tensor; not differentiable."""
    largest = tensor.detach().clone()
    if world_size() > 1:
        td.all_reduce(largest, td.ReduceOp.MAX)
    return largest


def any_rank(flag: bool) -> bool:
    """True on every rank if true on one."""
    if world_size() == 1:  # asked every step: nothing to wait for the GPU for
        return flag
    return bool(all_reduce_sum(torch.tensor(int(flag), device=device())))


def all_gather_grad(tensor: Tensor) -> Tensor:
    """(B, …) of every rank, B equal everywhere → (world * B, …) in rank order.

    The gradient of a rank's rows is the sum of the gradients that all ranks have for them.
    """
    return tensor if world_size() == 1 else _AllGather.apply(tensor)


def exchange_rows(rows: Tensor, wanted: Tensor) -> Tensor:
    """The rows with the global numbers `wanted`, int64 (K,), fetched from the ranks that hold them.

    Every rank holds the same number B of rows (B, …); row j of rank r has the number r * B + j. K may differ
    between ranks. Any dtype. The gradient goes back to the owner, which sums it.
    """
    return rows[wanted] if world_size() == 1 else _ExchangeRows.apply(rows, wanted)


def add_rows(totals: Tensor, rows: Tensor, numbers: Tensor) -> None:
    """The way back of `exchange_rows`, without autograd: adds rows (K, …) to those of `totals` (B, …) with the global
    numbers `numbers`, int64 (K,), on the ranks that hold them."""
    if world_size() == 1:
        totals.index_add_(0, numbers, rows)
        return
    route = _Route(numbers, len(totals))
    totals.index_add_(0, route.sent, route.back(rows))


class _Route:
    """The way of the rows with the numbers `wanted` from their owners, each of which holds as many, to those who ask
    for them, and back."""

    def __init__(self, wanted: Tensor, rows: int):
        owner = wanted // rows
        self.order = owner.argsort(stable=True)
        requested = all_gather_grad(owner.bincount(minlength=world_size()))
        # Row r, column s: how many rows rank r asks rank s for.
        requests = requested.view(world_size(), world_size()).tolist()
        self.from_owner = requests[rank()]
        self.to_asker = [of_rank[rank()] for of_rank in requests]
        #: Which of this rank's rows the others ask for.
        self.sent = _all_to_all(wanted[self.order] % rows, self.from_owner, self.to_asker)

    def there(self, rows: Tensor) -> Tensor:
        """What this rank wants, in its order, of the owners' rows."""
        received = _all_to_all(rows[self.sent], self.to_asker, self.from_owner)
        return torch.empty_like(received).index_copy_(0, self.order, received)

    def back(self, rows: Tensor) -> Tensor:
        """What others give for this rank's rows `sent`, of rows in the order in which they were wanted."""
        return _all_to_all(rows[self.order], self.from_owner, self.to_asker)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        gathered = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
        td.all_gather_into_tensor(gathered, tensor.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Reduced in float32: summing many ranks' bfloat16 gradients would lose the small ones.
        summed = all_reduce_sum(grad.float())
        return summed.chunk(world_size())[rank()].to(grad.dtype)


class _ExchangeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, wanted: Tensor) -> Tensor:
        ctx.route, ctx.rows = _Route(wanted, len(rows)), len(rows)
        received: Tensor = ctx.route.there(rows)
        return received

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.new_zeros(ctx.rows, *grad.shape[1:])
        return total.index_add_(0, ctx.route.sent, ctx.route.back(grad)), None


def _all_to_all(tensor: Tensor, send: list[int], receive: list[int]) -> Tensor:
    """Consecutive runs of `send[r]` rows go to rank r; returns the `receive[r]` rows that came from each rank
    r.

    Moves bytes, because gloo does not know every dtype.
    """
    result = tensor.new_empty(sum(receive), *tensor.shape[1:])
    td.all_to_all_single(_bytes(result), _bytes(tensor), receive, send)
    return result


def _bytes(tensor: Tensor) -> Tensor:
    """Rows (n, …) as uint8 (n, bytes)."""
    width = math.prod(tensor.shape[1:])
    return tensor.reshape(len(tensor), width).view(torch.uint8)
