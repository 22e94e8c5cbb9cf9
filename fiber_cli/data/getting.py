"""The files of a data set, fetched below a folder and unpacked where the recipes look for them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from fiber_cli.data.catalogue import DataFile, DataSet, Layout, layout
from fiber_cli.data.unpack import unpack as unpack_archive
from fiber_cli.downloads import fetch, is_address
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs

State = Literal["told", "fetched", "there", "by hand", "failed"]


class Got(NamedTuple):
    """A file of a data set, what has become of it, and a line about that. told: nothing was asked for but to say where
    it is; by hand: only a person can get it."""

    file: DataFile
    url: str | None
    state: State
    words: str


def get_files(
    data_set: DataSet, root: Path | None, outputs: Outputs, *, mirror: str | None = None, unpack: bool = True
) -> Iterator[Got]:
    """Fetches and unpacks the files of a data set, and gives each. root: the recipes' `data.root`, or the folder of
    the data set itself with some of it; None only tells. mirror: the address of a folder that has the files under their
    names. A file that cannot be had is told, because the others may; raises `UserError` for a mirror that is no
    address."""
    here = None if root is None else layout(data_set, root)
    for file in data_set.files:
        url = _address(file, mirror)
        if url is None:
            yield Got(file, None, *_by_hand(file, here))
        elif here is None:
            yield Got(file, url, "told", "")
        else:
            yield Got(file, url, *_fetched(file, url, here, outputs, unpack=unpack))


def _address(file: DataFile, mirror: str | None) -> str | None:
    if file.url is None or mirror is None:
        return file.url
    if not is_address(mirror):
        raise UserError(f"--mirror {mirror}: give an address that begins with http:// or https://")
    return f"{mirror.rstrip('/')}/{PurePosixPath(urlsplit(file.url).path).name}"


def _by_hand(file: DataFile, here: Layout | None) -> tuple[State, str]:
    missing = [made for made in file.makes if here is None or not here.place(made).exists()]
    if missing:
        return "by hand", f"{', '.join(missing)}: {file.by}"
    return "there", f"{', '.join(file.makes)}: is there"


def _fetched(file: DataFile, url: str, here: Layout, outputs: Outputs, *, unpack: bool) -> tuple[State, str]:
    assert file.save is not None, "the catalogue says where each file is kept"
    if file.serves is not None and here.place(file.serves).exists():
        return "there", f"{', '.join(file.makes)}: not needed any more, {file.serves} is there"
    saved = here.place(file.save)
    is_unpacked = file.unpack is not None and all(here.place(made).exists() for made in file.makes)
    if is_unpacked and not saved.exists():
        return "there", f"{', '.join(file.makes)}: is there"  # the archive was removed
    try:
        # COCO's server has no https; its checksums are known.
        result = fetch(url, saved, outputs, size=file.bytes, checksum=file.checksum, plain_http=True)
        words = f"{saved}: {result.bytes:,} bytes, verified by {result.verified}, sha256 {result.sha256}"
        if result.resumed:
            words += f"; gone on with at byte {result.resumed:,}"
        if file.unpack is not None and unpack:
            folder = here.place(file.unpack)
            count = unpack_archive(saved, folder, members=file.members, flat=file.flat)
            words += f"; {count:,} files of it in {folder}"
    except UserError as error:
        return "failed", str(error)
    return ("fetched" if result.is_new else "there"), words
