"""WebDataset tar shards whose `.json` members are ODVG records: boxes of categories and of phrases."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fiber_cli.data.records import Regions
from fiber_cli.data.shards import ShardSource
from fiber_cli.data.source import BadSample, CategorySource, PhraseSource
from fiber_cli.data.sources.format import Format
from fiber_cli.data.sources.odvg_record import odvg_regions, read_label_map
from fiber_cli.data.tar import Member
from fiber_cli.parsing import parse_json
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class RegionShardsSettings(SourceSettings):
    """WebDataset shards whose .json members are ODVG records."""

    kind: Literal["region_shards"]
    shards: str | tuple[str, ...] = option("Folder, glob or {0000..0331} pattern, or a list.", path=True)
    label_map: str | None = option("JSON {label: name} of the detection records.", None, path=True)


class RegionShardsSource(ShardSource, CategorySource, PhraseSource):
    """Shards whose samples' `.json` members are ODVG records (see `odvg_regions`), detection and grounding mixed at
    will; label_map: JSON of the detection records' names by label, which a record must not contradict."""

    def __init__(self, shards: str | Sequence[str], label_map: str | Path | None = None):
        super().__init__(shards)
        self._label_map = read_label_map(label_map)
        names = self._label_map.names
        self.names = list(names.values())
        self._label_of = {label: number for number, label in enumerate(names)}

    def regions(self, i: int) -> Regions:
        described = self.content(i, Member.JSON) or b"null"
        try:
            return odvg_regions(parse_json(described), self._label_of, self._label_map)
        except (ValueError, AttributeError) as error:
            raise BadSample(f"unreadable .json: {error}") from None


REGION_SHARDS = Format(kind="region_shards", settings=RegionShardsSettings, source=RegionShardsSource)
