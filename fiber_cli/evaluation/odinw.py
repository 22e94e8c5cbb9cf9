"""Lists of detection sets, in ODinW's manner."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fiber_cli.data.files import read_bytes
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.errors import UserError
from fiber_cli.parsing import parse_yaml
from fiber_cli.text_files import NotText, decode_text

_NEEDED = {"name", "json", "images"}


def read_odinw(path: str | Path) -> list[CocoSettings]:
    """A YAML or JSON list of {name, json, images, prompts (optional)}, paths relative to the list's folder.

    prompts: name → {name, prefix, suffix} for the names that are shown otherwise. Raises UserError.
    """
    path = Path(path)
    try:
        content = parse_yaml(decode_text(read_bytes(path, "the list of the ODinW sets")), str(path))
    except NotText as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML or JSON: {problem}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise UserError(f"{path}: an empty list of sets; wanted is [{{name, json, images, prompts}}, …]")
    sets: dict[str, CocoSettings] = {}
    for number, entry in enumerate(entries, 1):
        _check(path, number, entry)
        name = str(entry["name"])
        if name in sets:
            raise UserError(f"{path}: entry {number}: there are two sets named {name}")
        sets[name] = CocoSettings(
            kind="coco",
            name=name,
            json=str(path.parent / entry["json"]),
            images=str(path.parent / entry["images"]),
            prompts=entry.get("prompts") or {},
        )
    return list(sets.values())


def prompts_in_words(sources: Sequence[CocoSettings]) -> dict[str, Any]:
    """What results.json says of the prompts of a list: which sets have other names than their own, and how."""
    shown = {str(source.name): source.prompts for source in sources if source.prompts}
    return {"prompts": shown or "names"}


def _check(path: Path, number: int, entry: Any) -> None:
    keys = set(entry) if isinstance(entry, dict) else set()
    if not keys >= _NEEDED or keys - _NEEDED - {"prompts"}:
        raise UserError(
            f"{path}: entry {number} needs name, json and images, and may have prompts; it is {entry!r:.200}"
        )
    for key in sorted(_NEEDED):
        value = str(entry[key]) if key == "name" and isinstance(entry[key], int) else entry[key]
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{path}: entry {number}: {key} must be text, it is {value!r:.200}")
    if not isinstance(entry.get("prompts") or {}, dict):
        raise UserError(
            f"{path}: entry {number}: prompts must be a mapping from names, it is {entry['prompts']!r:.200}"
        )
