"""Files from addresses: resumed where they were left, verified, and in their place only when they are whole.

What has come of a file lies beside it as `NAME.part`, with what tells whether the server's file is still the same in
`NAME.part.json`.
"""

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from fiber_cli import __version__
from fiber_cli.data.files import read_json
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs, explained, replace, sha256_of

_BLOCK = 1 << 20
_TIMEOUT = 60.0
#: Seconds before another attempt that follows one without a byte.
_PAUSES = (0.0, 1.0, 5.0, 30.0)
_REFUSED = (401, 403, 404, 410)
_Checksum = tuple[str, str] | None


class Fetched(NamedTuple):
    """file: where it lies; bytes and sha256: what it has; resumed: from which byte the last of it was fetched; is_new:
    whether it was fetched now. verified: by what, in words."""

    file: Path
    bytes: int
    sha256: str
    resumed: int
    is_new: bool
    verified: str


def fetch(url: str, file: Path, outputs: Outputs, *, size: int | None = None, checksum: _Checksum = None) -> Fetched:
    """The file of an address, in its place. size: bytes, checksum: name and hexadecimal digest, where they are known.
    One that is there already is verified by them, or, without a checksum, by what fiber wrote.

    Raises `UserError` where the server has no such file or stops sending, where what came is not the published file,
    and where there is no room for it.
    """
    if file.is_file():
        return _there(file, outputs, size, checksum)
    outputs.check(file)
    part = _Part(url, file)
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        resumed = _receive(part, size)
    verified = _verify(part.path, url, size if size is not None else part.total, checksum, remove=part.remove)
    with explained(file):
        part.path.replace(file)
        part.remove()
    outputs.keep(file.parent, [file], file.parent)
    return Fetched(file, file.stat().st_size, sha256_of(file), resumed, True, verified)


def _there(file: Path, outputs: Outputs, size: int | None, checksum: _Checksum) -> Fetched:
    if checksum is None and not outputs.wrote(file):
        raise UserError(
            f"{file}: is there, no checksum of it is published, and fiber did not fetch it as it is; remove it to "
            "fetch it again"
        )
    verified = _verify(file, "the one that is there", size, checksum)
    if checksum is None:
        verified = "the digest that was kept when it was fetched"
    return Fetched(file, file.stat().st_size, sha256_of(file), 0, False, verified)


class _Part:
    """What has come of a file. total: bytes of the whole, where the server says."""

    def __init__(self, url: str, file: Path):
        self.url = url
        self.path = file.with_name(f"{file.name}.part")
        self._facts = file.with_name(f"{file.name}.part.json")
        self.validator: str | None = None
        self.total: int | None = None
        self.size = self._usable()
        #: From which byte on what came before is gone on with.
        self.resumed = self.size

    def _usable(self) -> int:
        """How many bytes can be gone on from."""
        if not self.path.is_file() or not self._facts.is_file():
            return 0
        with suppress(UserError):  # damaged by a kill: from the beginning
            facts = read_json(self._facts, "what has come of a file")
            if isinstance(facts, dict) and facts.get("url") == self.url and facts.get("validator"):
                self.validator, self.total = facts["validator"], facts.get("total")
                return self.path.stat().st_size
        return 0

    def begin(self, response: HTTPResponse) -> None:
        """A new file from its first byte on."""
        length = response.headers.get("Content-Length")
        self.total = int(length) if length is not None and length.isdigit() else None
        # A weak tag is of files that are alike, not the same.
        tag = response.headers.get("ETag")
        strong = tag if tag is not None and not tag.startswith("W/") else None
        self.validator = strong or response.headers.get("Last-Modified")
        self.size = self.resumed = 0
        facts = {"url": self.url, "validator": self.validator, "total": self.total}
        self.path.write_bytes(b"")
        replace(self._facts, json.dumps(facts).encode())

    def remove(self) -> None:
        """Forget what has come."""
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)


def _receive(part: _Part, size: int | None) -> int:
    """Fetch until the file is whole; returns from which byte on this call has fetched it."""
    failures = 0
    with tqdm(
        total=size, desc=part.path.name.removesuffix(".part"), unit="B", unit_scale=True, disable=None
    ) as progress:
        progress.update(part.size)
        while True:
            before = part.size
            problem = _attempt(part, size, progress)
            if problem is None:
                return part.resumed
            failures = 0 if part.size > before else failures + 1
            if failures == len(_PAUSES):
                raise UserError(
                    f"{part.url}: {problem}; {part.size:,} bytes have come and stay, run this again to go on"
                )
            time.sleep(_PAUSES[failures])


def _attempt(part: _Part, size: int | None, progress: "tqdm[Any]") -> str | None:
    """One request; None where the file is whole, else why not. Raises `UserError` where another would be no better."""
    request = urllib.request.Request(part.url, headers={"User-Agent": f"fiber/{__version__}"})
    if part.size:
        request.add_header("Range", f"bytes={part.size}-")
        request.add_header("If-Range", str(part.validator))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if not _goes_on(response, part):
                part.begin(response)
                progress.reset(part.total)
            _check_room(part, size)
            _copy(response, part, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and part.total == part.size:
            return None
        if error.code == 416:
            part.remove()
            part.size = part.resumed = 0
        if error.code in _REFUSED:
            raise UserError(
                f"{part.url}: the server says {error.code} {error.reason}; see the data set's page"
            ) from None
        return f"the server says {error.code} {error.reason}"
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        return f"cannot be fetched ({error})"
    whole = part.total if part.total is not None else size
    if whole is not None and part.size < whole:
        return f"the connection ended after {part.size:,} of {whole:,} bytes"
    return None


def _goes_on(response: HTTPResponse, part: _Part) -> bool:
    """Whether the answer is the rest of the file, from the byte on that was asked for."""
    beginning = f"bytes {part.size}-"
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(beginning)


def _check_room(part: _Part, size: int | None) -> None:
    total = part.total if part.total is not None else size
    if total is None:
        return
    free = shutil.disk_usage(part.path.parent).free
    if total - part.size > free:
        raise UserError(
            f"{part.path.parent}: has {free:,} bytes free, {total - part.size:,} are needed; free some space"
        )


def _copy(response: HTTPResponse, part: _Part, progress: "tqdm[Any]") -> None:
    with open(part.path, "r+b") as stream:
        stream.seek(part.size)
        stream.truncate()
        while block := response.read(_BLOCK):
            stream.write(block)
            stream.flush()
            part.size += len(block)
            progress.update(len(block))


def _verify(path: Path, what: str, size: int | None, checksum: _Checksum, remove: object = None) -> str:
    """By what the file is verified, in words; `UserError` where it is another file, which `remove` then takes away."""
    problem = None
    if size is not None and path.stat().st_size != size:
        problem = f"{path.stat().st_size:,} bytes, wanted are {size:,}"
    elif checksum is not None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, checksum[0]).hexdigest()
        if digest != checksum[1]:
            problem = f"{checksum[0]} {digest}, published is {checksum[1]}"
    if problem is None:
        by = ["size"] if size is not None else []
        return " and ".join([*by, checksum[0]] if checksum is not None else by) or "nothing: its size is not known"
    if callable(remove):
        remove()
        raise UserError(
            f"{what}: is not the published file ({problem}); it is removed, fetch it again or from a mirror"
        )
    raise UserError(f"{path}: is not the published file ({problem}); remove it to fetch it again")
