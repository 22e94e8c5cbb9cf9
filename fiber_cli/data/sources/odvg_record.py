"""A record of ODVG (Open Grounding-DINO's form), in lines of a JSONL file or in shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fiber_cli.data.box_edges import box_array
from fiber_cli.data.category_names import same_words
from fiber_cli.data.coco_json import check_names, image_size
from fiber_cli.data.file_records import Once
from fiber_cli.data.files import expecting, json_of, read_bytes
from fiber_cli.data.phrases import locate_phrases
from fiber_cli.data.records import NamedBoxes, PhraseBoxes, Regions, Size, Span
from fiber_cli.data.remote_files import read_remote
from fiber_cli.data.source import BadSample
from fiber_cli.data.values import finite_number, listed, some_text, text, whole_number
from fiber_cli.errors import WRONG_CONTENT, UserError
from fiber_cli.remote_paths import is_remote

_LABEL_MAP = "a label map, {label: name}"
#: Stands for a box that is left empty.
_NO_AREA = [0, 0, 0, 0]


class LabelMap(NamedTuple):
    """names: label as text → name, by label, empty without a file; path: the file, for messages."""

    names: dict[str, str]
    path: str | Path | None = None


_NO_MAP = LabelMap({})


def odvg_regions(record: Mapping[str, Any], label_of: Mapping[str, int], label_map: LabelMap = _NO_MAP) -> Regions:
    """An ODVG record: `grounding` with `caption` and `regions`, or `detection` with `instances`; boxes xyxy edges.

    label_of: label number of each `label`, as text. A region has `tokens_positive`, or its phrase is looked for in the
    caption; it may have one box or several. label_map: what an instance's `category`, where it has one, must not
    contradict. `BadSample` for anything else.
    """
    try:
        size = image_size(record)
        if record.get("grounding") is not None:
            return _phrase_boxes(record["grounding"], size)
        _check_categories(record["detection"]["instances"], label_map)
        return _named_boxes(record["detection"]["instances"], label_of, size)
    except WRONG_CONTENT as error:
        raise BadSample(f"not an ODVG record ({type(error).__name__}: {error})") from None


def _check_categories(instances: list[dict[str, Any]], label_map: LabelMap) -> None:
    """ValueError for an instance whose label the map calls otherwise than its `category`."""
    for instance in instances:
        label = str(whole_number(instance["label"], "label"))
        category = instance.get("category")
        known = label_map.names.get(label)
        if known is not None and isinstance(category, str) and not same_words(known, category):
            raise ValueError(
                f"label {label} is {known!r} in {label_map.path}, but the record's category is {category!r}"
            )


def read_label_map(path: str | Path | None) -> LabelMap:
    """The label map of a file, which may lie at an address. `UserError` for a file that is no label map, and for a
    label or a name that comes twice."""
    if not path:
        return LabelMap({})
    # As pairs, because a label that JSON names twice would lose its first name.
    pairs = json_of(path, _content(path), _LABEL_MAP, object_pairs_hook=list)
    form = '{"0": "person", …}'
    with expecting(path, "a label map", form):
        labels = Once(path, "label", "the label map")
        names = {labels.add(whole_number(label, "label")): some_text(name, "name") for label, name in pairs}
    check_names(path, list(names.values()))
    return LabelMap({str(label): names[label] for label in sorted(names)}, path)


def _content(path: str | Path) -> bytes:
    if not is_remote(str(path)):
        return read_bytes(path, _LABEL_MAP)
    try:
        return read_remote(str(path))
    except OSError as error:
        raise UserError(f"{error}; give the path or the address of {_LABEL_MAP}") from None


def _named_boxes(instances: list[dict[str, Any]], label_of: Mapping[str, int], size: Size | None) -> NamedBoxes:
    labels = []
    boxes = []
    for instance in instances:
        labels.append(_number_of(whole_number(instance["label"], "label"), label_of))
        boxes.append(_box(instance["bbox"] or _NO_AREA))
    return NamedBoxes(box_array(boxes), np.array(labels, np.int64), size)


def _number_of(label: int, label_of: Mapping[str, int]) -> int:
    """BadSample for a label without a name."""
    name = str(label)
    if name not in label_of:
        raise BadSample(
            f"label {label} has no name; a JSON {{label: name}} of all gives them: label_map of a recipe, and "
            "label_map.json beside what `fiber eval` reads"
        )
    return label_of[name]


def _phrase_boxes(grounding: Mapping[str, Any], size: Size | None) -> PhraseBoxes:
    caption = text(grounding["caption"], "caption")
    boxes: list[list[float]] = []
    spans: list[list[Span]] = []
    for region in grounding["regions"]:
        of_region = region["bbox"] or _NO_AREA
        if not isinstance(of_region[0], list):
            of_region = [of_region]
        boxes.extend(map(_box, of_region))
        spans.extend([_spans(region, caption)] * len(of_region))
    return PhraseBoxes(caption, box_array(boxes), spans, size)


def _box(edges: Any) -> list[float]:
    x1, y1, x2, y2 = (finite_number(edge, "bbox") for edge in listed(edges, "bbox"))
    return [x1, y1, x2, y2]


def _spans(region: Mapping[str, Any], caption: str) -> list[Span]:
    """Where a region's phrases stand in the caption: as the region says, else where they are found."""
    phrases = region.get("phrase", [])
    if isinstance(phrases, str):
        phrases = [phrases]
    spans = region.get("tokens_positive") or locate_phrases(caption, phrases)
    checked = []
    for start, end in spans:
        span = whole_number(start, "tokens_positive"), whole_number(end, "tokens_positive")
        if not 0 <= span[0] < span[1] <= len(caption):
            raise ValueError("a span of tokens_positive is not inside the caption")
        checked.append(span)
    return checked
