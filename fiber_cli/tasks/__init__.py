"""One file per task; each task is a module that turns a batch into losses."""

from fiber_cli.kinds import REGION_TASKS
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask, RetrievalTask
from fiber_cli.tasks.regions.task import GroundingTask
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.vqa.task import VqaTask

TASKS = {
    "coarse": CoarseTask,
    "retrieval": RetrievalTask,
    "vqa": VqaTask,
    "nlvr2": Nlvr2Task,
    "caption": CaptionTask,
    **dict.fromkeys(REGION_TASKS, GroundingTask),
}
