"""WebDataset tar shards as img2dataset writes them: images with captions."""

from dataclasses import dataclass
from typing import Literal

from fiber_cli.data.shards import ShardSource
from fiber_cli.data.source import BadSample, CaptionSource
from fiber_cli.data.sources.format import Format
from fiber_cli.data.tar import Member
from fiber_cli.data.values import text
from fiber_cli.errors import WRONG_CONTENT
from fiber_cli.parsing import parse_json
from fiber_cli.settings import SourceSettings, option
from fiber_cli.text_files import decode_text


@dataclass(frozen=True)
class WebDatasetSettings(SourceSettings):
    """WebDataset tar shards as img2dataset writes them."""

    kind: Literal["webdataset"]
    shards: str | tuple[str, ...] = option("Folder, glob or {0000..0331} pattern, or a list.", path=True)


class WebDatasetSource(ShardSource, CaptionSource):
    """The samples of tar shards with their captions, see `ShardSource`.

    Captions are the list `captions` of the `.json` if it has one, else the `.txt`, else `caption` of the `.json`. A
    sample without text has no captions.
    """

    def caption_count(self, i: int) -> int:
        return self.listed_captions(i)

    def captions(self, i: int) -> tuple[str, ...]:
        try:
            stripped = [text(caption, "a caption").strip() for caption in self._raw_captions(i)]
        except WRONG_CONTENT as error:
            raise BadSample(f"unreadable text: {error}") from None
        return tuple(filter(None, stripped))

    def _raw_captions(self, i: int) -> list[str]:
        described = parse_json(self.content(i, Member.JSON) or b"{}")
        captions = described.get("captions")
        if isinstance(captions, list) and captions:
            return captions
        plain = self.content(i, Member.TEXT)
        if plain is None:
            return [described.get("caption") or ""]
        return [decode_text(plain)]


WEBDATASET = Format(kind="webdataset", settings=WebDatasetSettings, source=WebDatasetSource)
