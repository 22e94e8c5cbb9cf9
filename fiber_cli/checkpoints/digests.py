"""Digests of a checkpoint's files: written with it, compared whenever it is loaded.

They stand in the file SHA256SUMS of the checkpoint, in the form of `sha256sum`, so that `sha256sum -c SHA256SUMS` tells
the same without this program. Checkpoints from before have none.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.hub_names import snapshot
from fiber_cli.checkpoints.run_files import LATEST, run_of
from fiber_cli.checkpoints.words import WORDS_FILE
from fiber_cli.data.tokenizer_files import FILES
from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import failing_together
from fiber_cli.errors import UserError
from fiber_cli.outputs import DIGESTS, sha256_of
from fiber_cli.printing import say
from fiber_cli.regular_files import check_regular

WEIGHTS_FILE, TOKENIZER_FOLDER, STATE_FOLDER = "model.safetensors", "tokenizer", "state"
#: SHA-256 runs at 0.4 to 2 GB/s a thread.
THREADS = 4
#: More than any list of files; a larger one is something else.
MAX_BYTES = 1 << 24
#: Of the files of a state, as of config.json and the weights.
_STATE_ENDINGS = (".json", ".safetensors", ".pt")
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]([^\x00-\x1f\\]+)")
#: Checkpoints that have been said to be unchecked.
_told: set[Path] = set()


def files_of(checkpoint: Path, *, state: bool) -> list[str]:
    """The files of a checkpoint, by their path in it with `/`: those for use, with state=True those for resuming too.
    Hidden ones, as systems leave them in folders, are none of it."""
    names = [name for name in (CONFIG_FILE, WEIGHTS_FILE, WORDS_FILE) if (checkpoint / name).exists()]
    for folder in (TOKENIZER_FOLDER, STATE_FOLDER) if state else (TOKENIZER_FOLDER,):
        for path in sorted((checkpoint / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                names.append(path.relative_to(checkpoint).as_posix())
    return names


def digests_of(checkpoint: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 in hexadecimal of files of a checkpoint, by name. Raises OSError."""
    with ThreadPoolExecutor(THREADS) as threads:
        digests = threads.map(sha256_of, [checkpoint / name for name in names])
        return dict(zip(names, digests, strict=True))


def share(names: Sequence[str]) -> Sequence[str]:
    """Those of the files that this rank reads; every file is one rank's."""
    return names[collectives.rank() :: collectives.world_size()]


def digest_together(checkpoint: Path) -> dict[str, str]:
    """The digests of all files of a checkpoint, which the ranks share out. A collective; raises UserError on all."""
    local: dict[str, str] = {}
    with failing_together():
        local = digests_of(checkpoint, share(files_of(checkpoint, state=True)))
    merged: dict[str, str] = {}
    for of_rank in collectives.gather_objects(local):
        merged |= of_rank
    return merged


def write_digests(checkpoint: Path, digests: Mapping[str, str]) -> None:
    """Write DIGESTS. Raises OSError."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    (checkpoint / DIGESTS).write_text("".join(lines), encoding="utf-8")


def check(checkpoint: Path) -> dict[str, str]:
    """Compare the files that using a checkpoint reads: config.json, weights, words, tokenizer; returns the digests of
    those that were compared. Raises UserError that names a file which is not as it was written; one without digests is
    said to be unchecked, once."""
    return _compare(checkpoint, files_of(checkpoint, state=False), state=False)


def check_together(checkpoint: Path) -> None:
    """Compare all files of a checkpoint, state/ with them, which the ranks share out. A collective; raises UserError on
    all ranks."""
    with failing_together():
        _compare(checkpoint, share(files_of(checkpoint, state=True)), state=True)


def _compare(checkpoint: Path, names: Sequence[str], *, state: bool) -> dict[str, str]:
    """Compare these files, and see that none of the list is missing; their digests, none of a checkpoint without
    DIGESTS."""
    if not os.path.lexists(checkpoint / DIGESTS):
        _say_unchecked(checkpoint)
        return {}
    expected = read_digests(checkpoint)
    for name in expected:
        if (state or not name.startswith(f"{STATE_FOLDER}/")) and not (checkpoint / name).is_file():
            raise _differing(checkpoint, name, "is missing")
    unlisted = [name for name in names if name not in expected and _would_be_read(name)]
    if unlisted:
        raise UserError(f"{checkpoint / unlisted[0]} is not in {DIGESTS}, and would be read: take it out")
    try:
        found = digests_of(checkpoint, [name for name in names if name in expected])
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}; {_mend(checkpoint)}") from error
    for name, digest in found.items():
        if digest != expected[name]:
            raise _differing(checkpoint, name, "is not as it was written")
    return found


def _would_be_read(name: str) -> bool:
    """Whether a file that came into a checkpoint later would change it; what systems and editors leave would not."""
    folder, _, file = name.rpartition("/")
    if folder == TOKENIZER_FOLDER:
        return file in FILES
    return name == WORDS_FILE or file.endswith(_STATE_ENDINGS)


def read_digests(checkpoint: Path) -> dict[str, str]:
    """DIGESTS: file → SHA-256. Raises UserError for one of another form."""
    file = checkpoint / DIGESTS
    try:
        check_regular(file)
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; {_mend(checkpoint)}") from error
    except UnicodeDecodeError:
        raise UserError(f"{file} is damaged (not UTF-8); {_mend(checkpoint)}") from None
    digests = {}
    for number, line in enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None or not _is_inside(match[2]) or match[2] in digests:
            raise UserError(f"{file} is damaged (line {number} is not `digest  file`); {_mend(checkpoint)}")
        digests[match[2]] = match[1].lower()
    return digests


def _is_inside(name: str) -> bool:
    """Whether it is the path of a file of the checkpoint, as `files_of` has it."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts)


def _differing(checkpoint: Path, name: str, problem: str) -> UserError:
    if snapshot(checkpoint) is not None:
        return UserError(f"{checkpoint / name} {problem}; {_mend(checkpoint)}")
    return UserError(
        f"{checkpoint / name} {problem}; {_mend(checkpoint)}. If you changed it yourself, delete {checkpoint / DIGESTS}"
        " or put the new `sha256sum` into it"
    )


def _mend(checkpoint: Path) -> str:
    """What to do about a damaged checkpoint."""
    if snapshot(checkpoint) is not None:
        of_repository = checkpoint.parent.parent
        return f"delete {of_repository}, and it is fetched again; if that changes nothing, it is damaged on the hub"
    mend = "copy the whole checkpoint again, or take another one"
    if run_of(checkpoint) is not None:
        mend += f" (an earlier one by its name in {checkpoint.parent / LATEST})"
    return mend


def _say_unchecked(checkpoint: Path) -> None:
    if checkpoint in _told:
        return
    _told.add(checkpoint)
    if collectives.is_main():
        say(f"{checkpoint} is unchecked: it has no {DIGESTS} to compare its files with")
