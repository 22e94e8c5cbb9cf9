"""Sources whose images are files below one folder."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fiber_cli.data.images import open_image
from fiber_cli.data.source import CaptionSource, ImageSource
from fiber_cli.errors import UserError

#: How many of the files are looked for before the folder is believed to hold them.
_PROBES = 32


class FolderSource(ImageSource):
    """Image files below one folder: the base of sources that list them in a file of annotations.

    files: paths below the folder, one a sample. keys: the samples' ids; without them they are known by their files.
    Raises `UserError` where the folder is missing or holds none of 32 of the files, spread over the list: a wrong
    folder is told before the run starts, while single missing images are counted as it goes.
    """

    def __init__(self, name: str, folder: str | Path, files: Sequence[str], keys: Sequence[str] = ()):
        self.name = name
        self.folder = Path(folder)
        self._files = files
        self._keys = keys or files
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder of images; check the path and data.root")
        if not files:
            raise UserError(f"{name}: lists no image")
        probes = files[:: max(1, len(files) // _PROBES)]
        if not any((self.folder / file).is_file() for file in probes):
            raise UserError(
                f"{folder}: holds none of {len(probes)} images looked for, such as {probes[0]}; "
                "give the folder below which these paths lie"
            )

    def total(self) -> int:
        return len(self._files)

    def key(self, i: int) -> str:
        return self._keys[i]

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        return open_image(self.folder / self._files[i], self.max_pixels, at_least=at_least)


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
        # One string per image instead of one per caption: Visual Genome has 5.4 million captions.
        self._captions = ["\0".join(texts) for texts in captions]

    def captions(self, i: int) -> tuple[str, ...]:
        return tuple(filter(None, self._captions[i].split("\0")))
