"""Grounding data, captions whose phrases have boxes: MDETR's JSON, ODVG, Flickr30k Entities, shards, built-in scenes."""

import json as jsonlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from fiber_cli.data.scenes import language as scene_text
from fiber_cli.data.sources.coco import file_name, image_size, read_coco
from fiber_cli.data.files import expecting, read_json, read_lines
from fiber_cli.data.images import FolderSource
from fiber_cli.tasks.regions.prompts import Span, locate_phrases
from fiber_cli.tasks.regions.transforms import inclusive
from fiber_cli.tasks.regions.data import Detected, Grounded, Phrase, Ragged, Size
from fiber_cli.data.scenes.drawing import CATEGORIES, ScenesSource
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.data.source import BadSample
from fiber_cli.errors import UserError


def _array(boxes: Sequence) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def phrases_of(source, i: int) -> tuple[str, list[Phrase]]:
    """The caption and its phrases with boxes: the source's own `phrases`, else every span with the boxes that have it."""
    if hasattr(source, "phrases"):
        return source.phrases(i)
    regions = source.regions(i)
    if not isinstance(regions, Grounded):
        raise BadSample("has boxes of categories, but no caption with phrases")
    boxes: dict[Span, list] = {}
    for box, spans in zip(regions.boxes, regions.spans):
        for span in spans:
            boxes.setdefault(tuple(span), []).append(box)
    return regions.caption, [Phrase(span, _array(boxes[span])) for span in sorted(boxes)]


class MdetrGrounding(FolderSource):
    """MDETR's form of COCO's JSON: images with `caption`, annotations with `tokens_positive`, a list of spans.

    The same picture may come in several entries, one for each caption or, as in the RefCOCO family, expression.
    images: the folder, or folders by the entries' `data_source`. refers: whether the captions are expressions for one
    box each; None: as the task has it.
    """

    def __init__(self, json: str | Path, images: str | Path | Mapping[str, str], refers: bool | None = None):
        wanted, self.refers = "a grounding JSON in MDETR's form", refers
        file = read_coco(json, wanted)
        self.dropped = file.dropped
        base, files, captions, spans = images, [], [], []
        if isinstance(images, Mapping):
            base = os.path.commonpath([os.path.abspath(folder) for folder in images.values()])
        for n, (image, annotations) in enumerate(zip(file.images, file.annotations)):
            with expecting(f"{json}, images[{n}] and its annotations", wanted):
                above = os.path.relpath(images[image["data_source"]], base) if isinstance(images, Mapping) else ""
                files.append(os.path.join(above, file_name(image)))
                captions.append([image["caption"]])
                rows = [(b, *map(int, s)) for b, a in enumerate(annotations) for s in a["tokens_positive"]]
                if any(not (len(row) == 3 and 0 <= row[1] < row[2] <= len(image["caption"])) for row in rows):
                    raise ValueError("a span of tokens_positive is not inside the caption")
                spans.append(rows)
        keys, self._sizes = [str(image["id"]) for image in file.images], [image_size(image) for image in file.images]
        self._boxes = Ragged([[a["box"] for a in row] for row in file.annotations], (4,), np.float32)
        self._spans = Ragged(spans, (3,), np.int32)
        super().__init__(Path(json).stem, base, files, captions, keys)

    def regions(self, i: int) -> Grounded:
        boxes, spans = self._boxes[i], self._spans[i].tolist()
        rows = [[(start, end) for which, start, end in spans if which == number] for number in range(len(boxes))]
        return Grounded("".join(self.captions(i)), boxes, rows, self._sizes[i])


def odvg_regions(record: Mapping[str, Any], label_of: Mapping[str, int]) -> Grounded | Detected:
    """An ODVG record: `grounding` with `caption` and `regions`, or `detection` with `instances`; boxes xyxy edges.

    label_of: label number of each `label`, as text. A region has `tokens_positive`, or its phrase is looked for in the
    caption; it may have one box or several. `BadSample` for anything else.
    """
    try:
        size = image_size(record)
        if "grounding" not in record:
            instances = record["detection"]["instances"]
            labels = np.array([label_of[str(one["label"])] for one in instances], np.int64)
            return Detected(_array([one["bbox"] for one in instances]), labels, size)
        caption, boxes, rows = record["grounding"]["caption"], [], []
        for region in record["grounding"]["regions"]:
            own = _array(region["bbox"])
            phrases = [region["phrase"]] if isinstance(region.get("phrase"), str) else region.get("phrase", [])
            given = region.get("tokens_positive") or locate_phrases(caption, phrases)
            boxes.extend(own)
            rows.extend([[(int(start), int(end)) for start, end in given]] * len(own))
        return Grounded(caption, _array(boxes), rows, size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadSample(f"not an ODVG record ({type(error).__name__}: {error})") from None


def _read_labels(label_map: str | Path | None) -> dict[str, str]:
    """Label as text → name, by label; empty without a file."""
    found = read_json(label_map, "a label map, {label: name}") if label_map else {}
    if not isinstance(found, dict) or not all(key.isdigit() for key in found):
        raise UserError(f'{label_map}: not a label map; wanted is {{"0": "person", …}}')
    return {key: found[key] for key in sorted(found, key=int)}


class OdvgSource(FolderSource):
    """ODVG's JSONL, one record a line (see `odvg_regions`) with `filename`, detection and grounding mixed at will.

    label_map: JSON of the detection records' names by label; without it each instance's `category` is taken.
    """

    def __init__(self, jsonl: str | Path, images: str | Path, label_map: str | Path | None = None):
        names, files, captions, self._lines = _read_labels(label_map), [], [], []
        self.dropped = 0
        for number, line in read_lines(jsonl, "an ODVG JSONL"):
            with expecting(f"{jsonl}, line {number}", "an ODVG record"):
                record = jsonlib.loads(line)
                if not label_map and "detection" in record:
                    names |= {str(int(one["label"])): one["category"] for one in record["detection"]["instances"]}
                regions = odvg_regions(record, dict.fromkeys(names, 0))
                self.dropped += int((~inclusive(regions.boxes, regions.size or (2**31, 2**31))[1]).sum())
                files.append(record["filename"])
                captions.append([record["grounding"]["caption"]] if "grounding" in record else [])
            self._lines.append(line)
        ordered = sorted(names, key=int)
        self.names, self._label_of = [names[key] for key in ordered], {key: n for n, key in enumerate(ordered)}
        keys = [f"{number}:{file}" for number, file in enumerate(files)]
        super().__init__(Path(jsonl).stem, images, files, captions, keys)

    def regions(self, i: int) -> Grounded | Detected:
        return odvg_regions(jsonlib.loads(self._lines[i]), self._label_of)


class ShardRegions(WebDatasetSource):
    """Shards whose samples' `.json` members are ODVG records; label_map as for `OdvgSource`, for detection records."""

    def __init__(self, shards: str | Sequence[str], label_map: str | Path | None = None):
        super().__init__(shards)
        names = _read_labels(label_map)
        self.names, self._label_of = list(names.values()), {key: n for n, key in enumerate(names)}

    def regions(self, i: int) -> Grounded | Detected:
        try:
            return odvg_regions(jsonlib.loads(self._read(i, 2) or b"null"), self._label_of)
        except ValueError as error:
            raise BadSample(f"unreadable .json: {error}") from None


_MARKED = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)+) ([^\]]*)\]")


def parse_entities(sentence: str) -> tuple[str, list[tuple[str, tuple[str, ...], Span]]]:
    """A sentence of Flickr30k Entities to its plain text and its phrases: (id, types, span)."""
    text, phrases, at = "", [], 0
    for match in _MARKED.finditer(sentence):
        text += sentence[at : match.start()]
        phrases.append((match[1], tuple(match[2][1:].split("/")), (len(text), len(text) + len(match[3]))))
        text, at = text + match[3], match.end()
    return text + sentence[at:], phrases


def entity_boxes(xml: str) -> tuple[Size, dict[str, np.ndarray]]:
    """Picture size (height, width) and the boxes of each id, (m, 4), first and last pixels counted from 0."""
    root, boxes = ElementTree.fromstring(xml), {}
    for thing in root.iter("object"):
        for box in thing.iter("bndbox"):
            corners = [int(box.findtext(side)) - 1 for side in ("xmin", "ymin", "xmax", "ymax")]
            for name in thing.iter("name"):
                boxes.setdefault(name.text, []).append(corners)
    size = int(root.findtext("size/height")), int(root.findtext("size/width"))
    return size, {name: _array(own) for name, own in boxes.items()}


class FlickrEntities(FolderSource):
    """Flickr30k Entities: one entry for each sentence of which a phrase has a box; the other phrases are skipped.

    folder: holds Sentences/, Annotations/ and the lists train.txt, val.txt and test.txt; images: holds <id>.jpg.
    """

    refers = False

    def __init__(self, folder: str | Path, images: str | Path, split: str = "train"):
        place = Path(folder, f"{split}.txt")
        self._entries, files, keys = [], [], []
        try:
            for picture in place.read_text().split():
                place = Path(folder, "Annotations", f"{picture}.xml")
                size, boxes = entity_boxes(place.read_text())
                place = Path(folder, "Sentences", f"{picture}.txt")
                for number, line in enumerate(place.read_text(encoding="utf-8").splitlines()):
                    text, marked = parse_entities(line)
                    phrases = [Phrase(span, boxes[name], types) for name, types, span in marked if name in boxes]
                    if phrases:
                        self._entries.append((text, phrases, size))
                        files.append(f"{picture}.jpg")
                        keys.append(f"{picture}#{number}")
        except OSError as error:
            raise UserError(f"{place}: {error.strerror}; {folder} is to be that of Flickr30k Entities") from None
        except (ElementTree.ParseError, TypeError, ValueError) as error:
            raise UserError(f"{place}: not of Flickr30k Entities' form ({error})") from None
        captions = [[text] for text, _, _ in self._entries]
        super().__init__(f"flickr30k-entities:{split}", images, files, captions, keys)

    def phrases(self, i: int) -> tuple[str, list[Phrase]]:
        return self._entries[i][:2]

    def regions(self, i: int) -> Grounded:
        """A box that several phrases speak of comes once, with the spans of all of them."""
        text, phrases, size = self._entries[i]
        spans: dict[tuple, list[Span]] = {}
        for phrase in phrases:
            for x1, y1, x2, y2 in phrase.boxes.tolist():
                spans.setdefault((x1, y1, x2 + 1, y2 + 1), []).append(phrase.span)
        return Grounded(text, _array(list(spans)), list(spans.values()), size)


class SceneDetection(ScenesSource):
    """Built-in scenes with each object's category."""

    what, names = "scene-detection", CATEGORIES

    def regions(self, i: int) -> Detected:
        found = scene_text.category_boxes(self[i])
        labels = np.array([self.names.index(name) for name, _ in found], np.int64)
        return Detected(_array([box for _, box in found]), labels, (self.image_size, self.image_size))


class SceneGrounding(ScenesSource):
    """Built-in scenes, each with one of its captions; the boxes of objects that it speaks of."""

    what, refers = "scene-grounding", False

    def regions(self, i: int) -> Grounded:
        scene = self[i]
        captions = scene_text.captions(scene)
        text, phrases = captions[i % len(captions)]
        rows = [[(p.start, p.end) for p in phrases if number in p.objects] for number in range(len(scene.objects))]
        return Grounded(text, _array([thing.box for thing in scene.objects]), rows, (self.image_size, self.image_size))


class SceneReferring(ScenesSource):
    """Built-in scenes, each with one expression that fits one of its objects."""

    what, refers = "scene-referring", True

    def regions(self, i: int) -> Grounded:
        expressions = scene_text.referring(self[i])
        text, _, box = expressions[i % len(expressions)]
        return Grounded(text, _array(box), [[(0, len(text))]], (self.image_size, self.image_size))
