"""Files at addresses, such as `https://…` or `s3://…`: what fsspec reads, asked again where a server fails."""

import http.client
import time
import urllib.request
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from fiber_cli.downloads import check_address
from fiber_cli.errors import UserError
from fiber_cli.printing import say

Result = TypeVar("Result")
#: Waits before the tries after the first, in seconds.
WAITS_SECONDS = (0.5, 2.0, 8.0)
#: What servers answer where there is no such file, and never will be.
_NOT_THERE = (404, 410)
#: What servers answer to those who may not read a file.
_REFUSED = (401, 403)
#: How long a server may say nothing.
_TIMEOUT_SECONDS = 60.0
#: Signs that stand in addresses as they are, beside letters and digits.
_OF_ADDRESSES = "%/:?#[]@!$&'()*+,;=~"


class NotThereError(OSError):
    """The server says that there is no such file."""


def read_remote(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of a file, from one place in it to another where these are given. Raises OSError, `NotThereError` where
    it is not there."""
    files, path = file_system(url)
    content: bytes = tried(url, lambda: files.cat_file(path, start=start, end=end))
    return content


def is_there(url: str) -> bool:
    """Whether a server has a file. Raises OSError where it does not tell."""
    try:
        file_info(url)
    except NotThereError:
        return False
    return True


def glob_remote(pattern: str) -> list[str]:
    """The addresses behind one with `*`, in order. Raises OSError."""
    files, path = file_system(pattern)
    return sorted(files.unstrip_protocol(name) for name in tried(pattern, lambda: files.glob(path)))


def file_info(url: str) -> dict[str, Any]:
    """What a server tells of a file: where it does so its size in bytes, and what changes with its content. Raises
    OSError."""
    files, path = file_system(url)
    facts: dict[str, Any] = tried(url, lambda: files.info(path))
    return facts


@cache
def has_parts(url: str) -> bool:
    """Whether the server sends parts: one of http is asked for one, all others do."""
    if not _is_http(url):
        return True
    check_address(url)
    if file_info(url).get("size") is None:
        return False
    request = urllib.request.Request(quote(url, safe=_OF_ADDRESSES), headers={"Range": "bytes=0-0"})

    def status() -> int:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            code: int = answer.status
            return code

    return tried(url, status) == http.client.PARTIAL_CONTENT


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of an address, one in each process, and the path in it."""
    import fsspec

    options = {}
    if _is_http(url):
        import aiohttp

        check_address(url)
        # For every answer and every piece of it: by itself it would end any transfer after five minutes.
        seconds = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_SECONDS, sock_read=_TIMEOUT_SECONDS)
        configured = fsspec.config.conf.get(urlsplit(url).scheme.lower(), {}).get("client_kwargs", {})
        options["client_kwargs"] = {"timeout": seconds, **configured}
    try:
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise UserError(f"{url}: {error}; install the package and start again") from None
    except ValueError as error:
        raise UserError(f"{url}: not an address that fsspec reads ({error})") from None
    return files, path


def tried(url: str, ask: Callable[[], Result]) -> Result:
    """What a server answers, some tries long. OSError where that does not help."""
    waits = list(WAITS_SECONDS)
    while True:
        try:
            return ask()
        except UserError:
            raise
        except Exception as error:  # every library of fsspec has errors of its own
            reason = _reason(error)
            if reason is None:
                raise NotThereError(f"{url}: is not there") from None
            words = f"{type(reason).__name__}: {reason}"
            if isinstance(reason, TimeoutError):
                words = f"no answer in {_TIMEOUT_SECONDS:g} s"
                say(f"{url}: {words}{'; it is asked again' if waits else ''}")
            if not waits or _is_refusal(reason):
                raise OSError(f"{url}: cannot be read ({words})") from None
            time.sleep(waits.pop(0))


def _reason(error: Exception) -> BaseException | None:
    """Why a server gives nothing; None where it says that nothing is there. fsspec says so too of one that cannot be
    reached, or does not answer: the reason is then the cause."""
    if not isinstance(error, FileNotFoundError):
        return error
    import aiohttp

    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientResponseError):
        return None if cause.status in _NOT_THERE else cause
    is_unreached = isinstance(cause, OSError | TimeoutError | aiohttp.ClientError)
    return cause if is_unreached and not isinstance(cause, FileNotFoundError) else None


def _is_refusal(reason: BaseException) -> bool:
    return isinstance(reason, PermissionError) or getattr(reason, "status", None) in _REFUSED


def _is_http(url: str) -> bool:
    return urlsplit(url).scheme.lower() in ("http", "https")
