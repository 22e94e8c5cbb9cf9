"""Checkpoints as archives from addresses: `https://…/model.tar#sha256=…`.

downloads/unpacked/<sha256>/<name>/   a checkpoint directory, in fiber's folder of the user's cache

What is fetched is resumed where it was cut, compared with its digest, and unpacked once; after that the address is not
asked again, because the digest says what it would give.
"""

import shutil
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urldefrag

import filelock

from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.digests import STATE_FOLDER, WEIGHTS_FILE
from fiber_cli.data.unpack import unpack
from fiber_cli.downloads import check_address, check_sha256, downloads_folder, fetch, place_of
from fiber_cli.errors import UserError, first_names
from fiber_cli.outputs import Outputs, explained
from fiber_cli.printing import say

#: Folder of unpacked archives, in that of the downloads.
UNPACKED = "unpacked"
#: What the name of an archive ends with, beyond the last point.
_SECOND_ENDING = ".tar"


def fetch_archive(address: str) -> Path:
    """The checkpoint directory of an archive, a zip or a tar, with one checkpoint in it. Raises UserError for an
    address without a digest or of another kind, for what cannot be fetched, and for a file that is none or another."""
    check_address(address)
    url, digest = _with_digest(address)
    place = place_of(url, downloads_folder())
    folder = downloads_folder() / UNPACKED / digest
    checkpoint = folder / _plain_name(place)
    if checkpoint.is_dir():
        return checkpoint
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Others that want the same wait for it, as ranks do.
    with filelock.FileLock(folder.with_name(f"{digest}.lock")):
        if not checkpoint.is_dir():
            archive = fetch(url, place, Outputs(), checksum=("sha256", digest)).file
            _unpack(archive, checkpoint, url)
            say(f"{url}: verified by its sha256, and unpacked as {checkpoint}")
            archive.unlink()
    return checkpoint


def _with_digest(address: str) -> tuple[str, str]:
    """An address without its fragment, and the digest that the fragment has."""
    url, fragment = urldefrag(address)
    digests = parse_qs(fragment).get("sha256", [])
    if len(digests) != 1:
        raise UserError(
            f"{address}: which file it is to be is not said; put #sha256=DIGEST behind it, as `sha256sum FILE` prints "
            "it. A published checkpoint is fetched by `fiber convert`"
        )
    return url, check_sha256(digests[0])


def _plain_name(archive: Path) -> str:
    """The name of an archive without its endings."""
    return archive.stem.removesuffix(_SECOND_ENDING) or "checkpoint"


def _unpack(archive: Path, checkpoint: Path, url: str) -> None:
    """Have the checkpoint of an archive at `checkpoint`, whole or not at all, without what resuming needs."""
    if not (tarfile.is_tarfile(archive) or zipfile.is_zipfile(archive)):
        raise UserError(
            f"{url}: is neither a tar nor a zip, which hold a checkpoint directory; a checkpoint of the published code "
            "is fetched by `fiber convert`"
        )
    with Outputs().staging(checkpoint.parent) as staging:
        unpack(archive, staging)
        found = _checkpoints_below(staging)
        if len(found) != 1:
            names = first_names([folder.relative_to(staging).as_posix() for folder in found])
            raise UserError(
                f"{url}: holds {len(found)} checkpoint directories ({names}); wanted is one, with its {CONFIG_FILE} "
                f"and {WEIGHTS_FILE}"
            )
        shutil.rmtree(found[0] / STATE_FOLDER, ignore_errors=True)
        with explained(checkpoint):
            found[0].rename(checkpoint)


def _checkpoints_below(folder: Path) -> list[Path]:
    """The folders that have the files of a checkpoint."""
    folders = [config.parent for config in sorted(folder.rglob(CONFIG_FILE))]
    return [each for each in folders if (each / WEIGHTS_FILE).is_file()]
