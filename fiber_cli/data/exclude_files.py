"""The files behind the setting `exclude` of an entry."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from fiber_cli.data.shard_paths import expand_braces
from fiber_cli.errors import UserError, first_names

FORMS = "a text with an id a line, a JSON list of ids, image hashes, or the JSON of a data set"


def exclude_files(setting: str | Sequence[str] | None) -> list[str]:
    """The files behind paths, globs and braces; `UserError` where one of them finds none."""
    patterns = [setting] if isinstance(setting, str) else setting or ()
    files: list[str] = []
    missing: list[str] = []
    for braced in patterns:
        for pattern in expand_braces(braced):
            matches = [pattern] if Path(pattern).is_file() else sorted(glob(pattern))
            files.extend(matches)
            if not matches:
                missing.append(pattern)
    if missing:
        raise UserError(f"exclude: no file at {first_names(missing)}; give {FORMS}")
    return list(dict.fromkeys(files))
