"""Workers of a process that is in a group: what they are started from, what they have of the rank, and how they end.

Each program runs in a process of its own, because a process has one fork server.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as td

from fiber_cli.data import workers
from fiber_cli.data.workers import start_method, worker_context

#: A module that workers find as the program does, and a process in a group of one.
READS = """
import os, random, warnings
import numpy as np, torch

class Facts:
    def __len__(self):
        return 64

    def __getitem__(self, i):
        chance = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        names = ("BEFORE", "AFTER", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONWARNINGS")
        return {"chance": chance, "parent": os.getppid(), "own": os.getpid(), "threads": torch.get_num_threads(),
                "environment": {name: os.environ.get(name) for name in names}}

class Warning_:
    def __len__(self):
        return 2

    def __getitem__(self, i):
        warnings.warn("first line\\nsecond")
        return i

def same(samples):
    return samples
"""
BEGIN = """
print("begun", flush=True)
import json, multiprocessing, os, signal, sys, time
import torch.distributed as td
from multiprocessing import forkserver
from fiber_cli.data.loader import make_loader
from fiber_cli.data.workers import prepare_workers
from fiber_cli.errors import UserError
import reads
td.init_process_group("gloo", store=td.HashStore(), rank=0, world_size=1)
"""


@pytest.fixture
def programs(tmp_path):
    """Runs a program in a folder of its own; gives what it printed, which is all that it may leave behind."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "reads.py").write_text(READS)
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    # What lies in the current folder is none of the program's.
    (tmp_path / "here" / "queue.py").write_text("raise SystemExit('the wrong queue')")
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    # An empty entry would be the current folder.
    found = filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))
    environment["PYTHONPATH"] = os.pathsep.join(found)

    def run(program, expected=""):
        script = tmp_path / "script.py"
        script.write_text(f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\n{BEGIN}{program}")
        ended = subprocess.run(
            [sys.executable, script],
            cwd=tmp_path / "here",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (ended.returncode, ended.stderr) == (0, expected)
        lines = ended.stdout.splitlines()
        assert lines.pop(0) == "begun"
        assert not [path for path in (tmp_path / "temporary").iterdir() if path.name.startswith("pymp")]
        return [json.loads(line) for line in lines]

    return run


def test_a_worker_is_forked_where_threads_of_collectives_are(monkeypatch):
    monkeypatch.setattr(td, "is_initialized", lambda: False)
    for usual in ("fork", "forkserver", "spawn"):
        monkeypatch.setattr(workers.multiprocessing, "get_start_method", lambda allow_none, usual=usual: usual)
        monkeypatch.setattr(td, "is_initialized", lambda: False)
        assert start_method() == worker_context().get_start_method() == usual
        monkeypatch.setattr(td, "is_initialized", lambda: True)
        assert start_method() == worker_context().get_start_method()
        assert start_method() == ("forkserver" if usual == "fork" else usual)


def test_workers_have_another_environment_chance_or_parent_than_forked_ones(programs):
    """The program's own text runs once; the server is one for all loaders."""
    program = """
os.environ["BEFORE"] = "1"
prepare_workers(2)
os.environ["AFTER"] = "2"
servers = set()
for _ in range(2):
    for batch in make_loader(reads.Facts(), 2, batch_size=8, collate_fn=reads.same):
        for facts in batch:
            assert facts["parent"] == forkserver._forkserver._forkserver_pid != os.getpid()
            assert facts["threads"] == 1
            assert facts["environment"] == {name: os.environ.get(name) for name in facts["environment"]}
            servers.add(facts["parent"])
sent = [[f["chance"] for f in batch] for batch in make_loader(reads.Facts(), 2, batch_size=8, collate_fn=reads.same)]
td.destroy_process_group()
forked = make_loader(reads.Facts(), 2, batch_size=8, collate_fn=reads.same)
assert forked.multiprocessing_context.get_start_method() == multiprocessing.get_all_start_methods()[0]
assert [[f["chance"] for f in batch] for batch in forked] == sent
print(len(servers))
"""
    assert programs(program) == [1]


def test_what_cannot_be_sent_is_a_traceback_or_is_read_from_a_second_run_of_the_script(programs):
    program = """
class Here(reads.Facts):
    pass

def tried(dataset, collate):
    try:
        list(make_loader(dataset, 1, batch_size=8, collate_fn=collate))
    except UserError as error:
        print(json.dumps(str(error)))

tried(Here(), reads.same)
tried(reads.Facts(), lambda samples: samples)
held = reads.Facts()
held.stream = open(__file__)
tried(held, reads.same)
held.stream.close()
"""
    here, local, stream = programs(program)
    for told in (here, local, stream):
        assert told.startswith("what reads the data cannot be sent to worker processes (")
        assert told.endswith("or read without them (data.workers=0, --workers 0)")
    assert "Here" in here
    assert "<lambda>" in local
    assert "TextIOWrapper" in stream


def test_a_warning_of_a_worker_has_more_than_a_line(programs):
    program = """
from fiber_cli.printing import shorten_warnings
shorten_warnings()
list(make_loader(reads.Warning_(), 1, batch_size=2, collate_fn=reads.same))
"""
    programs(program, expected="warning: first line\n")


def test_signals_to_the_whole_job_end_the_server(programs):
    program = """
batches = iter(make_loader(reads.Facts(), 1, batch_size=1, collate_fn=reads.same))
facts = next(batches)[0]
for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
    os.kill(facts["parent"], number)
    os.kill(facts["own"], number)
rest = list(batches)
assert len(rest) == 63 and rest[-1][0]["own"] == facts["own"]
assert next(iter(make_loader(reads.Facts(), 1, collate_fn=reads.same)))[0]["parent"] == facts["parent"]
"""
    programs(program)


def test_a_rank_that_is_killed_leaves_its_server_or_workers(tmp_path):
    (tmp_path / "reads.py").write_text(READS)
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
{BEGIN}
batches = iter(make_loader(reads.Facts(), 2, batch_size=1, collate_fn=reads.same))
facts = [next(batches)[0] for _ in range(2)]
print(facts[0]["parent"], *[each["own"] for each in facts], flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    started = [int(pid) for pid in process.stdout.readline().split()]
    assert len(set(started)) == 3
    process.send_signal(signal.SIGKILL)
    # Each of them holds the pipes.
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("", "")
    while any(map(runs, started)):
        assert time.monotonic() - began < 30
        time.sleep(0.05)


def runs(pid):
    """Whether a process has not ended; one that nobody has asked for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def in_long_folder(tmp_path):
    """The beginning of a program whose TMPDIR has a path of more than 120 bytes."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return f"""
import tempfile
from fiber_cli.data import fork_server
tempfile.tempdir = {str(folder)!r}
"""


def test_a_folder_that_is_too_long_for_sockets_is_used_for_them(tmp_path, programs):
    program = f"""
{in_long_folder(tmp_path)}
numbers = [batch for batch in make_loader(range(4), 2, batch_size=2, collate_fn=reads.same)]
print(json.dumps([numbers, tempfile.gettempdir(), os.listdir(tempfile.gettempdir())]))
"""
    [[numbers, folder, files]] = programs(program)
    assert numbers == [[0, 1], [2, 3]]
    assert folder == str(tmp_path / ("long" * 30))
    assert files == []


def test_no_folder_for_sockets_is_a_traceback(tmp_path, programs):
    program = f"""
{in_long_folder(tmp_path)}
fork_server._SHORT_FOLDERS = ({str(tmp_path / "missing")!r},)
try:
    prepare_workers(1)
except UserError as error:
    print(json.dumps(str(error)))
"""
    [told] = programs(program)
    assert told.startswith("the process that workers are forked from cannot be started (AF_UNIX path too long)")
    assert "let TMPDIR name a folder that takes files, by a path of at most 71 bytes" in told
