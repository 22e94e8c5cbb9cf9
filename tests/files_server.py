"""A local server of one file that can be cut, changed and refused, and says what was asked of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class FileServer:
    """content: what is served, under `address`. tag: its ETag, "" for none. cut_after: bytes after which each answer is
    cut, None for none. with_ranges: whether rests are served. failures: HTTP codes of the next answers. redirect: where
    every request is sent instead. asked: the Range of every request, None for the whole."""

    def __init__(self, content: bytes):
        self.content = content
        self.tag = '"one"'
        self.cut_after: int | None = None
        self.with_ranges = True
        self.failures: list[int] = []
        self.redirect: str | None = None
        self.asked: list[str | None] = []
        self.address = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append(asked)
        if self.redirect is not None:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        if self.failures:
            handler.send_error(self.failures.pop(0))
            return
        start = 0
        if asked and self.with_ranges and handler.headers.get("If-Range") == self.tag:
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            assert match is not None
            start = int(match[1])
        rest = self.content[start:]
        handler.send_response(206 if start else 200)
        if self.tag:
            handler.send_header("ETag", self.tag)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        handler.wfile.write(rest if self.cut_after is None else rest[: self.cut_after])


@contextmanager
def serving(content: bytes, name: str = "model.ckpt") -> Iterator[FileServer]:
    served = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_address[1]}/weights/{name}?version=1"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
