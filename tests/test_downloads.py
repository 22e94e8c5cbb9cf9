"""Files from addresses: cut ones go on, others' rests are not put behind them, and nothing half is taken for whole."""

import errno
import hashlib
import re
import shutil
from collections import namedtuple

import filelock
import pytest
from files_server import NOW, serving

from fiber_cli import downloads
from fiber_cli.downloads import check_address, check_sha256, downloads_folder, fetch, is_address, place_of
from fiber_cli.errors import UserError
from fiber_cli.outputs import LEDGER, Outputs

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SHA256 = ("sha256", DIGEST)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(downloads, "WAITS_SECONDS", (0.0, 0.0))


@pytest.fixture
def server():
    with serving({"model.ckpt": CONTENT}) as served:
        yield served


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new" / "model.ckpt"


def part_of(file):
    return file.with_name("model.ckpt.part")


def leftovers(file):
    """What lies where a file is fetched to, but for what keeps its digest and its lock."""
    return {path.name for path in file.parent.iterdir() if path.name not in (LEDGER, "model.ckpt.lock")}


def begin(server, file, arrived=30_000):
    """A call that was cut, with so many bytes."""
    server.cut_after, server.with_ranges = arrived, False
    with pytest.raises(UserError):
        fetch(server.address, file, Outputs())
    assert part_of(file).stat().st_size == arrived
    server.cut_after, server.with_ranges = None, True
    server.asked.clear()


@pytest.mark.parametrize(
    ("size", "checksum", "verified"),
    [
        (len(CONTENT), ("sha256", DIGEST.upper()), "size and sha256"),
        (None, ("md5", hashlib.md5(CONTENT).hexdigest()), "size and md5"),
        (None, ("blake2b", hashlib.blake2b(CONTENT).hexdigest()), "size and blake2b"),
        (None, None, "size"),
    ],
)
def test_a_file_is_not_what_the_server_has_or_is_fetched_twice(server, file, size, checksum, verified):
    fetched = fetch(server.address, file, Outputs(), size=size, checksum=checksum)
    assert fetched == (file, len(CONTENT), DIGEST, 0, True, verified)
    assert file.read_bytes() == CONTENT
    assert {path.name for path in file.parent.iterdir()} == {"model.ckpt", LEDGER}
    again = fetch(server.address, file, Outputs(), checksum=checksum)
    assert again[:5] == (file, len(CONTENT), DIGEST, 0, False)
    assert server.asked == [None]


@pytest.mark.parametrize(
    ("tag", "changed"), [('"one"', None), ("", NOW - 100), ('W/"one"', NOW - 100)], ids=["strong", "time", "weak, time"]
)
def test_a_cut_answer_is_not_gone_on_with(server, file, tag, changed):
    server.tag, server.changed, server.cut_after = tag, changed, 30_000
    fetch(server.address, file, Outputs(), checksum=SHA256)
    assert file.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


@pytest.mark.parametrize(("tag", "changed"), [("", None), ('W/"one"', None), ("", NOW - 1)])
def test_a_rest_that_may_be_of_another_file_is_asked_for(server, file, tag, changed):
    """Nothing tells whether it would be of the same one: no tag, one of files that are alike, a change just now."""
    server.tag, server.changed, server.cut_after = tag, changed, 30_000
    with pytest.raises(UserError, match=r"30,000 of 102,400 bytes arrived\); .* the same command begins anew"):
        fetch(server.address, file, Outputs())
    assert server.asked == [None, None, None]
    assert not file.exists()


def test_the_same_command_again_begins_anew(server, file):
    server.cut_after, server.with_ranges = 30_000, False
    with pytest.raises(UserError, match="30,000 bytes are kept, and the same command goes on from there"):
        fetch(server.address, file, Outputs())
    begin(server, file)
    # As a kill leaves it: more has come than the last answer brought.
    part_of(file).write_bytes(CONTENT[:50_000])
    fetched = fetch(server.address, file, Outputs(), checksum=SHA256)
    assert (fetched.resumed, server.asked) == (50_000, ["bytes=50000-"])
    assert file.read_bytes() == CONTENT
    assert leftovers(file) == {"model.ckpt"}


@pytest.mark.parametrize("change", ["version", "ranges", "note"])
def test_the_rest_of_another_version_is_put_behind_a_beginning(server, file, change):
    """The server's file has changed since, or it gives no rests, or what has come is not known any more."""
    begin(server, file)
    content = CONTENT
    if change == "version":
        content = server.files["model.ckpt"] = CONTENT[::-1]
        server.tag = '"two"'
    part_of(file).write_bytes(b"x" * 1000)
    server.with_ranges = change != "ranges"
    if change == "note":
        part_of(file).with_name("model.ckpt.part.json").write_text('{"url": ')
    assert fetch(server.address, file, Outputs()).resumed == 0
    assert file.read_bytes() == content


def test_all_that_has_come_is_fetched_again(server, file):
    """A kill between the last byte and the file's name; where its length was said nothing is asked."""
    begin(server, file)
    part_of(file).write_bytes(CONTENT)
    assert fetch(server.address, file, Outputs(), checksum=SHA256).resumed == len(CONTENT)
    assert server.asked == []
    file.unlink()
    part_of(file).write_bytes(CONTENT)
    note = f'{{"url": "{server.address}", "validator": "\\"one\\"", "size": null}}'
    part_of(file).with_name("model.ckpt.part.json").write_text(note)
    assert fetch(server.address, file, Outputs(), checksum=SHA256).resumed == len(CONTENT)
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_server_that_says_no_length_is_not_read_to_its_end(server, file):
    server.with_length = False
    assert fetch(server.address, file, Outputs()).verified == "nothing: its size is not known"
    assert file.read_bytes() == CONTENT
    file.unlink()
    server.cut_after = 30_000
    assert fetch(server.address, file, Outputs(), size=len(CONTENT)).verified == "size"
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("size", "checksum", "problem"),
    [
        (5, None, "102,400 bytes, wanted are 5"),
        (None, ("sha256", "0" * 64), f"its sha256 is {DIGEST}, wanted is {'0' * 64}"),
        (None, ("md5", "0" * 32), "its md5 is "),
    ],
)
def test_another_file_than_the_wanted_one_is_kept(server, file, size, checksum, problem):
    with pytest.raises(UserError, match=re.escape(f"is not the file that is wanted ({problem}")) as refusal:
        fetch(server.address, file, Outputs(), size=size, checksum=checksum)
    assert "it is not kept" in str(refusal.value)
    assert leftovers(file) == set()
    fetch(server.address, file, Outputs())
    with pytest.raises(UserError, match=re.escape(f"is there, and is not the file that is wanted ({problem}")):
        fetch(server.address, file, Outputs(), size=size, checksum=checksum)


def test_a_file_of_the_users_is_replaced(server, file):
    file.parent.mkdir()
    file.write_bytes(b"mine")
    with pytest.raises(UserError, match="no checksum of it is known, and fiber did not fetch it"):
        fetch(server.address, file, Outputs())
    with pytest.raises(UserError, match="is not the file that is wanted"):
        fetch(server.address, file, Outputs(), checksum=SHA256)
    assert file.read_bytes() == b"mine"
    file.write_bytes(CONTENT)
    assert not fetch(server.address, file, Outputs(), checksum=SHA256).is_new
    assert server.asked == []


def test_passing_failures_end_it_or_lasting_ones_are_tried_again(server, file):
    server.failures = [503, 429]
    fetch(server.address, file, Outputs())
    assert len(server.asked) == 3
    server.failures = [403]
    with pytest.raises(UserError, match=r"/files/model\.ckpt\?version=1: the server answers HTTP 403"):
        fetch(server.address, file.with_name("two"), Outputs())
    with pytest.raises(UserError, match="/none: the server answers HTTP 404"):
        fetch(f"{server.folder}/none", file.with_name("two"), Outputs())
    assert len(server.asked) == 5
    assert not file.with_name("two").exists()


def test_a_server_that_is_not_there_is_a_traceback(file):
    with pytest.raises(UserError, match=r"cannot be fetched .*refused.*nothing has arrived"):
        fetch("http://127.0.0.1:9/model.ckpt", file, Outputs())


def test_a_full_disk_is_found_out_at_its_last_byte(server, file, monkeypatch):
    begin(server, file, 60_000)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(50_000))
    assert fetch(server.address, file, Outputs(), checksum=SHA256).resumed == 60_000
    file.unlink()
    with pytest.raises(UserError, match="has 50,000 bytes free, 102,400 are needed"):
        fetch(server.address, file, Outputs())


def test_a_failure_of_the_disk_is_one_of_the_network_or_a_traceback(server, file):
    file.parent.mkdir()
    part_of(file).mkdir()
    with pytest.raises(UserError, match=r"model\.ckpt: cannot be written"):
        fetch(server.address, file, Outputs())
    assert len(server.asked) == 1


def test_two_processes_fetch_one_file(server, file, monkeypatch, capsys):
    file.parent.mkdir()
    with (
        filelock.FileLock(file.with_name("model.ckpt.lock")),
        pytest.raises(UserError, match="is being fetched by another process"),
    ):
        fetch(server.address, file, Outputs())
    assert server.asked == []

    def no_locks(lock, timeout):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    assert fetch(server.address, file, Outputs()).is_new
    assert "its file system has no locks (" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a.ckpt", "ftp://localhost/a", "file:///etc/passwd", "https://", "http://127.0.0.1.evil/a"],
)
def test_addresses_that_others_can_change_are_fetched(url, tmp_path):
    with pytest.raises(UserError, match=r"not an https:// address"):
        fetch(url, tmp_path / "a", Outputs())
    check_address("https://example.org/a.ckpt")
    check_address("http://localhost:8000/a.ckpt")


def test_plain_http_is_fetched_unasked_or_refused_where_it_may_be(server, file, monkeypatch):
    monkeypatch.setattr(downloads, "_LOOPBACK", ())  # so that the server counts as another machine
    with pytest.raises(UserError, match="not an https:// address"):
        fetch(server.address, file, Outputs())
    assert server.asked == []
    server.redirect = f"{server.folder}/model.ckpt"
    fetch(server.address, file, Outputs(), checksum=SHA256, plain_http=True)
    assert file.read_bytes() == CONTENT
    for url in ("ftp://example.org/a", "file:///etc/passwd", "http://"):
        with pytest.raises(UserError, match=r"not an http:// or https:// address"):
            check_address(url, plain_http=True)


@pytest.mark.parametrize(("plain_http", "target"), [(False, "http://example.org/a"), (True, "ftp://example.org/a")])
def test_a_redirection_leads_out_of_what_is_allowed(server, file, plain_http, target):
    server.redirect = target
    with pytest.raises(UserError, match=rf"{re.escape(target)}: not an http"):
        fetch(server.address, file, Outputs(), plain_http=plain_http)


def test_an_address_that_is_none_is_a_traceback(tmp_path):
    for url in ("https://[", "https://localhost/ä b", "https://localhost:none/a"):
        with pytest.raises(UserError, match=re.escape(url)):
            fetch(url, place_of("https://localhost/a", tmp_path), Outputs())
    with pytest.raises(UserError, match="no address"):
        place_of("https://[", tmp_path)


def test_addresses_and_digests_are_taken_for_what_they_are_not():
    assert is_address("HTTPS://example.org/a")
    assert not is_address("https/a.ckpt")
    assert check_sha256(f" {DIGEST.upper()} ") == DIGEST
    for wrong in ("", "12", DIGEST + "0", "g" * 64):
        with pytest.raises(UserError, match="no SHA-256 digest"):
            check_sha256(wrong)


def test_two_addresses_share_a_place_or_leave_the_folder(tmp_path, monkeypatch):
    one = place_of("https://a.org/x/fiber.ckpt?sv=1", tmp_path)
    assert one.name == "fiber.ckpt"
    assert one.parent != place_of("https://b.org/x/fiber.ckpt", tmp_path).parent
    for url in ("https://a.org/", "https://a.org/..", "https://a.org/%2e%2e%2fb", "https://a.org/.hidden"):
        place = place_of(url, tmp_path)
        assert place.parent.parent == tmp_path
        assert re.fullmatch(r"\w[\w.+-]*", place.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert downloads_folder() == tmp_path / "fiber" / "downloads"
