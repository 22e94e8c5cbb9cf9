"""Files from addresses: cut ones go on, others' rests are not put behind them, and nothing half is taken for whole."""

import hashlib
import re

import pytest
from files_server import serving

from fiber_cli import downloads
from fiber_cli.downloads import check_address, check_sha256, downloads_folder, fetch, is_address, place_of
from fiber_cli.errors import UserError

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(downloads, "WAITS_SECONDS", (0.0, 0.0))


@pytest.fixture
def server():
    with serving(CONTENT) as served:
        yield served


def leftovers(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_is_not_fetched_whole_or_is_fetched_twice(server, tmp_path):
    file = tmp_path / "new" / "model.ckpt"
    for _ in range(2):
        assert fetch(server.address, file, sha256=DIGEST.upper()) == file
        assert file.read_bytes() == CONTENT
    assert server.asked == [None]
    assert leftovers(file.parent) == {"model.ckpt"}


@pytest.mark.parametrize("tag", ['"one"', ""])
def test_a_cut_answer_is_not_gone_on_with(server, tmp_path, tag):
    server.tag, server.cut_after = tag, 30_000
    file = tmp_path / "model.ckpt"
    if tag:
        fetch(server.address, file, sha256=DIGEST)
        assert file.read_bytes() == CONTENT
        assert server.asked == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]
    else:  # nothing tells whether a rest would be of the same file
        with pytest.raises(UserError, match=r"30,000 of 102,400 bytes arrived\); 30,000 bytes are kept"):
            fetch(server.address, file)
        assert server.asked == [None, None, None]
        assert not file.exists()


def test_the_same_command_again_begins_anew(server, tmp_path, monkeypatch):
    file = tmp_path / "model.ckpt"
    monkeypatch.setattr(downloads, "WAITS_SECONDS", ())
    server.cut_after, server.with_ranges = 30_000, False
    with pytest.raises(UserError, match="30,000 bytes are kept"):
        fetch(server.address, file)
    server.cut_after, server.with_ranges = None, True
    fetch(server.address, file, sha256=DIGEST)
    assert file.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=30000-"


def test_the_rest_of_another_version_is_put_behind_a_beginning(server, tmp_path, monkeypatch):
    file = tmp_path / "model.ckpt"
    server.cut_after = 30_000
    monkeypatch.setattr(downloads, "WAITS_SECONDS", ())
    server.with_ranges = False
    with pytest.raises(UserError):
        fetch(server.address, file)
    server.content, server.tag, server.cut_after, server.with_ranges = CONTENT[::-1], '"two"', None, True
    fetch(server.address, file)
    assert file.read_bytes() == CONTENT[::-1]


def test_a_file_of_another_digest_is_kept(server, tmp_path):
    file = tmp_path / "model.ckpt"
    with pytest.raises(UserError, match=f"has the SHA-256 {DIGEST}, not {'0' * 64}; it is not kept"):
        fetch(server.address, file, sha256="0" * 64)
    assert not file.exists()
    fetch(server.address, file)
    with pytest.raises(UserError, match="fetched earlier, and its SHA-256 is not"):
        fetch(server.address, file, sha256="0" * 64)


def test_passing_failures_end_it_or_lasting_ones_are_tried_again(server, tmp_path):
    server.failures = [503, 429]
    fetch(server.address, tmp_path / "one")
    assert len(server.asked) == 3
    server.failures = [404]
    with pytest.raises(UserError, match=r"/weights/model\.ckpt\?version=1: the server answers HTTP 404"):
        fetch(server.address, tmp_path / "two")
    assert len(server.asked) == 4
    assert not (tmp_path / "two").exists()


def test_a_server_that_is_not_there_is_a_traceback(tmp_path):
    with pytest.raises(UserError, match=r"cannot be fetched .*refused"):
        fetch("http://127.0.0.1:9/model.ckpt", tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a.ckpt", "ftp://localhost/a", "file:///etc/passwd", "https://", "http://127.0.0.1.evil/a"],
)
def test_addresses_that_others_can_change_are_fetched(url, tmp_path):
    with pytest.raises(UserError, match=r"not an https:// address"):
        fetch(url, tmp_path / "a")
    check_address("https://example.org/a.ckpt")
    check_address("http://localhost:8000/a.ckpt")


def test_a_redirection_leads_out_of_https(server, tmp_path):
    server.redirect = "http://example.org/model.ckpt"
    with pytest.raises(UserError, match=r"http://example\.org/model\.ckpt: not an https"):
        fetch(server.address, tmp_path / "model.ckpt")


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
