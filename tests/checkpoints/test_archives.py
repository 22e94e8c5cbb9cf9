"""Checkpoints as archives from addresses: fetched once, verified, whole or not there."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from files_server import serving
from run_folders import make_run

from fiber_cli import downloads
from fiber_cli.checkpoints.archives import fetch_archive
from fiber_cli.checkpoints.digests import digests_of, files_of, write_digests
from fiber_cli.checkpoints.directory import choose
from fiber_cli.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder; and no waits."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "WAITS_SECONDS", (0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path):
    """One that looks whole, with what resuming needs."""
    folder = make_run(tmp_path, "vqa", labels=("yes", "no")) / "checkpoints" / "step-000001"
    (folder / "state").mkdir()
    (folder / "state" / "mp.pt").write_bytes(b"pickle")
    write_digests(folder, digests_of(folder, files_of(folder, state=True)))
    return folder


@pytest.fixture
def server():
    with serving({}) as served:
        yield served


def tar_of(folder, inside=".", mode="w"):
    """A tar with a folder under a name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        tar.add(folder, inside)
    return packed.getvalue()


def zip_of(folder):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder.parent))
    return packed.getvalue()


def address_of(server, name, content):
    server.files[name] = content
    return f"{server.folder}/{name}?download=1#sha256={hashlib.sha256(content).hexdigest()}"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("model.tar", tar_of),
        ("model.tar.gz", lambda folder: tar_of(folder, "step-000001", "w:gz")),
        ("model.tgz", lambda folder: tar_of(folder.parents[1], "run", "w:gz")),
        ("model.zip", zip_of),
    ],
)
def test_an_archive_is_no_checkpoint_or_is_fetched_twice(server, checkpoint, cache, name, pack):
    address = address_of(server, name, pack(checkpoint))
    choice = choose(address)
    of_use = {file: content for file, content in contents(checkpoint).items() if not file.startswith("state/")}
    assert contents(choice.path) == of_use
    assert choice.path.name == "model"
    assert choice.path.is_relative_to(cache / "fiber" / "downloads")
    server.files.clear()
    assert choose(address) == choice
    assert server.asked == [None]
    assert not list(cache.rglob(f"{name}*"))


def test_a_cut_one_is_not_gone_on_with(server, checkpoint):
    content = tar_of(checkpoint)
    address = address_of(server, "model.tar", content)
    server.cut_after, server.with_ranges = 3000, False
    with pytest.raises(UserError, match="3,000 bytes are kept, and the same command goes on from there"):
        fetch_archive(address)
    server.cut_after, server.with_ranges = None, True
    server.asked.clear()
    assert (fetch_archive(address) / "config.json").is_file()
    assert server.asked == ["bytes=3000-"]


def test_another_file_is_taken(server, checkpoint, cache):
    address = address_of(server, "model.tar", tar_of(checkpoint))
    server.files["model.tar"] = tar_of(checkpoint, "other")
    with pytest.raises(UserError, match=r"is not the file that is wanted \(its sha256 is .*, wanted is "):
        fetch_archive(address)
    assert not list(cache.rglob("config.json"))


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("", "put #sha256=DIGEST behind it, as `sha256sum FILE` prints it"),
        ("#sha256=", "put #sha256=DIGEST behind it"),
        ("#sha256=abc", "abc: no SHA-256 digest"),
        ("#md5=abc", "put #sha256=DIGEST behind it"),
    ],
)
def test_a_file_is_taken_unverified(server, fragment, message):
    with pytest.raises(UserError, match=message):
        fetch_archive(f"{server.folder}/model.tar{fragment}")
    assert not server.asked


@pytest.mark.parametrize("address", ["http://example.org/model.tar", "https://[/model.tar", "https:///model.tar"])
def test_an_address_that_is_not_fetched_is_asked(address):
    with pytest.raises(UserError, match=r"not an https:// address|no address"):
        fetch_archive(f"{address}#sha256={'0' * 64}")


def test_what_is_no_archive_of_one_checkpoint_is_taken(server, checkpoint, tmp_path, cache):
    address = address_of(server, "model.ckpt", b"PK but no zip" * 99)
    with pytest.raises(UserError, match=r"is neither a tar nor a zip, .* is fetched by `fiber convert`"):
        fetch_archive(address)
    make_run(tmp_path, "vqa")
    address = address_of(server, "runs.tar", tar_of(tmp_path / "runs"))
    with pytest.raises(UserError, match=r"holds 2 checkpoint directories \(vqa0/checkpoints/step-000001, vqa1"):
        fetch_archive(address)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds 0 checkpoint directories \(none\)"):
        fetch_archive(address_of(server, "empty.tar", tar_of(tmp_path / "empty")))
    assert not list(cache.rglob("config.json"))


def test_a_member_outside_its_folder_is_written(server, checkpoint, tmp_path, cache):
    address = address_of(server, "model.tar", tar_of(checkpoint, "../../evil"))
    with pytest.raises(UserError, match="would lie outside"):
        fetch_archive(address)
    assert not list(cache.rglob("evil"))


def test_links_of_an_archive_lead_elsewhere(server, checkpoint, tmp_path):
    (checkpoint / "words.txt").symlink_to("/etc/passwd")
    folder = fetch_archive(address_of(server, "model.tar", tar_of(checkpoint)))
    assert not (folder / "words.txt").exists()


def test_a_path_that_looks_like_an_address_is_taken_for_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        choose(Path("https:/example.org/model.tar"))
