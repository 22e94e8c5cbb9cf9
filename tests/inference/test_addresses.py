"""Pictures at addresses."""

import base64
from contextlib import contextmanager

import pytest
from image_files import encoded
from local_server import QuietHandler, local_server
from PIL import Image

from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError
from fiber_cli.inference import addresses
from fiber_cli.inference.addresses import fetched_bytes
from fiber_cli.inference.pictures import pictures_of, read_picture

PNG = encoded(Image.new("RGB", (7, 5), (1, 2, 3)), "PNG")


@contextmanager
def answering(answers):
    """The address of a server that answers each path with (status, headers, content)."""

    class Handler(QuietHandler):
        def do_GET(self):
            status, headers, content = answers[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    with local_server(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_picture_at_an_address_is_read_as_its_file_is():
    answers = {"/a.png": (200, {}, PNG), "/moved": (302, {"Location": "/a.png"}, b"")}
    with answering(answers) as server:
        for path in answers:
            assert read_picture(server + path).size == (7, 5)
        assert pictures_of(server + "/a.png") == ([server + "/a.png"], True)
    assert read_picture("data:image/png;base64," + base64.b64encode(PNG).decode()).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "the server answers 404"),
        ("/file", "'file:///etc/passwd' is not allowed"),
        ("/ftp", "leads on to"),
        ("/page", "not a readable image"),
        ("/cut", "of 100,000 bytes came"),
    ],
)
def test_what_is_no_picture_there_is_told(path, message):
    answers = {
        "/none": (404, {}, b""),
        "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        "/ftp": (302, {"Location": "ftp://127.0.0.1/a.png"}, b""),
        "/page": (200, {}, b"<html>"),
        "/cut": (200, {"Content-Length": "100000"}, PNG),
    }
    with answering(answers) as server, pytest.raises(UserError, match=message):
        read_picture(server + path)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/a.png", "s3://bucket/a.png"])
def test_other_kinds_of_addresses_are_not_fetched(address):
    with pytest.raises(BadSample, match="fetched are http://, https:// and data:"):
        fetched_bytes(address)


def test_too_many_bytes_are_not_kept(monkeypatch):
    monkeypatch.setattr(addresses, "MOST_BYTES", 2**20)
    with answering({"/big": (200, {}, bytes(2**20 + 1))}) as server, pytest.raises(BadSample, match="more than 1 MiB"):
        fetched_bytes(server + "/big")


def test_a_server_that_is_not_there_is_told():
    with answering({}) as server:
        pass
    with pytest.raises(UserError, match="cannot be fetched"):
        read_picture(server + "/a.png")
