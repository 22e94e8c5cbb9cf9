"""A record of ODVG (Open Grounding-DINO's form), in lines of a JSONL file or in shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fiber_cli.data.box_edges import box_array
from fiber_cli.data.coco_json import image_size
from fiber_cli.data.files import read_json
from fiber_cli.data.phrases import locate_phrases
from fiber_cli.data.records import NamedBoxes, PhraseBoxes, Regions, Size, Span
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError


def odvg_regions(record: Mapping[str, Any], label_of: Mapping[str, int]) -> Regions:
    """An ODVG record: `grounding` with `caption` and `regions`, or `detection` with `instances`; boxes xyxy edges.

    label_of: label number of each `label`, as text. A region has `tokens_positive`, or its phrase is looked for in the
    caption; it may have one box or several. `BadSample` for anything else.
    """
    try:
        size = image_size(record)
        if "grounding" in record:
            return _phrase_boxes(record["grounding"], size)
        return _named_boxes(record["detection"]["instances"], label_of, size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadSample(f"not an ODVG record ({type(error).__name__}: {error})") from None


def read_label_map(path: str | Path | None) -> dict[str, str]:
    """Label as text → name, by label; empty without a file. `UserError` for a file that is no label map."""
    if not path:
        return {}
    names = read_json(path, "a label map, {label: name}")
    if not isinstance(names, dict) or not all(label.isdigit() for label in names):
        raise UserError(f'{path}: not a label map; wanted is {{"0": "person", …}}')
    return {label: names[label] for label in sorted(names, key=int)}


def _named_boxes(instances: list[dict[str, Any]], label_of: Mapping[str, int], size: Size | None) -> NamedBoxes:
    labels = [label_of[str(instance["label"])] for instance in instances]
    boxes = [instance["bbox"] for instance in instances]
    return NamedBoxes(box_array(boxes), np.array(labels, np.int64), size)


def _phrase_boxes(grounding: Mapping[str, Any], size: Size | None) -> PhraseBoxes:
    caption = grounding["caption"]
    boxes: list[np.ndarray] = []
    spans: list[list[Span]] = []
    for region in grounding["regions"]:
        boxes_of_region = box_array(region["bbox"])
        spans_of_region = _spans(region, caption)
        boxes.extend(boxes_of_region)
        spans.extend([spans_of_region] * len(boxes_of_region))
    return PhraseBoxes(caption, box_array(boxes), spans, size)


def _spans(region: Mapping[str, Any], caption: str) -> list[Span]:
    """Where a region's phrases stand in the caption: as the region says, else where they are found."""
    phrases = region.get("phrase", [])
    if isinstance(phrases, str):
        phrases = [phrases]
    spans = region.get("tokens_positive") or locate_phrases(caption, phrases)
    return [(int(start), int(end)) for start, end in spans]
