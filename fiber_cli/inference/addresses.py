"""Pictures at addresses: fetched into memory, within bounds of time and size."""

import http.client
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPMessage
from typing import IO

from fiber_cli import __version__
from fiber_cli.data.source import BadSample

#: `C:/` is a drive of Windows.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
#: Only these lead to other machines, or nowhere: file:// and ftp:// do not.
_SCHEMES = ("http://", "https://", "data:")
#: Bytes of a picture that is fetched, and seconds in which the server must have sent it.
MOST_BYTES, SECONDS = 100 * 2**20, 60.0
_PIECE = 1 << 16


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to http and https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise BadSample(f"the address leads on to {newurl!r:.200}, which is not fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_address(text: str) -> bool:
    """Whether a text is an address, of whatever scheme, and no path."""
    return _ADDRESS.match(text) is not None


def fetched_bytes(address: str) -> bytes:
    """What is at an address, by http, https or in the address itself (data:). Raises `BadSample`, also for more than
    `MOST_BYTES` and for what has not come in `SECONDS`."""
    if not address.lower().startswith(_SCHEMES):
        scheme = address.partition(":")[0]
        raise BadSample(f"an address by {scheme}; fetched are http://, https:// and data:")
    request = urllib.request.Request(address, headers={"User-Agent": f"fiber/{__version__}"})
    opener = urllib.request.build_opener(_SameSchemes)
    ends = time.monotonic() + SECONDS
    pieces: list[bytes] = []
    size = 0
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            announced = answer.headers.get("Content-Length", "")
            while piece := answer.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    raise BadSample(f"more than {MOST_BYTES // 2**20} MiB")
                if time.monotonic() > ends:
                    raise BadSample(f"has not come in {SECONDS:g} seconds")
    except urllib.error.HTTPError as error:
        raise BadSample(f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise BadSample(f"cannot be fetched ({error.reason})") from None
    except (TimeoutError, OSError, http.client.HTTPException, ValueError) as error:
        raise BadSample(f"cannot be fetched ({error or type(error).__name__})") from None
    if announced.isdecimal() and size < int(announced):
        raise BadSample(f"cannot be fetched ({size:,} of {int(announced):,} bytes came)")
    return b"".join(pieces)
