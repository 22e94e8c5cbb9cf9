"""Sources whose images are files below one folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from PIL import Image

from fiber_cli.data.columns import Texts
from fiber_cli.data.image_names import coco_name, names_of_file
from fiber_cli.data.images import open_image
from fiber_cli.data.source import BadSample, CaptionSource, ImageSource, Source
from fiber_cli.errors import UserError
from fiber_cli.regular_files import read_regular

#: How many of the files are looked for before the folder is believed to hold them.
_PROBES = 32


class FolderSource(ImageSource):
    """Image files below one folder: the base of sources that list them in a file of annotations.

    files: paths below the folder, one a sample. keys: the samples' ids; without them they are known by their files.
    coco_numbers: COCO's number of the pictures that it has under another name, by the file's name without ending.
    Raises `UserError` where the folder is missing or holds none of 32 of the files, spread over the list: a wrong
    folder is told before the run starts, while single missing images are counted as it goes.
    """

    coco_numbers: Mapping[str, int] = MappingProxyType({})

    def __init__(self, name: str, folder: str | Path, files: Sequence[str], keys: Sequence[str] = ()):
        self.name = name
        self.folder = Path(folder)
        self._files = _texts(files)
        self._keys = self._files if keys is files or not keys else _texts(keys)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder of images; check the path and data.root")
        if not files:
            raise UserError(f"{name}: lists no image")
        probes = _probes(files)
        if not lies_below(self.folder, files):
            raise UserError(
                f"{folder}: holds none of {len(probes)} images looked for, such as {probes[0]}; "
                "give the folder below which these paths lie"
            )

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        """The files, and the folders of whose lists of files it makes use, that a source with these arguments is made
        of: as long as they do not change, the source does not; none where that is not known, so that it is made anew
        each time."""
        return ()

    def has_images(self) -> bool:
        """Whether the folder holds one of 32 of the files, as it did when the source was made."""
        return lies_below(self.folder, self._files)

    def total(self) -> int:
        return len(self._files)

    def key(self, i: int) -> str:
        return self._keys[i]

    def image_names(self, i: int) -> list[str]:
        names = [self.key(i), *names_of_file(self._files[i])]
        number = self.coco_numbers.get(PurePosixPath(self._files[i]).stem)
        if number is not None:
            names.append(coco_name(number))
        return names

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return open_image(self.folder / self._files[i], self.max_pixels, at_least=at_least)

    def encoded_image(self, i: int) -> bytes:
        try:
            return read_regular(self.folder / self._files[i])
        except OSError as error:
            raise BadSample(f"{self.folder / self._files[i]}: {error.strerror}") from None


def _texts(texts: Sequence[str]) -> Texts:
    return texts if isinstance(texts, Texts) else Texts(texts)


def lies_below(folder: str | Path, files: Sequence[str]) -> bool:
    """Whether one of 32 of the files, spread over the list, is below the folder."""
    return any((Path(folder) / file).is_file() for file in _probes(files))


def in_layout_on_disk(folder: str | Path, files: Sequence[str]) -> Sequence[str]:
    """The paths below the folder under which the files lie: as they are where one of 32 is there, else without their
    first folders, as Objects365 v2's `images/v1/patch8/…` lies in `patch8/…`. Where that does not help either, or makes
    one path of two, they stay as they are."""
    depth = max((len(PurePosixPath(file).parts) for file in files), default=1)
    for above in range(depth):
        shortened = [_without_first(file, above) for file in files]
        if lies_below(folder, shortened):
            is_ambiguous = above > 0 and len(set(shortened)) < len(set(files))
            return files if is_ambiguous or not above else shortened
    return files


def _without_first(file: str, count: int) -> str:
    """A path without its first `count` folders; its name stays."""
    parts = PurePosixPath(file).parts
    return str(PurePosixPath(*parts[min(count, len(parts) - 1) :]))


def _probes(files: Sequence[str]) -> Sequence[str]:
    """Some of the files, spread over the list."""
    return files[:: max(1, len(files) // _PROBES)]


class CaptionedFolder(FolderSource, CaptionSource):
    """Image files below one folder, each with all its captions."""

    def __init__(
        self,
        name: str,
        folder: str | Path,
        files: Sequence[str],
        captions: Sequence[Sequence[str]],
        keys: Sequence[str] = (),
    ):
        super().__init__(name, folder, files, keys)
        self._captions = Texts("\0".join(texts) for texts in captions)

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str] | None:
        return self._captions if reads == (CaptionSource,) else None

    def captions(self, i: int) -> tuple[str, ...]:
        return tuple(filter(None, self._captions[i].split("\0")))
