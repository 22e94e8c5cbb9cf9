"""A sample of a source as the members of a shard: its picture as it is, and a JSON with what the source says of it."""

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

from fiber_cli.data.image_formats import SUFFIXES
from fiber_cli.data.images import open_image
from fiber_cli.data.records import NamedBoxes, PhraseBoxes, Regions
from fiber_cli.data.source import BadSample, CaptionSource, CategorySource, ImageSource, RegionSource, Source
from fiber_cli.errors import UserError

#: The ending of a picture whose file has none that tells what it is; a picture's own bytes tell how it is read.
_ENDING = ".jpg"
_PNG = b"\x89PNG"
#: Beside the shards of boxes with names.
LABEL_MAP = "label_map.json"


class Packed(NamedTuple):
    """members: (ending, content), the picture first where there is one; bad: why the picture or the text cannot be
    used, None where both can."""

    members: list[tuple[str, bytes]]
    bad: str | None


def check_packable(source: Source) -> ImageSource:
    """The source as one that shards can hold: of captions, or of boxes; `UserError` for another."""
    if not isinstance(source, CaptionSource | RegionSource):
        raise UserError(f"{source.name}: has {source.yields}; shards hold images with captions or with boxes")
    if isinstance(source, CategorySource) and (source.prompts or source.several_names):
        what = "prompts" if source.prompts else "several names for an object"
        raise UserError(f"{source.name}: has {what}, which shards do not hold; leave them out, or train on it as it is")
    return source


def shard_kind(source: ImageSource) -> str:
    """The kind of entry in a recipe that reads its shards."""
    return "region_shards" if isinstance(source, RegionSource) else "webdataset"


def label_map(source: ImageSource) -> dict[str, str]:
    """Label → name of the boxes, empty of a source without names."""
    names = source.names if isinstance(source, CategorySource) else ()
    return {str(label): name for label, name in enumerate(names)}


def pack(source: ImageSource, i: int) -> Packed:
    """Sample i. A picture that is there and cannot be read is packed as it is, and one that is not there is left out of
    its sample: so sample i of the shards is sample i of the source, and what is bad in one is bad in the other."""
    names = list(dict.fromkeys(source.image_names(i)))
    members: list[tuple[str, bytes]] = []
    described: dict[str, Any] = {"image_names": names}
    bad = None
    try:
        encoded = source.encoded_image(i)
        members.append((_ending(names, encoded), encoded))
        open_image(encoded, source.max_pixels)
    except BadSample as error:
        bad = str(error)
    try:
        described |= dict(_described(source, i))
    except BadSample as error:
        bad = str(error)
    members.append((".json", json.dumps(described).encode()))
    return Packed(members, bad)


def _ending(names: list[str], encoded: bytes) -> str:
    """The ending of the picture's file, or one that fits it."""
    for name in names:
        suffix = PurePath(name).suffix.lower()
        if suffix in SUFFIXES:
            return suffix
    return ".png" if encoded.startswith(_PNG) else _ENDING


def _described(source: ImageSource, i: int) -> Iterator[tuple[str, Any]]:
    """What is said of the sample, in the form of its kind of shards. Raises `BadSample`."""
    if isinstance(source, RegionSource):
        regions = source.regions(i)
        if regions.size is not None:
            yield "height", regions.size[0]
            yield "width", regions.size[1]
        yield _odvg(source, regions)
    else:
        assert isinstance(source, CaptionSource), "see check_packable"
        yield "captions", list(source.captions(i))


def _odvg(source: RegionSource, regions: Regions) -> tuple[str, dict[str, Any]]:
    """The boxes as an ODVG record has them; a float32 is written so that it is read as the same."""
    boxes = regions.boxes.tolist()
    if isinstance(regions, PhraseBoxes):
        phrases = []
        for box, spans in zip(boxes, regions.spans, strict=True):
            phrases.append({"bbox": box, "tokens_positive": [list(span) for span in spans]})
        return "grounding", {"caption": regions.caption, "regions": phrases}
    assert isinstance(regions, NamedBoxes), "boxes have phrases or names"
    assert isinstance(source, CategorySource), "boxes with names are of a source that lists them"
    instances = []
    for box, label in zip(boxes, regions.labels.tolist(), strict=True):
        instances.append({"bbox": box, "label": label, "category": source.names[label]})
    return "detection", {"instances": instances}
