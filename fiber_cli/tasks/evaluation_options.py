"""What `fiber eval` and `fiber rerank` ask of an evaluation. Loads no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fiber_cli.tasks.context import TaskContext

if TYPE_CHECKING:
    from fiber_cli.tasks.base import Task


class PairScorer(NamedTuple):
    """Another checkpoint's task, which scores pairs by fusion; fingerprint: what tells its weights from all others."""

    task: "Task"
    context: TaskContext[Any]
    fingerprint: str


@dataclass(frozen=True)
class EvaluationOptions:
    """What `fiber eval` and `fiber rerank` ask for beside a data set; validation in training asks for nothing.

    mode: of retrieval, "itc", "itm", "itc+itm" or "rerank"; None: as the task was trained. rerank: the k of that mode.
    scorer: scores pairs in place of the task. fingerprint: of the weights that score them. folder: where the scores are
    kept until all are there; None: nowhere. stem_memory: GiB of text stems that a rank holds in memory, more lie on
    disk. blind: measure also with every image exchanged for another. chunk: names in one prompt of detection, or
    "auto"; ap_library: what computes its AP, see `regions.coco_ap`, None: the usual one. calibrate: also choose what
    validation chooses, beyond the metrics. checkpoint: what messages call it.
    """

    checkpoint: str = "the task"
    mode: str | None = None
    rerank: tuple[int, ...] = ()
    scorer: PairScorer | None = None
    fingerprint: str = ""
    folder: Path | None = None
    stem_memory: float = 4.0
    blind: bool = False
    chunk: int | str = "auto"
    ap_library: str | None = None
    calibrate: bool = False
