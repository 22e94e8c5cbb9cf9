"""The paths of shards behind folders, globs and ranges."""

import os
import re
from collections.abc import Sequence
from glob import escape, glob
from pathlib import Path

from fiber_cli.data.remote_files import glob_remote
from fiber_cli.errors import UserError, first_names
from fiber_cli.remote_paths import PIPE, is_remote

_GROUP = re.compile(r"\{([^{}]*)\}")
#: Shards that a pattern may name, and digits of a number in it.
_MOST, _MOST_DIGITS = 1_000_000, 18
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def find_shards(shards: str | Path | Sequence[str]) -> list[str]:
    """The paths behind folders, globs and brace patterns; `UserError` where one of them finds no file."""
    patterns = [shards] if isinstance(shards, str | Path) else shards
    paths: list[str] = []
    missing: list[str] = []
    for braced in patterns:
        _check_count(str(braced))
        for pattern in expand_braces(str(braced)):
            matches = _matches(pattern)
            paths.extend(matches)
            if not matches:
                missing.append(pattern)
    if missing or not paths:
        raise UserError(
            f"no tar shards at {first_names(missing) if missing else shards}; "
            "give a folder, a glob or a path with a range such as {00000..00331}"
        )
    return list(dict.fromkeys(paths))


def _check_count(pattern: str) -> None:
    """UserError for a pattern that names more shards than there are anywhere."""
    names = 1
    for group in _GROUP.findall(pattern):
        span = _RANGE.fullmatch(group)
        names *= _length(*span.groups()) if span else group.count(",") + 1
        if names > _MOST:
            raise UserError(f"{pattern[:200]}: names more than {_MOST:,} shards")


def _length(low: str, high: str) -> int:
    """How many numbers a range has; one past the most for numbers of too many digits."""
    if max(len(low), len(high)) > _MOST_DIGITS:
        return _MOST + 1
    return max(0, int(high) - int(low) + 1)


def _matches(pattern: str) -> list[str]:
    if is_remote(pattern):
        return _remote_matches(pattern)
    if os.path.isfile(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        pattern = os.path.join(escape(pattern), "*.tar")
    return sorted(glob(pattern))


def _remote_matches(pattern: str) -> list[str]:
    """A command or an address as it is, whether or not it is there; those behind an address with `*`, and of a folder
    whose address ends in a slash. `UserError` for a server that does not list them."""
    if pattern.startswith(PIPE) or ("*" not in pattern and not pattern.endswith("/")):
        return [pattern]
    try:
        return glob_remote(f"{pattern}*.tar" if pattern.endswith("/") else pattern)
    except OSError as error:
        raise UserError(f"{pattern}: its shards cannot be listed ({error}); name them by a range in braces") from None


def expand_braces(pattern: str) -> list[str]:
    """`a{08..10}` to a08, a09, a10; `{x,y}` to x, y; any number of groups, not nested."""
    group = _GROUP.search(pattern)
    if not group:
        return [pattern]
    before = pattern[: group.start()]
    endings = expand_braces(pattern[group.end() :])
    return [before + choice + ending for choice in _choices(group[1]) for ending in endings]


def _choices(group: str) -> list[str]:
    """What stands between braces: numbers of a range, with as many digits as its first one, or the texts of a list."""
    span = _RANGE.fullmatch(group)
    if not span:
        return group.split(",")
    low, high = span.groups()
    return [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
