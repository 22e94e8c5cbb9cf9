"""An HTTP server of this machine alone, for as long as a test wants it."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class QuietHandler(BaseHTTPRequestHandler):
    """Answers requests by its `do_GET` and the like, and writes nothing of them on standard error."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def local_server(handler: type[QuietHandler]) -> Iterator[int]:
    """The port of 127.0.0.1 that is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
