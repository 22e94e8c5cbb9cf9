"""Two processes never write into one folder, and a killed one never keeps it."""

import json
import multiprocessing
import os
import signal
import time

import filelock
import pytest

from fiber_cli.distributed import folder_lock
from fiber_cli.distributed.folder_lock import FolderLock, locked
from fiber_cli.errors import UserError

processes = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 0.3)


def hold(folder, held, leave_child):
    """Hold the lock until killed; a child, as a reader of data, lives on for a while."""
    lock = FolderLock(folder)
    lock.acquire()
    if leave_child and os.fork() == 0:
        held.set()
        time.sleep(1)
        os._exit(0)
    held.set()
    time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock of `tmp_path`."""
    started = []

    def start(leave_child=False):
        held = processes.Event()
        process = processes.Process(target=hold, args=(tmp_path, held, leave_child), daemon=True)
        process.start()
        started.append(process)
        assert held.wait(60)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_process_is_let_in(tmp_path, holder):
    process = holder()
    with pytest.raises(UserError) as refused:
        FolderLock(tmp_path).acquire()
    told = str(refused.value)
    assert told.startswith(f"{tmp_path} is in use by process {process.pid} on {os.uname().nodename}, since 2")
    assert "\n" not in told


@pytest.mark.parametrize("leave_child", [False, True])
def test_a_killed_process_keeps_the_folder(tmp_path, holder, leave_child):
    process = holder(leave_child)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locked(tmp_path):
        owner = json.loads((tmp_path / ".fiber-owner.json").read_text())
        assert owner["pid"] == os.getpid()
    assert not (tmp_path / ".fiber-owner.json").exists()


def test_one_that_is_ending_is_not_waited_for(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 30)
    process = holder()
    process.kill()  # and the lock is asked for at once
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"pid": []}', b'{"pid": 1e400}', b"[" * 100_000, None])
def test_a_damaged_owner_file_hides_that_the_folder_is_in_use(tmp_path, content, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 0)
    holder = FolderLock(tmp_path)
    holder.acquire()
    file = tmp_path / ".fiber-owner.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match="is in use by another process"):
        FolderLock(tmp_path).acquire()
    holder.release()


def test_a_folder_that_cannot_be_made_is_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written into"):
            FolderLock(folder).acquire()


def test_what_goes_on_is_sent_to_another_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written into .*; make it writable, or go on with a copy of it$"):
        FolderLock(tmp_path / "file", goes_on=True).acquire()
    with locked(tmp_path), pytest.raises(UserError, match=r"wait for it or stop it$"):
        FolderLock(tmp_path, goes_on=True).acquire()
    with locked(tmp_path), pytest.raises(UserError, match=r"wait for it or stop it, or give another --output$"):
        FolderLock(tmp_path).acquire()


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch, capsys):
    def no_locks(lock, timeout):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    owner = {"pid": os.getpid(), "host": os.uname().nodename, "began": "today"}
    (tmp_path / ".fiber-owner.json").write_text(json.dumps(owner))
    with pytest.raises(UserError, match=f"is in use by process {os.getpid()}"):
        FolderLock(tmp_path).acquire()
    ended = processes.Process(target=time.time)
    ended.start()
    ended.join()
    (tmp_path / ".fiber-owner.json").write_text(json.dumps(owner | {"pid": ended.pid}))
    with locked(tmp_path):
        pass
    assert "its file system has no locks (" in capsys.readouterr().err
