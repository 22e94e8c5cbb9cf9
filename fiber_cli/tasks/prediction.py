"""A task's predictions for all items of an evaluation set, in one process or many."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm

from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.distributed import collectives
from fiber_cli.distributed.device import to_device
from fiber_cli.model.precision import precision_context

if TYPE_CHECKING:
    from fiber_cli.tasks.base import Task
    from fiber_cli.tasks.items import EvalItems


@dataclass(frozen=True)
class PredictOptions:
    """batch_size: items, or pairs, in one pass of a rank. workers: processes that read, of a rank. precision: a
    settled one, see `model.precision`, of the computation. max_pixels: of a user's own pictures, those with more are
    left out."""

    batch_size: int
    workers: int
    precision: str = "fp32"
    max_pixels: int = MAX_PIXELS


class Predictions(NamedTuple):
    """`rows` by item number; (id, reason) of the items left out; how many texts were cut."""

    rows: dict[int, Any]
    bad: list[tuple[str, str]]
    truncated: int


def predict_all(
    task: "Task",
    evalset: "EvalItems",
    options: PredictOptions,
    *,
    what: str = "",
    done: Callable[[int], object] | None = None,
) -> Predictions:
    """`task.predict` of every item, the same on all ranks.

    Every rank predicts its share; rows come together by their number, each counted once. `what` names the items on
    the progress bar, which a terminal gets; done: takes in its place how many items a batch of this rank had.
    """
    return _together(collectives.gather_objects(_predict_share(task, evalset, options, what, done)), evalset)


def predict_on_main(task: "Task", evalset: "EvalItems", options: PredictOptions, *, what: str = "") -> Predictions:
    """`predict_all` with the rows on the first rank alone, for what that rank scores; all else is the same on all."""
    local = _predict_share(task, evalset, options, what)
    of_ranks = collectives.gather_on_main(local.rows)
    rest = _together(collectives.gather_objects(local._replace(rows={})), evalset)
    rows: dict[int, Any] = {}
    for of_rank in of_ranks or ():
        rows.update(of_rank)
    return rest._replace(rows=rows)


def _together(shares: Sequence[Predictions], evalset: "EvalItems") -> Predictions:
    rows: dict[int, Any] = {}
    bad = list(evalset.left_out)
    truncated = 0
    for share in shares:
        rows.update(share.rows)
        bad.extend(share.bad)
        truncated += share.truncated
    return Predictions(rows, bad, truncated)


@torch.no_grad()
def _predict_share(
    task: "Task",
    evalset: "EvalItems",
    options: PredictOptions,
    what: str,
    done: Callable[[int], object] | None = None,
) -> Predictions:
    """The predictions of this rank's items."""
    was_training = task.training
    task.eval()
    device = next(task.parameters()).device
    rank, world = collectives.rank(), collectives.world_size()
    batches = evalset.loader(rank=rank, world=world, batch_size=options.batch_size, workers=options.workers)
    on_screen = done is None and collectives.is_main() and sys.stderr.isatty()
    rows: dict[int, Any] = {}
    bad: list[tuple[str, str]] = []
    truncated = 0
    for batch in tqdm(batches, desc=what, unit="batch", disable=not on_screen, leave=False, dynamic_ncols=True):
        bad.extend(batch["bad"])
        truncated += batch["truncated"]
        if done is not None:
            done(len(batch["index"]) + len(batch["bad"]))
        if len(batch["index"]) == 0:
            continue
        with precision_context(options.precision, device):
            predicted = task.predict(to_device(batch, device))
        if torch.is_tensor(predicted):
            predicted = _as_array(predicted)
        rows.update(zip(batch["index"].tolist(), predicted, strict=True))
    task.train(was_training)
    return Predictions(rows, bad, truncated)


def _as_array(tensor: torch.Tensor) -> Any:
    """On the CPU, floating point as float32, which numpy has for every precision."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.cpu().numpy()
