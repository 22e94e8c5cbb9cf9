"""One file per task; each task is a module that turns a batch into losses."""

from fiber_cli.tasks.coarse import CoarseTask

TASKS = {"coarse": CoarseTask}
