"""Pictures that a source leaves out: the setting `exclude` of every entry of a recipe.

Its files are lists of images in one of these forms, told apart by what is in them:

- a text with a name or an id a line, or a JSON list of such (see `image_names`);
- a JSON file of a data set: Karpathy's, of which all images outside `train` are meant, COCO's, MDETR's, NoCaps' or
  VQAv2's form, or JSON lines of NLVR2 or ODVG, of which all are;
- image hashes, and lists of samples, as `fiber data dedup` writes them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fiber_cli.data.coco_json import file_name
from fiber_cli.data.exclude_files import FORMS, exclude_files
from fiber_cli.data.file_records import say_once
from fiber_cli.data.files import expecting, read_bytes, read_lines
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.image_hashes import FORM as HASHES
from fiber_cli.data.image_hashes import HashList, near, read_hash_list, source_hashes
from fiber_cli.data.image_names import COCO, coco_name, distinct_name
from fiber_cli.data.some_samples import some_samples
from fiber_cli.data.source import Source, SourceType
from fiber_cli.data.sources.karpathy import read_karpathy
from fiber_cli.data.values import identifier, path_text, some_text
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_json
from fiber_cli.text_files import NotText, decode_text

SAMPLES = "fiber excluded samples"
_WANTED = "a list of images that are left out"


@dataclass
class ExcludeList:
    """What a file says is left out: names of images, hashes, or keys of samples (see `Source.key`)."""

    file: str
    names: set[str] = field(default_factory=set)
    hashes: HashList | None = None
    keys: set[str] = field(default_factory=set)

    @property
    def of_coco(self) -> bool:
        """Whether it names nothing but pictures of COCO."""
        return bool(self.names) and all(name.startswith(COCO) for name in self.names)


def without_excluded(source: SourceType, setting: str | Sequence[str] | None) -> SourceType:
    """The source without the samples whose images the files of `exclude` name; the source itself where there are none.

    How many are left out, by which file, is told on standard error. Raises `UserError` for files that are no such
    lists, for a list of COCO's ids beside a source that knows none of its pictures by them, and where nothing is left.
    """
    lists = [read_exclude_list(file) for file in exclude_files(setting)]
    if not lists:
        return source
    reasons = excluded_samples(source, lists)
    left = [i for i in range(len(source)) if i not in reasons]
    by_file = {each.file: 0 for each in lists}
    for file in reasons.values():
        by_file[file] += 1
    told = f"{source.name}: exclude leaves out {len(reasons):,} of {len(source):,} samples: {_counted(by_file)}"
    if not left:
        raise UserError(f"{told}; no sample is left, check what `exclude` names")
    say_once(told)
    if not reasons:
        return source
    view = some_samples(source, left)
    view.excluded = len(reasons)
    return view


def _counted(by_file: Mapping[str, int]) -> str:
    """How many samples each file leaves out, in words."""
    counted = [f"{count:,} by {file}" for file, count in by_file.items() if count]
    idle = len(by_file) - len(counted)
    if idle:
        lists = "list" if idle == 1 else "lists"
        others = f"other {lists}" if counted else lists
        counted.append(f"none by {idle} {others}")
    return ", ".join(counted)


def excluded_samples(source: Source, lists: Sequence[ExcludeList]) -> dict[int, str]:
    """Number of every sample that is left out → the first of the files that name it; `UserError`, see
    `without_excluded`."""
    reasons: dict[int, str] = {}
    file_of = _first_file(lists, lambda each: each.names)
    # Of Visual Genome's pictures half are in COCO, of a few of them perhaps none.
    knows_coco = isinstance(source, FolderSource) and bool(source.coco_numbers)
    if file_of:
        for i in range(len(source)):
            names = source.image_names(i)
            knows_coco = knows_coco or any(name.startswith(COCO) for name in names)
            named = [file_of[name] for name in names if name in file_of]
            if named:
                reasons[i] = named[0]
    for each in lists:
        if each.of_coco and not knows_coco:
            raise UserError(
                f"{each.file}: names COCO's pictures alone, and {source.name} knows none of its own by COCO's ids; "
                "give it image_data where it is of Visual Genome's, or image hashes (fiber data dedup), or none"
            )
    by_key = _first_file(lists, lambda each: each.keys)
    if by_key:
        for i in range(len(source)):
            file = by_key.get(source.key(i))
            if file is not None:
                reasons.setdefault(i, file)
    for each in lists:
        if each.hashes is not None:
            for i in _near_samples(source, each.hashes):
                reasons.setdefault(i, each.file)
    return reasons


def _first_file(lists: Iterable[ExcludeList], listed: Callable[[ExcludeList], Iterable[str]]) -> dict[str, str]:
    """Name → the first file that has it."""
    file_of: dict[str, str] = {}
    for each in lists:
        for name in listed(each):
            file_of.setdefault(name, each.file)
    return file_of


def _near_samples(source: Source, hashes: HashList) -> list[int]:
    of_source = source_hashes(source)
    pairs = near(of_source.hashes, hashes.hashes, hashes.distance)
    return np.unique(of_source.samples[pairs.left]).tolist()


def read_exclude_list(file: str) -> ExcludeList:
    """What a file leaves out; `UserError` for one of none of the forms, and for one that names nothing."""
    content = read_bytes(file, _WANTED)
    try:
        parsed = parse_json(content)
    except NotText as error:
        raise UserError(f"{file}: {error}; give {FORMS}") from None
    except ValueError:
        listed = ExcludeList(file, names=set(_names_of_lines(file)))
    else:
        with expecting(file, _WANTED, FORMS):
            listed = _of_json(file, parsed)
    if not listed.names and not listed.keys and listed.hashes is None:
        raise UserError(f"{file}: names no image to leave out; give {FORMS}")
    return listed


def _of_json(file: str, parsed: Any) -> ExcludeList:
    if isinstance(parsed, Mapping) and parsed.get("form") == HASHES:
        return ExcludeList(file, hashes=read_hash_list(parsed))
    if isinstance(parsed, Mapping) and parsed.get("form") == SAMPLES:
        return ExcludeList(file, keys={some_text(entry["key"], "key") for entry in parsed["samples"]})
    if isinstance(parsed, Mapping):
        return ExcludeList(file, names=set(_names_of_data_set(file, parsed)))
    if not isinstance(parsed, list):
        return ExcludeList(file, names={str(identifier(parsed))})  # a text with one number
    return ExcludeList(file, names={str(identifier(each)) for each in parsed})


def _names_of_data_set(file: str, parsed: Mapping[str, Any]) -> Iterator[str]:
    """The images of the JSON file of a data set. Every record counts: of one that cannot be read it would not be known
    whether it is held out."""
    if "questions" in parsed:
        for question in parsed["questions"]:
            yield coco_name(int(identifier(question["image_id"], "image_id")))
        return
    if "filename" in parsed or "identifier" in parsed:  # JSON lines with one line
        yield from _names_of_line(parsed)
        return
    images = parsed["images"]
    if images and "split" in images[0]:
        for entry in read_karpathy(file, strict=True):
            if entry.split != "train":
                yield distinct_name(entry.file) if entry.cocoid is None else coco_name(entry.cocoid)
        return
    for image in images:
        yield distinct_name(file_name(image))


def _names_of_lines(file: str) -> Iterator[str]:
    """The names of a text with one a line, and of JSON lines."""
    for number, line in read_lines(file, _WANTED):
        with expecting(file, _WANTED, FORMS, see=lambda number=number: f"line {number}"):  # type: ignore[misc]
            text = decode_text(line).strip()
            if not text.startswith(("{", "[")):
                yield text
                continue
            yield from _names_of_line(parse_json(line))


def _names_of_line(row: Mapping[str, Any]) -> Iterable[str]:
    """The images of a line of NLVR2 or of ODVG."""
    if "filename" in row:
        return [distinct_name(path_text(row["filename"], "filename"))]
    for sides in (("image",), ("left", "right")):
        if sides[0] in row:
            return [distinct_name(path_text(row[side], side)) for side in sides]
    split, number, pair, _ = some_text(row["identifier"], "identifier").split("-")
    return [f"{split}-{number}-{pair}-img{side}.png" for side in (0, 1)]
