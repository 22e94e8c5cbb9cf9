"""A local server of files that can be cut, changed and refused, and says what was asked of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

from local_server import QuietHandler, local_server

#: When the server answers, in seconds.
NOW = 1_700_000_000


class FileServer:
    """files: what is served under which names, all others are not found. tag: their ETag, "" for none; changed: when
    they were, in seconds, None where that is not said. cut_after: bytes after which each answer is cut, None for none.
    with_ranges: whether rests are served; with_length: whether answers say how long they are. failures: HTTP codes of
    the next answers. redirect: where every request is sent that is not for its file. asked: the Range of every request,
    None for the whole. folder: the address of the files, address: that of the first."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.tag = '"one"'
        self.changed: int | None = None
        self.cut_after: int | None = None
        self.with_ranges = True
        self.with_length = True
        self.failures: list[int] = []
        self.redirect: str | None = None
        self.asked: list[str | None] = []
        self.folder = ""

    @property
    def address(self) -> str:
        return f"{self.folder}/{next(iter(self.files))}?version=1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append(asked)
        if self.redirect is not None and not self.redirect.endswith(handler.path):
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        name = handler.path.rpartition("/")[2].partition("?")[0]
        if self.failures or name not in self.files:
            handler.send_error(self.failures.pop(0) if self.failures else 404)
            return
        self._send(handler, self.files[name], asked)

    def _send(self, handler: BaseHTTPRequestHandler, content: bytes, asked: str | None) -> None:
        start = 0
        last_modified = "" if self.changed is None else formatdate(self.changed, usegmt=True)
        if asked and self.with_ranges and handler.headers.get("If-Range") in (self.tag, last_modified):
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            assert match is not None
            start = int(match[1])
        if start >= len(content) > 0:
            handler.send_response_only(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        rest = content[start:]
        handler.send_response_only(206 if start else 200)
        handler.send_header("Date", formatdate(NOW, usegmt=True))
        if self.tag:
            handler.send_header("ETag", self.tag)
        if last_modified:
            handler.send_header("Last-Modified", last_modified)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.with_length:
            handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        handler.wfile.write(rest if self.cut_after is None else rest[: self.cut_after])


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    served = FileServer(files)

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            served.answer(self)

    with local_server(Handler) as port:
        served.folder = f"http://127.0.0.1:{port}/files"
        yield served
