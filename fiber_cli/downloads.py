"""Files from addresses: resumed where they were cut, verified, and in their place only when they are whole.

What has arrived of a file lies beside its place as `NAME.part`, and in `NAME.part.json` the address and what the server
says of the file's version, so that a rest is only put behind a beginning of the same version. `NAME.lock` keeps two
processes from fetching one file.
"""

import email.utils
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import filelock
from tqdm import tqdm

from fiber_cli import __version__
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs, explained, replace, sha256_of
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
WAITS_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
#: Answers that a later try may find otherwise.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
#: A file that changed again within the second has the same time of change; so much later it tells versions apart.
_SURELY_LATER = timedelta(minutes=1)
#: What taking a lock raises on a file system that has none.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)

#: Name of an algorithm of hashlib's, and the digest in hexadecimal.
Checksum = tuple[str, str]


class Fetched(NamedTuple):
    """file: where it lies; bytes and sha256: what it has; resumed: from which byte on this call has fetched it; is_new:
    whether it was fetched now. verified: by what, in words."""

    file: Path
    bytes: int
    sha256: str
    resumed: int
    is_new: bool
    verified: str


def is_address(text: str) -> bool:
    return text.casefold().startswith(SCHEMES)


def check_address(url: str, *, plain_http: bool = False) -> None:
    """UserError for an address that is not fetched. plain_http: whether others may read and change the content on the
    way; where they may not it is https, or this machine."""
    parts = _parts(url)
    is_plain = parts.scheme == "http" and (plain_http or parts.hostname in _LOOPBACK)
    if parts.hostname and (parts.scheme == "https" or is_plain):
        return
    if plain_http:
        raise UserError(f"{url}: not an http:// or https:// address, the only kinds that are fetched; give one")
    raise UserError(f"{url}: not an https:// address, the only kind that is fetched; give one, or fetch the file")


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UserError(f"{url}: no address ({error}); correct it") from None


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
    name = unquote(_parts(url).path).rpartition("/")[2]
    plain = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "file"
    return folder / hashlib.sha256(url.encode()).hexdigest()[:16] / plain[-100:]


def fetch(
    url: str,
    file: Path,
    outputs: Outputs,
    *,
    size: int | None = None,
    checksum: Checksum | None = None,
    plain_http: bool = False,
) -> Fetched:
    """Fetch an address to `file`, going on where an earlier call was cut. size: bytes, and checksum: of the whole file,
    where they are known; what has others is not kept. A file that is there already is not fetched again but verified,
    without a checksum by the digest that `outputs` keeps of every fetched file. plain_http: see `check_address`, which
    holds for redirections too.

    Raises UserError for an address of another kind, one that cannot be fetched, after some tries, another file than the
    one that is wanted, and where it cannot be written or there is no room for it; what has arrived stays, for the same
    call to go on.
    """
    check_address(url, plain_http=plain_http)
    wanted = _Wanted(size, checksum)
    if file.is_file():
        return _fetched_before(file, outputs, wanted)
    pending = outputs.begin(file, temporary=file.with_name(f"{file.name}.part"))
    with _locked(file):
        if file.is_file():  # another process has fetched it just now
            return _fetched_before(file, outputs, wanted)
        download = _Download(url, pending.temporary, size, plain_http=plain_http)
        with explained(file):
            download.run()
            wanted = _Wanted(download.total(), checksum)
            problem = wanted.problem(download.part)
            if problem is not None:
                raise download.another_file(problem)
            size, sha256 = download.arrived, wanted.sha256_of(download.part)
        outputs.publish(pending)
        with explained(file):
            download.note.unlink(missing_ok=True)
    return Fetched(file, size, sha256, download.resumed, True, wanted.in_words())


class _Wanted(NamedTuple):
    """What is known of a file beforehand: its size in bytes, and a checksum."""

    size: int | None
    checksum: Checksum | None

    def problem(self, file: Path) -> str | None:
        """Why a file is another one; None where nothing says so."""
        size = file.stat().st_size
        if self.size is not None and size != self.size:
            return f"{size:,} bytes, wanted are {self.size:,}"
        if self.checksum is None:
            return None
        algorithm, digest = self.checksum
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, algorithm).hexdigest()
        if actual != digest.casefold():
            return f"its {algorithm} is {actual}, wanted is {digest}"
        return None

    def sha256_of(self, file: Path) -> str:
        """Of a file without a problem."""
        if self.checksum is not None and self.checksum[0] == "sha256":
            return self.checksum[1].casefold()
        return sha256_of(file)

    def in_words(self) -> str:
        """By what a file without a problem is verified."""
        by = []
        if self.size is not None:
            by.append("size")
        if self.checksum is not None:
            by.append(self.checksum[0])
        return " and ".join(by) or "nothing: its size is not known"


def _fetched_before(file: Path, outputs: Outputs, wanted: _Wanted) -> Fetched:
    verified = wanted.in_words()
    if wanted.checksum is None:
        verified = "the digest that was kept when it was fetched"
        if not outputs.wrote(file):
            raise UserError(
                f"{file}: is there, no checksum of it is known, and fiber did not fetch it as it is; remove it, and it "
                "is fetched"
            )
    problem = wanted.problem(file)
    if problem is not None:
        raise UserError(
            f"{file}: is there, and is not the file that is wanted ({problem}); remove it to fetch it again"
        )
    return Fetched(file, file.stat().st_size, wanted.sha256_of(file), 0, False, verified)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Nobody else fetches the file; UserError where another process does."""
    path = file.with_name(f"{file.name}.lock")
    lock = filelock.FileLock(path)
    try:
        with explained(file):
            _take(lock, file)
        yield
        if file.is_file():  # who waits for the lock finds the file
            with suppress(OSError):
                path.unlink()
    finally:
        lock.release()


def _take(lock: filelock.BaseFileLock, file: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{file}: is being fetched by another process; wait for it") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        say(f"{file}: its file system has no locks ({error}); let no other process fetch it meanwhile")


class _Cut(Exception):
    """The connection failed or ended before the file did."""


class _Version(NamedTuple):
    """What a server says of a file: `validator`, what `If-Range` names it by, "" where it says nothing that tells it
    from others; `size` in bytes, None where it is not said."""

    validator: str
    size: int | None


class _Download:
    """One file on its way to `part`. arrived: bytes of it that are there; resumed: those that were there before and are
    still of it; size: of the whole, where it is published."""

    def __init__(self, url: str, part: Path, size: int | None, *, plain_http: bool):
        self.url, self.part, self.size, self.plain_http = url, part, size, plain_http
        self.note = part.with_name(f"{part.name}.json")
        self.version = self._noted()
        self.arrived = self.part.stat().st_size if self.version and self.part.is_file() else 0
        self.resumed = self.arrived

    def total(self) -> int | None:
        """Bytes of the whole, None where nobody says."""
        if self.size is None and self.version is not None:
            return self.version.size
        return self.size

    def run(self) -> None:
        """Try until the file is whole, as long as tries bring something or waits are left."""
        file = self.part.with_suffix("")
        start = f", going on at {self.arrived:,} bytes" if self.arrived else ""
        say(f"fetching {self.url} to {file}{start}")
        waits = list(WAITS_SECONDS)
        is_whole = 0 < self.arrived == self.total()  # ended before it was in its place
        with tqdm(desc=file.name, initial=self.arrived, unit="B", unit_scale=True, disable=None) as progress:
            while not is_whole:
                before = self.arrived
                try:
                    self._fetch_rest(progress)
                    is_whole = True
                except _Cut as cut:
                    if self.arrived > before:
                        waits = list(WAITS_SECONDS)
                    if not waits:
                        raise UserError(f"{self.url}: cannot be fetched ({cut}); {self._next_time()}") from None
                    time.sleep(waits.pop(0))

    def forget(self) -> None:
        """Have nothing of the file."""
        self.version, self.arrived, self.resumed = None, 0, 0
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def another_file(self, problem: str) -> UserError:
        """Nothing is kept of a file that is not the wanted one; the error says so."""
        self.forget()
        return UserError(
            f"{self.url}: is not the file that is wanted ({problem}); it is not kept: compare the address and the "
            "digest and try again, or fetch it from another server"
        )

    def _noted(self) -> _Version | None:
        """The version that has partly arrived; None where there is none that could be gone on with."""
        with suppress(OSError, ValueError, LookupError, TypeError):  # cut by a kill, or nothing yet
            noted = parse_json(read_regular(self.note))
            size = noted["size"]
            if noted["url"] == self.url and noted["validator"] and (size is None or isinstance(size, int)):
                return _Version(str(noted["validator"]), size)
        return None

    def _next_time(self) -> str:
        """What the same call will do, in words."""
        if self.version is None or not self.arrived:
            return "nothing has arrived, try again later"
        if not self.version.validator:
            return "the server does not tell versions of the file apart, so that the same command begins anew"
        return f"{self.arrived:,} bytes are kept, and the same command goes on from there"

    def _fetch_rest(self, progress: "tqdm[Any]") -> None:
        """One request. Raises `_Cut` where it ends before the file does."""
        response = self._ask()
        if response is None:
            return
        with closing(response):
            self._begin(response)
            self._check_promise()
            progress.total = self.total()
            self._copy(response, progress)
        total = self.total()
        if total is not None and self.arrived < total:
            raise _Cut(f"{self.arrived:,} of {total:,} bytes arrived")

    def _ask(self) -> HTTPResponse | None:
        """The answer to a request for what is missing; None where that is nothing. Raises `_Cut` and UserError."""
        # Without compression: ranges are of the bytes that are sent.
        headers = {"User-Agent": f"fiber/{__version__}", "Accept-Encoding": "identity"}
        if self.arrived and self.version is not None and self.version.validator:
            headers |= {"Range": f"bytes={self.arrived}-", "If-Range": self.version.validator}
        opener = urllib.request.build_opener(_CheckedRedirects(plain_http=self.plain_http))
        try:
            request = urllib.request.Request(self.url, headers=headers)
            response: HTTPResponse = opener.open(request, timeout=_TIMEOUT_SECONDS)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            self._take_refusal(error)
            return None
        except (OSError, http.client.HTTPException) as error:
            raise _cut_by(error) from None
        except UserError:  # of a redirection
            raise
        except ValueError as error:
            raise UserError(f"{self.url}: cannot be asked for ({error}); correct the address") from None

    def _take_refusal(self, error: urllib.error.HTTPError) -> None:
        """Returns where the server has nothing behind what has arrived."""
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and self.arrived:
            if error.headers.get("Content-Range") == f"bytes */{self.arrived}":
                return
            self.forget()  # the file is another one by now
            raise _Cut("the server has no such rest")
        if error.code in _PASSING:
            raise _Cut(f"HTTP {error.code} {error.reason}")
        raise UserError(f"{self.url}: the server answers HTTP {error.code} {error.reason}")

    def _begin(self, response: HTTPResponse) -> None:
        """Take in what an answer says of itself; one that brings the whole file begins it anew."""
        span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == http.client.PARTIAL_CONTENT and span is not None and int(span[1]) == self.arrived:
            return
        self.forget()
        if response.status != http.client.OK:
            raise _Cut(f"the server answers HTTP {response.status} with another part than was asked for")
        length = response.headers.get("Content-Length", "")
        self.version = _Version(_validator(response.headers), int(length) if length.isdecimal() else None)
        replace(self.note, json.dumps({"url": self.url, **self.version._asdict()}).encode())

    def _check_promise(self) -> None:
        """UserError where the server's file is another one, or has no room."""
        told = None if self.version is None else self.version.size
        if self.size is not None and told is not None and told != self.size:
            raise self.another_file(f"{told:,} bytes, wanted are {self.size:,}")
        folder = self.part.parent
        free, missing = shutil.disk_usage(folder).free, (self.total() or 0) - self.arrived
        if missing > free:
            raise UserError(
                f"{folder}: has {free:,} bytes free, {missing:,} are needed for {self.url}; free some space"
            )

    def _copy(self, response: HTTPResponse, progress: "tqdm[Any]") -> None:
        with self.part.open("ab") as stream:
            while True:
                try:
                    piece = response.read1(_PIECE)
                except (OSError, http.client.HTTPException) as error:
                    raise _cut_by(error) from None
                if not piece:
                    return
                stream.write(piece)
                self.arrived += len(piece)
                progress.update(self.arrived - progress.n)


def _cut_by(error: OSError | http.client.HTTPException) -> _Cut:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return _Cut(f"{type(reason).__name__}: {reason}")


def _validator(headers: HTTPMessage) -> str:
    """What `If-Range` may name: a strong ETag (weak ones are of files that are alike, not the same), or else the time
    of the last change where that tells versions apart; "" where there is neither."""
    tag = headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    changed = headers.get("Last-Modified", "")
    with suppress(ValueError, TypeError):  # no dates
        age = email.utils.parsedate_to_datetime(headers["Date"]) - email.utils.parsedate_to_datetime(changed)
        if age >= _SURELY_LATER:
            return changed
    return ""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Redirections lead to addresses of the kinds that are fetched."""

    def __init__(self, *, plain_http: bool):
        self.plain_http = plain_http

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_address(newurl, plain_http=self.plain_http)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
