"""Names of checkpoints on the Hugging Face hub, `org/name` and `org/name@revision`, and of what is fetched by them.

Loads neither torch nor the hub's client.
"""

import re
from pathlib import Path
from typing import NamedTuple

#: Of an account or an organisation, and of a repository, as the hub allows them.
_WORD = r"(?![-.])[A-Za-z0-9._-]+(?<![-.])"
_NAME = re.compile(rf"({_WORD}/{_WORD})(?:@(\S+))?", re.ASCII)
#: Never in a name: the first joins its parts in the cache.
_RESERVED = ("--", "..")
_LONGEST = 96
#: Folders of the client's cache: of a repository, and of a commit in it.
_SNAPSHOT = re.compile(r"models--(.+?)--(.+)/snapshots/([0-9a-f]{40})")
#: What a user is told to give for a checkpoint.
FORMS = "a step directory (with config.json), a checkpoints folder, a run's --output, or org/name of the hub"


class HubName(NamedTuple):
    """A repository of models, and a branch, a tag or a commit in it; None for its main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def hub_name(text: str) -> HubName | None:
    """What a text names on the hub; None for one that can be no name there, such as a path with more or fewer parts."""
    match = _NAME.fullmatch(text)
    if match is None or len(match[1]) > _LONGEST or match[1].endswith(".git"):
        return None
    if any(sign in match[1] for sign in _RESERVED):
        return None
    return HubName(match[1], match[2])


def snapshot(checkpoint: Path) -> HubName | None:
    """The repository and the commit of a folder in the client's cache, whole, as the hub knows no commit by its first
    digits; None for any other folder."""
    match = _SNAPSHOT.fullmatch("/".join(checkpoint.parts[-3:]))
    return None if match is None else HubName(f"{match[1]}/{match[2]}", match[3])
