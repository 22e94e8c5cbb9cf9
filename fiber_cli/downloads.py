"""Files from addresses: fetched over https, resumed where they were cut, checked, and in their place only when whole.

What has arrived of a file lies beside its place as `NAME.part`, and in `NAME.part.json` the address and what the server
says of the file's version, so that a rest is only put behind a beginning of the same version.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import filelock

from fiber_cli.errors import UserError
from fiber_cli.outputs import explained, sha256_of, sync
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say
from fiber_cli.regular_files import read_regular

SCHEMES = ("https://", "http://")
#: Hosts that are this machine, where nobody stands between.
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
#: Bytes read at a time, and how long a server may say nothing.
_PIECE = 1 << 20
_TIMEOUT_SECONDS = 60.0
#: Waits before the tries after the first that bring nothing; each that brings something begins the waits anew.
WAITS_SECONDS = (1.0, 2.0, 5.0, 10.0)
#: Answers that a later try may find otherwise.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class _Cut(Exception):
    """The connection failed or ended before the file did."""


class _Version(NamedTuple):
    """What a server says of a file: `tag`, its ETag, or else when it was changed, "" where it says neither; `size` in
    bytes, None where it is not said."""

    tag: str
    size: int | None


def is_address(text: str) -> bool:
    return text.casefold().startswith(SCHEMES)


def check_address(url: str) -> None:
    """UserError for an address whose content others could change on the way."""
    parts = urlsplit(url)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not is_safe or not parts.hostname:
        raise UserError(f"{url}: not an https:// address, the only kind that is fetched; give one, or fetch the file")


def check_sha256(digest: str) -> str:
    """The digest in small letters. UserError for what is none."""
    lowered = digest.strip().casefold()
    if not _SHA256.fullmatch(lowered):
        raise UserError(
            f"{digest}: no SHA-256 digest; wanted are 64 hexadecimal digits, as `sha256sum FILE` prints them"
        )
    return lowered


def downloads_folder() -> Path:
    """Where fetched files are kept if no place is named: fiber/downloads in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fiber" / "downloads"


def place_of(url: str, folder: Path) -> Path:
    """The file in `folder` that an address is fetched to: under its own name, in a folder of the address."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    plain = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "file"
    return folder / hashlib.sha256(url.encode()).hexdigest()[:16] / plain[-100:]


def fetch(url: str, file: Path, *, sha256: str | None = None) -> Path:
    """Fetch an address to `file`, going on where an earlier try was cut; a file that is there already is not fetched
    again. sha256: of the whole file, in hexadecimal; what has another is not kept. Without it the length that the
    server says is all that is checked.

    Raises UserError for an address that is not https, one that cannot be fetched, after some tries, a file of another
    digest or length, and where it cannot be written; what has arrived stays, for the same call to go on.
    """
    check_address(url)
    wanted = None if sha256 is None else check_sha256(sha256)
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(file.with_name(f"{file.name}.lock"), timeout=0)
    try:
        with lock:
            if not file.is_file():
                _Download(url, file).run(wanted)
            elif wanted is not None and sha256_of(file) != wanted:
                raise UserError(
                    f"{file}: fetched earlier, and its SHA-256 is not {wanted}; delete it, and it is fetched"
                )
            else:
                say(f"{file}: is there already, fetched from {url}")
    except filelock.Timeout:
        raise UserError(f"{file}: is being fetched by another process; wait for it") from None
    return file


class _Download:
    """One file on its way. `arrived`: bytes of it that are there."""

    def __init__(self, url: str, file: Path):
        self.url, self.file = url, file
        self.part = file.with_name(f"{file.name}.part")
        self.note = file.with_name(f"{file.name}.part.json")
        self.version = self._noted()
        self.arrived = self.part.stat().st_size if self.version and self.part.is_file() else 0

    def run(self, sha256: str | None) -> None:
        start = f", going on at {self.arrived:,} bytes" if self.arrived else ""
        say(f"fetching {self.url} to {self.file}{start}")
        with explained(self.file):
            self._fetch_all()
            if sha256 is not None:
                self._verify(sha256)
            sync(self.part)
            self.part.replace(self.file)
            self.note.unlink(missing_ok=True)

    def _noted(self) -> _Version | None:
        """The version that has partly arrived; None where there is none that could be gone on with."""
        try:
            noted = parse_json(read_regular(self.note))
            if noted["url"] == self.url and noted["tag"]:
                return _Version(str(noted["tag"]), noted["size"])
        except (OSError, ValueError, LookupError, TypeError):
            pass  # cut by a kill, or nothing yet: the file is fetched from its beginning
        return None

    def _fetch_all(self) -> None:
        """Try until the file is whole, as long as tries bring something or waits are left."""
        waits = list(WAITS_SECONDS)
        while True:
            before = self.arrived
            try:
                self._fetch_rest()
                return
            except _Cut as cut:
                if self.arrived > before:
                    waits = list(WAITS_SECONDS)
                if not waits:
                    raise UserError(
                        f"{self.url}: cannot be fetched ({cut}); {self.arrived:,} bytes are kept, and the same command "
                        "goes on from there"
                    ) from None
                time.sleep(waits.pop(0))

    def _fetch_rest(self) -> None:
        """One request. Raises `_Cut` where it ends before the file does."""
        try:
            with contextlib.closing(self._open()) as response:
                self._begin(response)
                with self.part.open("ab") as stream:
                    self._copy(response, stream)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and self.arrived:
                self._forget()  # the file is another one by now
                raise _Cut("the server has no such rest") from None
            if error.code in _PASSING:
                raise _Cut(f"HTTP {error.code} {error.reason}") from None
            raise UserError(f"{self.url}: the server answers HTTP {error.code} {error.reason}") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _Cut(f"{type(reason).__name__}: {reason}") from None
        if self.version is not None and self.version.size not in (None, self.arrived):
            raise _Cut(f"{self.arrived:,} of {self.version.size:,} bytes arrived")

    def _open(self) -> HTTPResponse:
        # Without compression: ranges are of the bytes that are sent.
        headers = {"User-Agent": "fiber", "Accept-Encoding": "identity"}
        if self.arrived and self.version is not None and self.version.tag:
            headers |= {"Range": f"bytes={self.arrived}-", "If-Range": self.version.tag}
        opener = urllib.request.build_opener(_CheckedRedirects)
        response: HTTPResponse = opener.open(
            urllib.request.Request(self.url, headers=headers), timeout=_TIMEOUT_SECONDS
        )
        return response

    def _begin(self, response: HTTPResponse) -> None:
        """Take in what an answer says of itself; one that brings the whole file begins it anew."""
        span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == http.client.PARTIAL_CONTENT and span is not None and int(span[1]) == self.arrived:
            return
        self._forget()
        if response.status != http.client.OK:
            raise _Cut(f"the server answers HTTP {response.status} with another part than was asked for")
        length = response.headers.get("Content-Length", "")
        self.version = _Version(_tag_of(response), int(length) if length.isdecimal() else None)
        self.note.write_text(json.dumps({"url": self.url, **self.version._asdict()}))

    def _forget(self) -> None:
        self.version, self.arrived = None, 0
        self.part.write_bytes(b"")

    def _copy(self, response: HTTPResponse, stream: IO[bytes]) -> None:
        while True:
            piece = response.read1(_PIECE)
            if not piece:
                return
            stream.write(piece)
            self.arrived += len(piece)

    def _verify(self, sha256: str) -> None:
        found = sha256_of(self.part)
        if found != sha256:
            self._forget()
            raise UserError(
                f"{self.url}: what was fetched has the SHA-256 {found}, not {sha256}; it is not kept: compare the "
                "address and the digest, and try again"
            )


def _tag_of(response: HTTPResponse) -> str:
    """What `If-Range` may name: a strong ETag, or else the time of the last change."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Redirections lead to addresses of the same safety."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
