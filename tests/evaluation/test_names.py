"""Names of data sets for the help, which loads no source."""

import subprocess
import sys

from fiber_cli.evaluation.datasets import tasks_for
from fiber_cli.evaluation.known import KNOWN
from fiber_cli.evaluation.names import DATASETS, SCENES
from fiber_cli.tasks import TASKS


def test_names_are_the_scenes_and_the_known_data_sets_in_their_order():
    assert [SCENES, *KNOWN] == list(DATASETS)


def test_every_name_is_for_some_task_and_scenes_are_for_all():
    assert all(tasks_for(name) for name in DATASETS)
    assert tasks_for(SCENES) == tuple(TASKS)


def test_names_load_nothing():
    program = (
        "import sys, fiber_cli.evaluation.names; print([m for m in ('numpy', 'torch', 'yaml') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
