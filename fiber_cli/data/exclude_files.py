"""The files behind the setting `exclude` of an entry."""

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from fiber_cli.data.shard_paths import expand_braces
from fiber_cli.errors import UserError, first_names

FORMS = "a text with an id a line, a JSON list of ids, image hashes, or the JSON of a data set"


def exclude_files(setting: str | Sequence[str] | None) -> list[str]:
    """The files behind paths, globs and braces; `UserError` where one of them finds none."""
    files: list[str] = []
    missing: list[str] = []
    for pattern, matches in matched_files(setting):
        files.extend(matches)
        if not matches:
            missing.append(pattern)
    if missing:
        raise UserError(f"exclude: no file at {first_names(missing)}; give {FORMS}")
    return list(dict.fromkeys(files))


def matched_files(setting: str | Sequence[str] | None) -> Iterator[tuple[str, list[str]]]:
    """Each path or glob of the setting, its braces resolved, with the files behind it."""
    patterns = [setting] if isinstance(setting, str) else setting or ()
    for braced in patterns:
        for pattern in expand_braces(braced):
            if Path(pattern).is_file():
                yield pattern, [pattern]
            else:
                yield pattern, sorted(glob(pattern))
