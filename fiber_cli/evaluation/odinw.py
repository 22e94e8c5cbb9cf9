"""Lists of detection sets, in ODinW's manner, to be measured on and to be fine-tuned on."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fiber_cli.data.files import read_bytes
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.few_shot import Draw, FewShotSet, drawn_by_seed, drawn_from_files
from fiber_cli.parsing import parse_yaml
from fiber_cli.text_files import NotText, decode_text

_NEEDED = {"name", "json", "images"}
#: The splits that fine-tuning needs besides, and the pattern of the files of few shots, where they are given.
_SPLITS, _DRAWS = ("train", "valid"), "draws"
_OPTIONAL = {"prompts", *_SPLITS, _DRAWS}
#: What a pattern of draws stands for.
_FIELDS = ["seed", "shots"]


def read_odinw(path: str | Path) -> list[CocoSettings]:
    """The sets that are measured on, of a YAML or JSON list of {name, json, images, prompts (optional)}, paths relative
    to the list's folder.

    prompts: name → {name, prefix, suffix} for the names that are shown otherwise. What `read_few_shot` reads of an
    entry besides is checked and not used. Raises UserError.
    """
    path = Path(path)
    return [_test_split(path, entry) for entry in _read_entries(path)]


def read_few_shot(path: str | Path) -> list[FewShotSet]:
    """The sets that are fine-tuned on, of the list that `read_odinw` reads, each entry with `train` and `valid`, of the
    form {json, images}; the entry's own `json` and `images` are its test. draws: pattern of the JSON files of few
    shots, such as train/shot{shots}_seed{seed}.json, whose pictures are those of `train`; without it the images are
    drawn by the seed. Raises UserError."""
    path = Path(path)
    sets = []
    for number, entry in enumerate(_read_entries(path), 1):
        _check_folder_name(f"{path}: entry {number}", str(entry["name"]))
        missing = [split for split in _SPLITS if split not in entry]
        if missing:
            raise UserError(
                f"{path}: entry {number} ({entry['name']}) has no {' and no '.join(missing)}, which fine-tuning needs; "
                "give each as {json, images}"
            )
        train, valid = (_coco(path, entry, entry[split]) for split in _SPLITS)
        draw = _draw(path, entry, train)
        sets.append(FewShotSet(str(entry["name"]), train, valid, _test_split(path, entry), draw))
    return sets


def _read_entries(path: Path) -> list[dict[str, Any]]:
    """The checked entries of a list, at least one. Raises UserError."""
    try:
        content = parse_yaml(decode_text(read_bytes(path, "the list of the sets")), str(path))
    except NotText as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML or JSON: {problem}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise UserError(f"{path}: an empty list of sets; wanted is [{{name, json, images, prompts}}, …]")
    names = set()
    for number, entry in enumerate(entries, 1):
        _check(path, number, entry)
        name = str(entry["name"])
        if name in names:
            raise UserError(f"{path}: entry {number}: there are two sets named {name}")
        names.add(name)
    return entries


def _test_split(path: Path, entry: Mapping[str, Any]) -> CocoSettings:
    return _coco(path, entry, entry)


def _coco(path: Path, entry: Mapping[str, Any], split: Mapping[str, Any]) -> CocoSettings:
    """A split of an entry of a list as an entry of a recipe."""
    return CocoSettings(
        kind="coco",
        name=str(entry["name"]),
        json=str(path.parent / split["json"]),
        images=str(path.parent / split["images"]),
        prompts=entry.get("prompts") or {},
    )


def _draw(path: Path, entry: Mapping[str, Any], train: CocoSettings) -> Draw:
    pattern = entry.get(_DRAWS)
    if pattern is None:
        return drawn_by_seed(train)
    return drawn_from_files(train, lambda shots, seed: path.parent / pattern.format(shots=shots, seed=seed))


def prompts_in_words(sources: Sequence[CocoSettings]) -> dict[str, Any]:
    """What results.json says of the prompts of a list: which sets have other names than their own, and how."""
    shown = {str(source.name): source.prompts for source in sources if source.prompts}
    return {"prompts": shown or "names"}


def _check(path: Path, number: int, entry: Any) -> None:
    keys = set(entry) if isinstance(entry, dict) else set()
    if not keys >= _NEEDED or keys - _NEEDED - _OPTIONAL:
        raise UserError(
            f"{path}: entry {number} needs name, json and images, and may have {', '.join(sorted(_OPTIONAL))}; it is "
            f"{entry!r:.200}"
        )
    _check_texts(f"{path}: entry {number}", entry, sorted(_NEEDED))
    if not isinstance(entry.get("prompts") or {}, dict):
        raise UserError(
            f"{path}: entry {number}: prompts must be a mapping from names, it is {entry['prompts']!r:.200}"
        )
    for split in _SPLITS:
        place = f"{path}: entry {number}: {split}"
        if split in entry:
            if not isinstance(entry[split], dict) or set(entry[split]) != {"json", "images"}:
                raise UserError(f"{place} must be {{json, images}}, it is {entry[split]!r:.200}")
            _check_texts(place, entry[split], ["images", "json"])
    if _DRAWS in entry and _fields_of(entry[_DRAWS]) != _FIELDS:
        raise UserError(
            f"{path}: entry {number}: draws must be a pattern with {{shots}} and {{seed}}, it is {entry[_DRAWS]!r:.200}"
        )


def _check_texts(place: str, entry: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        value = entry[key]
        if key == "name" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place}: {key} must be text, it is {value!r:.200}")


def _check_folder_name(place: str, name: str) -> None:
    """A set's runs lie in a folder of its name."""
    if name != Path(name).name or name in (".", "..") or not name.isprintable():
        raise UserError(f"{place}: {name!r:.200} cannot be the name of a folder, which its runs lie in; rename the set")


def _fields_of(pattern: Any) -> list[str] | None:
    """The fields in the braces of a pattern, each once; None for what is no pattern."""
    if not isinstance(pattern, str):
        return None
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError:
        return None
    if any(specification or conversion for _, _, specification, conversion in parts):
        return None
    return sorted({field for _, field, _, _ in parts if field is not None})
