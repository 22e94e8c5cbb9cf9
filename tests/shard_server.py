"""A local server of shards, which sends parts of them or not, and says what was asked of it."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import unquote


class ShardServer:
    """folder: of the files that are served; address: its address. with_parts, with_length: whether parts are sent, and
    the size is told. failures: how many of the next requests for content fail; seconds: how long the content of one
    takes, a piece at a time; missing: the code of the answer where there is no such file. asked: (name,
    Range) of every such."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.address = ""
        self.with_parts = self.with_length = True
        self.failures = 0
        self.seconds = 0.0
        self.missing = 404
        self.asked: list[tuple[str, str | None]] = []
        self._lock = Lock()

    def fails(self, name: str, part: str | None) -> bool:
        with self._lock:
            self.asked.append((name, part))
            self.failures -= 1
            return self.failures >= 0


@contextmanager
def serving_shards(folder: Path) -> Iterator[ShardServer]:
    served = ShardServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._send(with_content=False)

        def do_GET(self) -> None:
            self._send(with_content=True)

        def _send(self, with_content: bool) -> None:
            file = served.folder / unquote(self.path.partition("?")[0]).lstrip("/")
            part = self.headers.get("Range")
            if not file.is_file():
                self.send_error(served.missing)
                return
            if with_content and served.fails(file.name, part):
                self.send_error(503)
                return
            content = file.read_bytes()
            whole = len(content)
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", part or "") if served.with_parts else None
            if span is not None:
                end = int(span[2]) + 1 if span[2] else whole
                content = content[int(span[1]) : end]
            self.send_response(200 if span is None else 206)
            self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
            if span is not None:
                self.send_header("Content-Range", f"bytes {span[1]}-{int(span[1]) + len(content) - 1}/{whole}")
            if served.with_length:
                self.send_header("Content-Length", str(len(content)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if with_content:
                self._write(content)

        def _write(self, content: bytes) -> None:
            pieces = 10 if served.seconds else 1
            size = -(-len(content) // pieces)
            for piece in range(pieces):
                time.sleep(served.seconds / pieces)
                self.wfile.write(content[piece * size : (piece + 1) * size])
                self.wfile.flush()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        served.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
