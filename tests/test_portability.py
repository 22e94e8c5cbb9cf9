"""What Windows and macOS lack is not needed: the package is imported and used in a process without it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tar_files import shard_sample, write_tar

#: Takes from Python what Windows does not have, before the package is imported.
AS_ON_WINDOWS = """
import os, signal, sys

for name in ("pread", "posix_fallocate", "fork", "getuid", "sched_getaffinity"):
    delattr(os, name)
Signals = signal.Signals
members = {name: int(Signals[name]) for name in ("SIGINT", "SIGTERM", "SIGABRT")}
signal.Signals = __import__("enum").IntEnum("Signals", members)
for number in Signals:
    if number.name not in members:
        delattr(signal, number.name)
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
open_any = os.open

def open_file(path, flags, *more, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_any(path, flags, *more, **options)

"""


#: These have needs of their own, which are not the package's.
OTHERS = "import torch, transformers, timm, numpy, PIL.Image, tqdm, multiprocessing.connection, torch.utils.data\n"

USE = """
import importlib, json, pkgutil
from pathlib import Path

import numpy as np
import fiber_cli

used = {}
modules = [module.name for module in pkgutil.walk_packages(fiber_cli.__path__, "fiber_cli.")]
for name in modules:
    if not name.endswith("__main__"):
        importlib.import_module(name)
used["modules"] = len(modules)

from fiber_cli.data.sources.webdataset import WebDatasetSource

folder = Path(sys.argv[1])
source = WebDatasetSource(str(folder / "a.tar"))
used["captions"] = [*source.captions(1), *source.captions(0)]
used["size"] = source.image(1).size

from fiber_cli.model.fusion import TextStem
from fiber_cli.tasks.retrieval.stems import TextStems

stems = TextStems(3, 4, 5, memory=0, folder=folder)
stems.put([2], TextStem(torch.ones(1, 4, 5), torch.ones(1, 4, dtype=torch.bool)))
used["stems"] = stems.spilled, float(stems.get(np.array([2]), torch.device("cpu")).tokens.sum())

from fiber_cli.stop_signals import STOP_SIGNALS
from fiber_cli.training.plan import _peak_memory
from fiber_cli.training.signals import StopRequest

with StopRequest() as stop:
    signal.raise_signal(signal.SIGTERM)
used["signals"] = sorted(number.name for number in STOP_SIGNALS), stop.asked
used["memory"] = _peak_memory(torch.device("cpu"))

from fiber_cli.checkpoints.directory import replace

os.open = open_file
replace(folder / "latest", "step-000001")
used["latest"] = (folder / "latest").read_text()
print(json.dumps(used))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> dict[str, Any]:
    """What a process without these things says of the package in use."""
    folder = tmp_path_factory.mktemp("as_on_windows")
    write_tar(folder / "a.tar", [*shard_sample("one", "a dog"), *shard_sample("two", "a cat")])
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "XDG_CACHE_HOME": str(folder)}
    argv = [sys.executable, "-c", OTHERS + AS_ON_WINDOWS + USE, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_module_is_imported(used):
    assert used["modules"] > 150


def test_shards_are_read(used):
    assert used["captions"] == ["a cat", "a dog"]
    assert used["size"] == [40, 30]


def test_text_stems_lie_on_disk(used):
    assert used["stems"] == [True, 20.0]


def test_files_are_replaced_where_folders_cannot_be_opened(used):
    assert used["latest"] == "step-000001"


def test_stop_signals_and_memory_are_those_that_there_are(used):
    assert used["signals"] == [["SIGINT", "SIGTERM"], True]
    assert used["memory"] is None


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(platform, unit, monkeypatch):
    """The kernels of Linux and macOS count it in different units."""
    import resource

    import torch

    from fiber_cli.training.plan import _peak_memory

    monkeypatch.setattr(sys, "platform", platform)
    peak = _peak_memory(torch.device("cpu"))
    assert peak is not None
    assert peak == pytest.approx(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rel=0.2)


def test_windows_forwards_no_signal_that_it_cannot_send(monkeypatch):
    import signal

    from fiber_cli.distributed import launch

    class Process:
        sent: list[int] = []  # noqa: RUF012

        def send_signal(self, number):
            self.sent.append(number)

    monkeypatch.setattr(sys, "platform", "win32")
    for number in (signal.SIGINT, signal.SIGTERM):
        launch._pass_on(Process(), number)
    assert Process.sent == [signal.SIGTERM]
