"""Files from a server of the test's own: resumed, verified, whole or not there."""

import hashlib
import http.server
import re
import threading
from pathlib import Path

import pytest

from fiber_cli.data import download
from fiber_cli.data.download import fetch
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs

CONTENT = bytes(range(256)) * 1200


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; ends the first answers after `cut` bytes; `ranges`: whether it answers with parts of a file."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.cut, self.cuts, self.ranges = CONTENT, '"1"', 100_000, 0, True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if not self.path.endswith("file.bin"):
            self.send_error(404)
            return
        start = 0
        is_same = self.headers.get("If-Range") == self.server.tag
        if asked and is_same and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            self.send_response(206)
            total = len(self.server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: self.server.cut]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSES", (0.0, 0.0))
    running = Server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def sha256(content: bytes) -> tuple[str, str]:
    return "sha256", hashlib.sha256(content).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".fiber-outputs")


def test_a_file_is_not_what_the_server_has(server, tmp_path):
    fetched = fetch(server.url, tmp_path / "a" / "f", Outputs(), size=len(CONTENT), checksum=sha256(CONTENT))
    assert fetched.file.read_bytes() == CONTENT
    assert (fetched.bytes, fetched.resumed, fetched.is_new) == (len(CONTENT), 0, True)
    assert fetched.verified == "size and sha256"
    assert files(tmp_path / "a") == ["f"]
    again = fetch(server.url, tmp_path / "a" / "f", Outputs(), checksum=sha256(CONTENT))
    assert not again.is_new
    assert len(server.asked) == 1


def test_a_connection_that_ends_begins_the_file_again(server, tmp_path):
    server.cuts = 2
    fetch(server.url, tmp_path / "f", Outputs(), checksum=sha256(CONTENT))
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_command_that_was_ended_begins_the_file_again(server, tmp_path):
    server.cut, server.cuts = 0, 9
    with pytest.raises(UserError, match="0 bytes have come and stay"):
        fetch(server.url, tmp_path / "f", Outputs())
    # As a kill leaves it: what has come, and nothing under the file's name.
    (tmp_path / "f.part").write_bytes(CONTENT[:120_000])
    server.cuts, server.asked = 0, []
    fetched = fetch(server.url, tmp_path / "f", Outputs(), checksum=sha256(CONTENT))
    assert fetched.resumed == 120_000
    assert server.asked == ["bytes=120000-"]
    assert files(tmp_path) == ["f"]


@pytest.mark.parametrize("change", ["tag", "ranges"])
def test_the_rest_of_another_file_is_put_behind(server, tmp_path, change):
    """The server's file changed since, or it gives no parts."""
    server.cut, server.cuts = 0, 9
    with pytest.raises(UserError):
        fetch(server.url, tmp_path / "f", Outputs())
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    server.cuts = 0
    if change == "tag":
        server.tag = '"2"'
    else:
        server.ranges = False
    assert fetch(server.url, tmp_path / "f", Outputs()).resumed == 0
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize(("size", "checksum"), [(5, None), (None, ("sha256", "0" * 64)), (None, ("md5", "0" * 32))])
def test_another_file_than_the_published_one_is_kept(server, tmp_path, size, checksum):
    with pytest.raises(UserError, match="is not the published file"):
        fetch(server.url, tmp_path / "f", Outputs(), size=size, checksum=checksum)
    assert files(tmp_path) == []


def test_a_file_of_the_users_is_replaced(server, tmp_path):
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(UserError, match="no checksum of it is published, and fiber did not fetch it"):
        fetch(server.url, tmp_path / "f", Outputs())
    with pytest.raises(UserError, match="is not the published file"):
        fetch(server.url, tmp_path / "f", Outputs(), checksum=sha256(CONTENT))
    assert (tmp_path / "f").read_bytes() == b"mine"


def test_a_file_that_is_not_there_is_asked_for_again_and_again(server, tmp_path):
    with pytest.raises(UserError, match="the server says 404"):
        fetch(server.url.replace("file.bin", "none"), tmp_path / "f", Outputs())
    assert len(server.asked) == 1


def test_a_server_that_is_gone_is_no_error_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_PAUSES", (0.0,))
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "f", Outputs())
