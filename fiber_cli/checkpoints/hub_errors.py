"""What goes wrong with the hub and its client, in words that say what was asked for, where, and how to mend it."""

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import constants, errors
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.outputs import write_problem
from fiber_cli.printing import say

Result = TypeVar("Result")

#: Of what the client sends with, which is another package in other versions.
HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]

#: Waits before the tries after the first, where the connection fails or the hub has no time.
WAITS_SECONDS = (0.5, 2.0)
#: Answers that a later try may find otherwise.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def persistent(call: Callable[[], Result]) -> Result:
    """What a call gives, which is tried again where it fails for a reason that may pass."""
    for wait in WAITS_SECONDS:
        try:
            return call()
        except (OSError, HTTPError) as error:
            if not may_pass(error):
                raise
            say(f"{constants.ENDPOINT}: {first_line(error)}; trying again")
            time.sleep(wait)
    return call()


def may_pass(error: BaseException) -> bool:
    """Whether the hub could not be reached or had no time, or a connection was cut."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    # The client's plain OSError is of a file that is shorter than it should be.
    return isinstance(error, HTTPError) or (type(error) is OSError and error.errno is None)


def in_words(error: BaseException, name: HubName) -> str:
    """Why a repository cannot be read or written, and what to do about it."""
    page = f"{constants.ENDPOINT}/{name.repository}"
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return in_words(error.__cause__, name)
    if isinstance(error, GatedRepoError):
        return f"{page} is gated: ask for access there, then {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"{page} has no branch, tag or commit {name.revision or constants.DEFAULT_REVISION}"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{page} is no checkpoint of fiber: {first_line(error, skip='Client Error')}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no model {name.repository}, or a private one: {_LOG_IN}"
    if isinstance(error, HfHubHTTPError):
        return _answer_in_words(error, name)
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is not asked, as HF_HUB_OFFLINE is set"
    if isinstance(error, HTTPError):
        kind = type(error).__name__
        return f"{constants.ENDPOINT} cannot be reached ({kind}: {first_line(error)}); try again with a connection"
    is_of_client = isinstance(error, OSError) and error.errno is None  # has no number of the system
    problem = write_problem(error)
    if problem is not None and not is_of_client:
        return f"{constants.HF_HUB_CACHE}, the hub's cache, cannot be written ({problem})"
    return f"{page}: {type(error).__name__}: {first_line(error)}"


def _answer_in_words(error: HfHubHTTPError, name: HubName) -> str:
    """Of an answer that stands for nothing more particular."""
    code = error.response.status_code
    told = error.server_message or error.response.reason_phrase
    answer = f"{constants.ENDPOINT} answers HTTP {code} to what is asked of {name}"
    if told:
        answer += f" ({' '.join(str(told).split())[:300]})"
    if code == 404:
        return f"{constants.ENDPOINT} has no model {name} (HTTP 404), or a private one: {_LOG_IN}"
    if code in (401, 403):
        return f"{answer}: the token does not open it, or there is none; {_LOG_IN}"
    if code in _PASSING:
        return f"{answer}; try again later"
    return answer


def first_line(error: BaseException, *, skip: str = "") -> str:
    """The first line that an error says, after the one with `skip`; its kind where it says nothing."""
    for line in str(error).splitlines():
        if line.strip() and not (skip and skip in line):
            return line.strip()[:300]
    return type(error).__name__
