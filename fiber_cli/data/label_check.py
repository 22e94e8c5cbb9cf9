"""What is wrong with boxes that a person has drawn: counts, boxes outside their pictures, pictures that are missing or
come in two splits."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fiber_cli.data.image_hashes import DISTANCE, image_hash, near
from fiber_cli.data.images import open_image, upright_size
from fiber_cli.data.labelled_set import LabelledSet
from fiber_cli.data.object_columns import CocoObject
from fiber_cli.data.records import Size
from fiber_cli.data.source import BadSample
from fiber_cli.errors import first_names
from fiber_cli.regular_files import read_regular

#: Pixels of the shorter side that a picture is decoded with.
_AT_LEAST = 128
#: How far past its picture a box reaches that is told, in pixels.
_PAST = 0.5
_NAMED = 3


class LabelSplit(NamedTuple):
    """A split to check. by: the file that it was found by."""

    name: str
    by: str
    labelled: LabelledSet


class PictureFacts(NamedTuple):
    """size: (height, width). digest: of the file's bytes, and hash: of what the picture looks like."""

    size: Size
    digest: bytes
    hash: int


class SplitReport(NamedTuple):
    """What is in a split. classes: boxes of each name, in the order of the labels. empty: pictures without boxes. past:
    boxes that reach past their picture; without_area: those of which nothing is inside it; thin: those of at most a
    pixel. missing, unreadable, other_size: pictures with the reason. left_out: places and reasons of what cannot be
    read in the annotations."""

    split: str
    form: str
    by: str
    pictures: int
    boxes: int
    classes: Mapping[str, int]
    empty: int
    past: int
    without_area: int
    thin: int
    ignored: int
    missing: Sequence[str]
    unreadable: Sequence[str]
    other_size: Sequence[str]
    left_out: Sequence[str]
    remarks: Sequence[str]

    def faults(self) -> Iterator[str]:
        """What has to be mended, in words."""
        kinds = {
            "pictures are missing": self.missing,
            "pictures cannot be read": self.unreadable,
            "pictures have another size than the annotations say": self.other_size,
            "records of the annotations cannot be read": self.left_out,
        }
        for words, which in kinds.items():
            if which:
                yield f"{len(which):,} {words}: {first_names(list(which), _NAMED)}"
        if not self.boxes:
            yield "there are no boxes"

    def notes(self) -> Iterator[str]:
        """What is worth a look, in words."""
        counts = {
            "boxes reach past their picture, and are cut at its edge": self.past,
            "boxes have no area inside their picture, and are not used": self.without_area,
            "boxes are at most a pixel wide or high, and are not trained on": self.thin,
            "boxes are crowds or difficult, and are not trained on": self.ignored,
            "pictures have no box": self.empty,
        }
        for words, count in counts.items():
            if count:
                yield f"{count:,} {words}"
        without = [name for name, count in self.classes.items() if not count]
        if without:
            yield f"{len(without)} classes have no box: {first_names(without)}"
        yield from self.remarks


class Twice(NamedTuple):
    """Two pictures that are one. same_bytes: whether their files are the same; else they look the same."""

    first: str
    second: str
    across: bool
    same_bytes: bool


class LabelReport(NamedTuple):
    """splits: each. twice: pictures that come twice, those in two splits first. classes_differ: what names one split
    has and another lacks, in words."""

    splits: list[SplitReport]
    twice: list[Twice]
    classes_differ: Sequence[str]

    def faults(self) -> list[str]:
        """Everything that has to be mended, in words; what only looks the same is for a person to judge."""
        faults = []
        for split in self.splits:
            for fault in split.faults():
                faults.append(f"{split.split}: {fault}")
        return faults + self.faults_between()

    def faults_between(self) -> list[str]:
        """Those that are not of one split alone."""
        faults = list(self.classes_differ)
        copies = []
        for each in self.twice:
            if each.across and each.same_bytes:
                copies.append(f"{each.first} is {each.second}")
        if copies:
            faults.append(f"{len(copies):,} files are in two splits: {first_names(copies, _NAMED)}")
        return faults


def check_labels(splits: Sequence[LabelSplit]) -> LabelReport:
    """Reads every picture of the splits once."""
    reports = []
    facts: dict[tuple[str, str], PictureFacts] = {}
    for split in splits:
        of_split, reasons = _read_pictures(split)
        for file, each in of_split.items():
            facts[split.name, file] = each
        reports.append(_report(split, of_split, reasons))
    return LabelReport(reports, list(_twice(facts)), list(_differing_classes(reports)))


def _read_pictures(split: LabelSplit) -> tuple[dict[str, PictureFacts], dict[str, str]]:
    """Path → facts of the pictures, and path → reason of those that cannot be read."""
    facts: dict[str, PictureFacts] = {}
    reasons: dict[str, str] = {}

    def read(path: str) -> None:
        try:
            facts[path] = _facts(split.labelled.folder / path)
        except BadSample as error:
            reasons[path] = str(error)

    paths = split.labelled.paths
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding does not hold the interpreter
        for _ in tqdm(pool.map(read, paths), f"reading {split.name}", len(paths), delay=2, disable=None):
            pass
    in_order = {}
    for path in paths:
        if path in facts:
            in_order[path] = facts[path]
    return in_order, reasons


def _facts(file: Path) -> PictureFacts:
    size = upright_size(file)
    digest = hashlib.blake2b(read_regular(file), digest_size=16).digest()
    return PictureFacts(size, digest, image_hash(open_image(file, at_least=_AT_LEAST)))


def _report(split: LabelSplit, facts: Mapping[str, PictureFacts], reasons: Mapping[str, str]) -> SplitReport:
    labelled = split.labelled
    files = labelled.files
    counts: Counter[int] = Counter()
    past = 0
    ignored = 0
    empty = 0
    missing = []
    unreadable = []
    other_size = []
    for image, path, objects in zip(files.images, labelled.paths, files.objects, strict=True):
        if not (labelled.folder / path).is_file():
            missing.append(path)
        elif path in reasons:
            unreadable.append(f"{path} ({reasons[path]})")
        elif image.size is not None and image.size != facts[path].size:
            height, width = facts[path].size
            other_size.append(f"{path} ({image.size[1]} x {image.size[0]} by the annotations, {width} x {height})")
        size = facts[path].size if path in facts else image.size
        empty += not objects
        for each in objects:
            counts[each.category] += 1
            past += size is not None and _reaches_past(each, size)
            ignored += each.use.name == "CROWD"
    classes = {}
    for category in labelled.categories:
        classes[category.name] = counts[category.identifier]
    absent = list(labelled.absent)
    left_out = []
    for place, reason in files.left_out:
        if place in labelled.absent:
            absent[absent.index(place)] = f"{place} ({reason})"
        else:
            left_out.append(f"{place} ({reason})")
    return SplitReport(
        split=split.name,
        form=labelled.form,
        by=split.by,
        pictures=len(files.images),
        boxes=sum(counts.values()),
        classes=classes,
        empty=empty,
        past=past,
        without_area=files.without_area,
        thin=files.thin,
        ignored=ignored,
        missing=[*absent, *missing],
        unreadable=unreadable,
        other_size=other_size,
        left_out=left_out,
        remarks=labelled.remarks,
    )


def _reaches_past(each: CocoObject, size: Size) -> bool:
    x1, y1, x2, y2 = each.edges
    height, width = size
    return min(x1, y1) < -_PAST or x2 > width + _PAST or y2 > height + _PAST


def _twice(facts: Mapping[tuple[str, str], PictureFacts]) -> Iterator[Twice]:
    """Pictures that come twice, those in two splits first: with the same bytes, or with nearly the same image hash, as
    copies of other sizes and qualities have."""
    alike: dict[int, list[tuple[str, str]]] = {}
    for key, each in facts.items():
        alike.setdefault(each.hash, []).append(key)
    # Of many that are alike, as frames of a video are, each is told beside the first.
    pairs = []
    for keys in alike.values():
        for other in keys[1:]:
            pairs.append((keys[0], other))
    hashes = np.array(list(alike), np.uint64)
    nearby = near(hashes, hashes, DISTANCE)
    for left, right in zip(nearby.left.tolist(), nearby.right.tolist(), strict=True):
        if left < right:
            pairs.append((alike[int(hashes[left])][0], alike[int(hashes[right])][0]))
    found = []
    for first, second in pairs:
        same_bytes = facts[first].digest == facts[second].digest
        found.append(Twice("/".join(first), "/".join(second), first[0] != second[0], same_bytes))
    yield from sorted(found, key=lambda each: (not each.across, not each.same_bytes))


def _differing_classes(reports: Sequence[SplitReport]) -> Iterator[str]:
    """Splits whose names are not those of the first."""
    for report in reports[1:]:
        first = reports[0]
        lacking = [name for name in first.classes if name not in report.classes]
        others = [name for name in report.classes if name not in first.classes]
        if lacking:
            yield f"{report.split} lacks classes of {first.split}: {first_names(lacking)}"
        if others:
            yield f"{report.split} has classes that {first.split} lacks: {first_names(others)}"
