"""Shards at addresses and of commands: the same samples in the same order as those on a disk, and faults are told."""

import errno
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from shard_server import serving_shards
from tar_files import shard_sample, write_tar

from fiber_cli.config.resolve import resolve_source
from fiber_cli.data import remote_files, shard_files
from fiber_cli.data.shard_files import Blocks, LocalShard, set_name, shard_name
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources import open_source
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.errors import UserError


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(remote_files, "WAITS_SECONDS", (0.0, 0.0))
    remote_files.has_parts.cache_clear()


@pytest.fixture
def server(tars):
    with serving_shards(tars) as served:
        yield served


def all_of(source):
    """Keys, captions, pictures and two orders."""
    samples = [(source.key(i), source.captions(i), source.encoded_image(i)) for i in range(len(source))]
    orders = [source.order(np.random.default_rng(seed)).tolist() for seed in (0, 1)]
    return samples, orders


def test_shards_of_a_server_are_others_than_on_disk(tars, server):
    source = WebDatasetSource(f"{server.address}/{{00000..00002}}.tar?token=1")
    assert all_of(source) == all_of(WebDatasetSource(str(tars)))
    parts = [part for _, part in server.asked if part not in (None, "bytes=0-0")]
    assert len(parts) == 3 + 12  # a shard once in large blocks, then each sample with one request
    copy = pickle.loads(pickle.dumps(source))
    assert copy.captions(7) == source.captions(7)
    count = len(server.asked)
    again = WebDatasetSource(f"{server.address}/{{00000..00002}}.tar?token=1")
    assert again.key(11) == source.key(11)
    assert len(server.asked) == count  # nothing is read again to know where samples lie


def _captions_of_a_worker(source):
    return source.captions(3)


def test_workers_cannot_read_what_their_parent_has_open(server):
    source = WebDatasetSource(f"{server.address}/00000.tar")
    assert source.captions(0)
    with get_context("fork").Pool(2) as pool:
        assert pool.map(_captions_of_a_worker, [source] * 4) == [("text 0 3",)] * 4


@pytest.mark.parametrize("told", ["with_parts", "with_length"])
def test_a_server_without_parts_is_asked_for_every_sample(tars, server, told):
    setattr(server, told, False)
    source = WebDatasetSource([f"{server.address}/{n:05d}.tar" for n in range(3)])
    assert all_of(source) == all_of(WebDatasetSource(str(tars)))
    if told == "with_parts":
        assert len([part for _, part in server.asked if part is None]) == 3  # each whole shard once


def test_a_server_that_fails_now_and_then_ends_a_run(server):
    server.failures = 2
    source = WebDatasetSource(f"{server.address}/00000.tar")
    server.failures = 2
    assert source.captions(1) == ("text 0 1",)
    server.failures = 100
    with pytest.raises(BadSample, match="cannot be read"):
        source.captions(3)


def test_addresses_that_cannot_be_read_are_told_late(server):
    with pytest.raises(UserError, match=r"1 of 2 shards cannot be used.*\n.*nothing.tar: is not there"):
        WebDatasetSource([f"{server.address}/00000.tar", f"{server.address}/nothing.tar"])
    with pytest.raises(UserError, match="not an https:// address"):
        WebDatasetSource("http://example.invalid/a.tar")
    with pytest.raises(UserError, match="not an address that fsspec reads"):
        WebDatasetSource("nothing-known://a/b.tar")
    with pytest.raises(UserError, match="no tar shards at"):
        WebDatasetSource(f"{server.address}/*.tar")


def test_a_server_that_does_not_answer_is_said_to_have_no_such_shard(server, monkeypatch):
    """It is tried again, as it may be starting."""
    waited = []
    monkeypatch.setattr(remote_files, "time", SimpleNamespace(sleep=waited.append))
    with pytest.raises(UserError, match="1 of 1 shards cannot be used") as told:
        WebDatasetSource("https://127.0.0.1:9/a.tar")
    (line,) = told.value.details
    assert line.startswith("https://127.0.0.1:9/a.tar: cannot be read (Client")
    assert line.count("a.tar") == 1
    assert waited == list(remote_files.WAITS_SECONDS)
    server.failures = 100  # it answers that it cannot
    with pytest.raises(UserError, match=r"00000\.tar: cannot be read \(.*503"):
        WebDatasetSource(f"{server.address}/00000.tar")
    server.failures = 0
    waited.clear()
    with pytest.raises(UserError, match=r"nothing\.tar: is not there"):
        WebDatasetSource(f"{server.address}/nothing.tar")
    assert not waited


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("https://host/cc3m/00000.tar", "00000"),
        ("https://host/cc3m/", "cc3m"),
        ("https://host/cc3m/{00000..00331}.tar?token=1", "cc3m"),
        ("s3://bucket/*.tar", "shards"),
        ("pipe:ssh host cat /data/cc3m/{00000..00331}.tar", "cc3m"),
        ("pipe:cat {0..3}.tar", "shards"),
        ("pipe:cat a/00000.tar", "00000"),
    ],
)
def test_shards_elsewhere_are_named_by_a_pattern(path, name):
    assert set_name(path) == name


def test_a_shard_that_changed_on_its_server_is_read_by_its_old_index(tars, server):
    url = f"{server.address}/00001.tar"
    assert len(WebDatasetSource(url)) == 4
    write_tar(tars / "00001.tar", shard_sample("new"))
    assert WebDatasetSource(url).key(0) == "00001/new"


@pytest.mark.parametrize("told", ["with_parts", "with_length"])
def test_a_shard_that_changed_on_a_server_without_parts_is_the_one_that_was_kept(tars, server, told, index_folder):
    setattr(server, told, False)
    url = f"{server.address}/00001.tar"
    assert len(WebDatasetSource(url)) == 4
    write_tar(tars / "00001.tar", shard_sample("new", "another text"))
    source = WebDatasetSource(url)
    assert (source.key(0), source.captions(0), len(source)) == ("00001/new", ("another text",), 1)
    assert len(list((index_folder.parent / "streams").glob("*.tar"))) == 1


@pytest.mark.parametrize("with_parts", [True, False])
def test_a_shard_that_was_mended_stays_the_damaged_one(tars, server, with_parts):
    server.with_parts = with_parts
    whole = (tars / "00001.tar").read_bytes()
    for length in (0, 1536, 3000):
        (tars / "00001.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"00001\.tar: cut short") as told:
            WebDatasetSource(f"{server.address}/00001.tar")
        assert " at byte " in str(told.value)
    (tars / "00001.tar").write_bytes(whole)
    assert len(WebDatasetSource(f"{server.address}/00001.tar")) == 4


def test_a_command_that_was_mended_stays_the_damaged_one(tars):
    whole = (tars / "00001.tar").read_bytes()
    for content in (b"", whole[:1700], b"x" * 10240):
        (tars / "00001.tar").write_bytes(content)
        with pytest.raises(UserError, match="1 of 1 shards cannot be used"):
            WebDatasetSource(f"pipe:cat {tars}/00001.tar")
    (tars / "00001.tar").write_bytes(whole)
    assert len(WebDatasetSource(f"pipe:cat {tars}/00001.tar")) == 4


def test_a_server_that_says_nothing_is_waited_for_in_silence(tars, monkeypatch, capsys):
    monkeypatch.setattr(remote_files, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/00000.tar"
        with pytest.raises(UserError, match=r"00000\.tar: cannot be read \(no answer in 0\.2 s\)"):
            WebDatasetSource(url)
    tries = len(remote_files.WAITS_SECONDS) + 1
    said = capsys.readouterr().err
    assert said.count(f"{url}: no answer in 0.2 s") == tries
    assert said.count("it is asked again") == tries - 1


def test_a_slow_answer_is_cut_off(tars, server, monkeypatch):
    """One that takes longer than the wait for a word of it, but sends a piece now and then."""
    monkeypatch.setattr(remote_files, "_TIMEOUT_SECONDS", 0.5)
    server.with_parts = False
    server.seconds = 2.0
    assert len(WebDatasetSource(f"{server.address}/00000.tar")) == 4
    assert len([part for _, part in server.asked if part is None]) == 1


@pytest.mark.parametrize("place", ["a file", "below a file", "full"])
def test_a_cache_that_takes_no_files_is_called_a_fault_of_the_shard(server, tars, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below" if place == "below a file" else tmp_path / "file"
    if place == "full":
        folder = tmp_path / "folder"
        server.with_parts = False
        monkeypatch.setattr(shard_files, "tempfile", FullDisk)
    monkeypatch.setenv("FIBER_CACHE", str(folder))
    path = f"{server.address}/00000.tar" if place == "full" else f"pipe:cat {tars}/00000.tar"
    with pytest.raises(UserError, match="or name another folder with FIBER_CACHE") as told:
        WebDatasetSource(path)
    assert str(told.value).startswith(f"{folder}/streams: cannot keep there what {path} sends (")
    if place == "full":
        assert not list((folder / "streams").iterdir())


class FullDisk:
    """`tempfile` where no file takes anything."""

    @staticmethod
    def NamedTemporaryFile(**options):
        file = tempfile.NamedTemporaryFile(**options)  # noqa: SIM115

        def write(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        file.write = write
        return file


def test_a_shard_that_is_kept_cannot_be_read_without_its_server(server):
    server.with_parts = False
    source = WebDatasetSource(f"{server.address}/00000.tar")
    (server.folder / "00000.tar").unlink()
    assert source.captions(2) == ("text 0 2",)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_settings_of_fsspec_are_passed_over(scheme, monkeypatch):
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, scheme, {"client_kwargs": {"trust_env": True}})
    files, _ = remote_files.file_system(f"{scheme}://127.0.0.1/a.tar")
    assert files.client_kwargs["trust_env"] is True
    assert files.client_kwargs["timeout"].total is None


@pytest.mark.parametrize("variable", [None, "RANK"])
def test_a_command_of_a_rank_leaves_the_group_that_its_launcher_ends(tmp_path, monkeypatch, variable):
    if variable is not None:
        monkeypatch.setenv(variable, "0")
    with pytest.raises(UserError, match="cut short"):
        WebDatasetSource(f"pipe:{sys.executable} -c 'import os; print(os.getpgid(0))' > {tmp_path / 'group'}")
    group = int((tmp_path / "group").read_text())
    assert (group == os.getpgid(0)) == (variable is not None)


def test_a_tilde_is_a_folder_of_that_name(tars, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIBER_CACHE", "~/kept")
    monkeypatch.chdir(tmp_path)
    assert len(WebDatasetSource(f"pipe:cat {tars}/00000.tar")) == 4
    assert len(list((tmp_path / "home" / "kept" / "streams").glob("*.tar"))) == 1
    assert not (tmp_path / "~").exists()


def test_an_address_with_a_space_is_no_address(tars, server):
    (tars / "00000.tar").rename(tars / "a b.tar")
    for name in ("a b.tar", "a%20b.tar"):
        source = WebDatasetSource(f"{server.address}/{name}")
        assert source.key(0).startswith("a b/")


def test_a_stopped_run_waits_for_a_command_or_leaves_it(tmp_path):
    """Also its children are ended."""
    program = f"""
import os, signal, sys, threading, time
from fiber_cli.data import shard_index
from fiber_cli.errors import UserError
def stop(number, frame):
    raise SystemExit(75)
signal.signal(signal.SIGTERM, stop)
def ask():
    while not os.path.exists({str(tmp_path / "begun")!r}):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask, daemon=True).start()
shard_index.index_shards(["pipe:touch {tmp_path / "begun"}; sleep 600 & echo $! > {tmp_path / "child"}; wait"])
"""
    environment = os.environ | {"FIBER_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (75, "")
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    began = time.monotonic()
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def test_other_file_systems_of_fsspec_are_not_read(tars):
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in tars.iterdir():
        memory.pipe_file(f"/bucket/{file.name}", file.read_bytes())
    expected = all_of(WebDatasetSource(str(tars)))
    for pattern in ("memory://bucket/{00000..00002}.tar", "memory://bucket/*.tar", "memory://bucket/"):
        assert all_of(WebDatasetSource(pattern)) == expected


@pytest.fixture
def command(tars, tmp_path):
    """Writes the shard of a name, and notes that it was asked for."""
    script = tmp_path / "give.py"
    script.write_text(
        "import sys, pathlib, shutil\n"
        f"print(sys.argv[1], file=open({str(tmp_path / 'calls')!r}, 'a'))\n"
        f"shutil.copyfileobj(open(pathlib.Path({str(tars)!r}, sys.argv[1]), 'rb'), sys.stdout.buffer)\n"
    )
    return f"pipe:{sys.executable} {script} {{00000..00002}}.tar"


def calls(tmp_path):
    return sorted((tmp_path / "calls").read_text().split())


def test_shards_of_commands_are_others_than_on_disk(tars, tmp_path, command):
    names = [f"{n:05d}.tar" for n in range(3)]
    source = WebDatasetSource(command)
    assert all_of(source) == all_of(WebDatasetSource(str(tars)))
    assert calls(tmp_path) == names  # each once
    WebDatasetSource(command)
    assert calls(tmp_path) == names


def test_shards_of_commands_fill_the_disk(command, monkeypatch, index_folder):
    monkeypatch.setattr(shard_files, "MOST_KEPT", 1)
    source = WebDatasetSource(command)
    for i in (0, 4, 8, 0):
        assert source.captions(i)
        source._open.clear()
        assert len(list((index_folder.parent / "streams").glob("*.tar"))) == 1


def test_a_shard_that_others_remove_before_it_is_open_is_not_there(tars, command, monkeypatch):
    kept, calls = shard_files._kept, []

    def removed(path, state):
        file = kept(path, state)
        calls.append(path)
        if len(calls) % 3:
            file.unlink()
        return file

    monkeypatch.setattr(shard_files, "_kept", removed)
    assert all_of(WebDatasetSource(command)) == all_of(WebDatasetSource(str(tars)))
    assert len(calls) > 3


def test_a_command_that_fails_or_writes_something_else_is_told_late(tars, tmp_path, command, index_folder):
    with pytest.raises(UserError, match="the command ended with 3: no such bucket"):
        WebDatasetSource("pipe:echo no such bucket >&2; exit 3")
    with pytest.raises(UserError, match="cut short"):
        WebDatasetSource("pipe:printf half")
    source = WebDatasetSource(command)
    write_tar(tars / "00001.tar", shard_sample("new"))
    for file in (index_folder.parent / "streams").glob("*.tar"):
        file.unlink()
    for i in (5, 6, 7, 4):
        with pytest.raises(BadSample, match="another size than when it was indexed"):
            source.captions(i)
    assert calls(tmp_path).count("00001.tar") == 2  # not once for every sample
    again = WebDatasetSource(command)
    assert (len(again), again.key(4)) == (9, "00001/new")
    assert not list((index_folder.parent / "streams").glob("*.part"))


@pytest.mark.parametrize(
    "path",
    [
        *("s3://bucket/{0..3}.tar", "https://host/a.tar?x=1", "pipe:cat ../a.tar | tee b", "gs://b/*.tar"),
        "HTTPS://host//a/../b.tar",
    ],
)
def test_a_recipe_prefixes_its_root_to_an_address(tmp_path, path):
    settings = resolve_source(f"{{kind: webdataset, shards: [{path!r}, own.tar]}}", str(tmp_path))
    assert settings.shards == (path, str(tmp_path / "own.tar"))


def test_an_entry_of_a_recipe_opens_no_address(server, tmp_path):
    entry = f"{{kind: webdataset, shards: '{server.address}/00000.tar'}}"
    assert len(open_source(resolve_source(entry, str(tmp_path)))) == 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/00000.tar", "00000"),
        ("https://host/x/00000.tar?sig=a/b.c", "00000"),
        ("s3://b/a%20b.tar", "a b"),
        ("pipe:aws s3 cp s3://b/00007.tar -", "00007"),
        ("pipe:cat 'a/00008.tar' | zcat", "00008"),
    ],
)
def test_samples_are_known_by_other_names_than_on_disk(path, name):
    assert shard_name(path) == name
    assert shard_name("pipe:x") != shard_name("pipe:y")


def test_blocks_are_other_bytes_than_the_file_has(tmp_path, monkeypatch):
    content = bytes(range(256)) * 20
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(LocalShard, "block", 100)
    shard = LocalShard(tmp_path / "a")
    blocks = Blocks(shard)
    for size, offset in ((5, 0), (90, 3), (100, 50), (300, 60), (10, 4000), (20, 5110), (5, 9999)):
        assert blocks.read(size, offset) == content[offset : offset + size]
    shard.close()
