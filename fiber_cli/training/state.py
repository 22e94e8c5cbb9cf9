"""state/run.json and state/run.safetensors of a checkpoint: where a run stands, beside the shards of the engine."""

import dataclasses
import json
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fiber_cli.checkpoints.weights import read_tensors
from fiber_cli.distributed import collectives
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.training.progress import Progress

STATE_FILE, TENSORS_FILE = "run.json", "run.safetensors"


@dataclass(frozen=True)
class RankState:
    """What each rank counts for itself: used and replaced samples, cut captions."""

    bad: dict[str, int]
    truncated: int


@dataclass(frozen=True)
class AskedBatch:
    """What a recipe says of the batch, where the run's ranks made another one of it."""

    global_batch: int
    micro_batch: int


@dataclass(frozen=True)
class RunState:
    """ranks: in their order; scaler: of fp16's loss without ZeRO; asked: None where the batch is the recipe's; data:
    what the sources held, see `data.identity`, None where it was not noted."""

    progress: Progress
    ranks: list[RankState]
    scaler: dict[str, Any] | None
    asked: AskedBatch | None = None
    data: dict[str, str] | None = None

    def to_json(self) -> str:
        """The content of run.json."""
        return json.dumps(dataclasses.asdict(self))


def read_state(folder: Path) -> RunState:
    """run.json of a state folder. Raises UserError where it is missing, damaged, or of another form."""
    with readable(folder):
        content = parse_json(read_regular(folder / STATE_FILE))
        ranks = [_rank_state(each) for each in content["ranks"]]
        progress = Progress(**content["progress"])
        _check_progress(progress)
        scaler = content["scaler"]
        if scaler is not None and not isinstance(scaler, dict):
            raise ValueError("scaler is no object")
        asked = content.get("asked")
        if asked is not None:
            asked = AskedBatch(_count(asked["global_batch"]), _count(asked["micro_batch"]))
        return RunState(progress, ranks, scaler, asked, _data(content.get("data")))


def _data(content: Any) -> dict[str, str] | None:
    if content is None:
        return None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError("data is no object of texts")
    return content


def _rank_state(content: Any) -> RankState:
    bad = content["bad"]
    return RankState({"seen": _count(bad["seen"]), "bad": _count(bad["bad"])}, _count(content["truncated"]))


def read_state_tensors(folder: Path) -> dict[str, Tensor]:
    """run.safetensors of a state folder. Raises UserError."""
    with readable(folder):
        return read_tensors(folder / TENSORS_FILE)


def local_state(ranks: list[RankState]) -> RankState:
    """What this rank counts from now on: its own part, or of other ranks than now are the first all of it."""
    rank = collectives.rank()
    if len(ranks) == collectives.world_size():
        return ranks[rank]
    if rank:
        return RankState({"seen": 0, "bad": 0}, 0)
    counts = {name: sum(each.bad[name] for each in ranks) for name in ("seen", "bad")}
    return RankState(counts, sum(each.truncated for each in ranks))


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Inside, what is missing or damaged in a state folder raises UserError that names it."""
    mend = f"write the name of an earlier checkpoint into {folder.parents[1] / 'latest'} to continue from that one"
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder, so that the run cannot go on from {folder.parent}; copy the whole checkpoint "
            f"again, {mend}, or begin a new run from its weights with --init-from {folder.parent}"
        )
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; or {mend}") from error
    except _DAMAGES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{folder} cannot be read ({type(error).__name__}: {reason}); {mend}") from error


#: What readers of JSON, torch and DeepSpeed raise for content of another form.
_DAMAGES = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    pickle.UnpicklingError,
)


def _check_progress(progress: Progress) -> None:
    """Raises ValueError for values of other types than `Progress` has."""
    for name in ("step", "skipped", "truncated", "stale", "drops"):
        _count(vars(progress)[name])
    if not _is_number(progress.seconds):
        raise ValueError("progress.seconds is no number")
    best = progress.best
    if best is not None and not (isinstance(best["metric"], str) and _is_number(best["value"])):
        raise ValueError("progress.best is not a metric with its value")
    if best is not None:
        _count(best["step"])
    if not all(map(_is_number, progress.metrics.values())):
        raise ValueError("progress.metrics are no numbers")


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(f"{value!r} is no count")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and math.isfinite(value))
