"""Sources that are kept: they say what their files say, until these change, and whatever reads them at once."""

import json
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from annotation_files import KINDS, entry_of, said_by
from shard_server import serving_shards

from fiber_cli.config.resolve import resolve_source
from fiber_cli.data import json_lists, kept_sources
from fiber_cli.data.cache_folder import CACHE
from fiber_cli.data.columns import MappedArray
from fiber_cli.data.sources import open_source, source_format
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.odvg import OdvgSettings
from fiber_cli.errors import UserError


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """What is kept lies beside the files."""
    monkeypatch.delenv("FIBER_CACHE")


@pytest.fixture
def small(monkeypatch):
    """Small files are kept, too, and read in pieces of a few records."""
    monkeypatch.setattr(kept_sources, "LEAST_BYTES", 0)
    monkeypatch.setattr(json_lists, "LARGE", 0)
    monkeypatch.setattr(json_lists, "PIECE", 300)


@pytest.fixture
def readings(monkeypatch):
    """Counts how often the files of COCO's form are read."""
    count = []
    read = CocoSource.__init__

    def reading(self, *arguments, **named):
        count.append(1)
        read(self, *arguments, **named)

    monkeypatch.setattr(CocoSource, "__init__", reading)
    return count


def settings_of(kind, folder):
    return resolve_source(entry_of(kind, folder), str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_says_otherwise_than_the_files(kind, tmp_path, monkeypatch, capsys):
    settings = settings_of(kind, tmp_path)
    made = source_format(settings.kind).source(**settings.arguments())
    expected, told = said_by(made), capsys.readouterr().err
    assert made.left_out
    with monkeypatch.context() as patch:
        patch.setattr(json_lists, "LARGE", 0)
        patch.setattr(json_lists, "PIECE", 300)
        patch.setattr(kept_sources, "LEAST_BYTES", 0)
        first = open_source(settings)
        assert said_by(first) == expected
        assert capsys.readouterr().err == told
        [file] = tmp_path.rglob(f"{CACHE}/annotations-*")
        patch.setattr(type(made), "__init__", None)  # reading the files again would fail
        again = open_source(settings)
    assert said_by(again) == expected
    assert capsys.readouterr().err == told
    copy = pickle.dumps(again)
    assert len(copy) < 20_000  # workers map the same file
    assert said_by(pickle.loads(copy)) == expected
    assert said_by(first) == expected
    assert not list(file.parent.glob("*.lock"))


def test_arrays_are_copied_to_workers(small, tmp_path):
    source = open_source(settings_of("coco", tmp_path))
    assert isinstance(source._objects._boxes.values, MappedArray)
    assert not source._objects._boxes.values.flags.writeable
    source.regions(3).boxes[:] = 0  # the caller's own


def test_files_that_changed_are_believed_to_be_as_they_were(small, readings, tmp_path):
    settings = settings_of("coco", tmp_path)
    for _ in range(3):
        open_source(settings)
    assert len(readings) == 1
    os.utime(tmp_path / "instances.json", ns=(1, 1))
    open_source(settings)
    assert len(readings) == 2
    assert len(list((tmp_path / CACHE).iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell when a file was changed beside its own time")
def test_a_file_with_its_former_size_and_time_is_believed_to_be_as_it_was(small, readings, tmp_path):
    settings = settings_of("coco", tmp_path)
    file = tmp_path / "instances.json"
    before = file.stat()
    names = open_source(settings).names
    file.write_text(file.read_text().replace(f'"{names[0]}"', f'"{names[0][::-1]}"'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert open_source(settings).names == [names[0][::-1], *names[1:]]
    assert len(readings) == 2


def test_names_at_an_address_are_believed_to_be_as_they_were(small, tmp_path):
    (tmp_path / "0.jpg").touch()
    (tmp_path / "records.jsonl").write_text(
        json.dumps({"filename": "0.jpg", "detection": {"instances": [{"bbox": [1, 2, 3, 4], "label": 0}]}})
    )
    with serving_shards(tmp_path) as server:
        url = f"{server.address}/names.json"
        settings = OdvgSettings(kind="odvg", jsonl=str(tmp_path / "records.jsonl"), images=str(tmp_path), label_map=url)
        for name in ("cat", "dog"):
            (tmp_path / "names.json").write_text(json.dumps({"0": name}))
            assert open_source(settings).names == [name]


def test_other_settings_get_what_is_kept(small, readings, tmp_path):
    entry = entry_of("coco", tmp_path)
    whole = open_source(resolve_source(entry, str(tmp_path)))
    few = open_source(resolve_source(entry.replace("shots: null", "shots: 1"), str(tmp_path)))
    assert len(readings) == 2
    assert len(few) < len(whole)


def test_damage_of_what_is_kept_ends_a_run(small, readings, tmp_path):
    settings = settings_of("coco", tmp_path)
    expected = said_by(open_source(settings))
    [file] = (tmp_path / CACHE).iterdir()
    whole = file.read_bytes()
    flipped = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
    another_header = whole.replace(b'"data_offsets"', b'"data_offsetz"')
    for damaged in (b"", whole[:100], whole[:-100], b"\xff" * 200, another_header, flipped):
        file.write_bytes(damaged)
        assert said_by(open_source(settings)) == expected
    assert len(readings) == 7
    assert file.stat().st_size == len(whole)


def test_pictures_that_went_away_are_not_told(small, tmp_path):
    settings = settings_of("coco", tmp_path)
    open_source(settings)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no such folder of images"):
        open_source(settings)


def test_a_folder_that_cannot_be_written_leaves_nothing_kept(small, readings, tmp_path, monkeypatch):
    settings = settings_of("coco", tmp_path)
    (tmp_path / "kept").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path) and access(path, mode))
    for _ in range(2):
        open_source(settings)
    assert len(readings) == 1
    assert list((tmp_path / "cache" / "fiber").glob("annotations-*"))  # XDG_CACHE_HOME
    assert not (tmp_path / CACHE).exists()
    monkeypatch.setenv("FIBER_CACHE", str(tmp_path / "kept"))
    for _ in range(2):
        open_source(settings)
    assert len(readings) == 2
    assert list((tmp_path / "kept").glob("annotations-*"))


def test_a_cache_without_a_place_ends_a_run(small, tmp_path, monkeypatch, capsys):
    settings = settings_of("coco", tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIBER_CACHE", str(tmp_path / "file"))
    assert len(open_source(settings)) == 299
    assert "cannot be kept" in capsys.readouterr().err


def test_small_files_leave_something_beside_them(tmp_path):
    settings = settings_of("coco", tmp_path)
    open_source(settings)
    assert not (tmp_path / CACHE).exists()


def _opened(entry, folder):
    kept_sources.LEAST_BYTES = 0
    files = []
    read = CocoSource.__init__

    def reading(self, *arguments, **named):
        files.append(1)
        read(self, *arguments, **named)

    CocoSource.__init__ = reading
    source = open_source(resolve_source(entry, folder))
    return len(files), len(source)


def test_processes_that_start_at_once_all_read_the_files(tmp_path):
    entry = entry_of("coco", tmp_path)
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        opened = list(pool.map(_opened, [entry] * 3, [str(tmp_path)] * 3))
    assert sum(read for read, _ in opened) == 1
    assert {count for _, count in opened} == {299}
