"""What `fiber data dedup` does: a recipe's sources against validation and test sets, and the lists that leave out."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.config.recipe import Recipe
from fiber_cli.config.resolve import find_recipe, resolve_recipe
from fiber_cli.data.dedup import BY_HASH, BY_NAME, Found, HeldOut, duplicates, exclude_json, held_out_pictures
from fiber_cli.data.source_files import source_files
from fiber_cli.data.sources import open_source
from fiber_cli.errors import UserError
from fiber_cli.evaluation.held_out import HeldOutEntry, held_out_entries
from fiber_cli.outputs import Outputs
from fiber_cli.printing import say
from fiber_cli.settings import SourceSettings
from fiber_cli.text_files import dump_json

_REPORT, _RECIPE = "report.json", "recipe.yaml"


class Request(NamedTuple):
    """What was asked for. against: data sets of `evaluation.held_out`, none for all that are there; root: where they
    lie, None for the recipe's; distance: bits in which hashes of copies may differ."""

    recipe: str
    overrides: tuple[str, ...]
    against: tuple[str, ...]
    root: Path | None
    by: Literal["both", "name", "hash"]
    distance: int


def write_dedup(request: Request, out: Path, *, force: bool) -> Iterator[str]:
    """Writes a list for each source with held-out pictures, `report.json`, the held-out hashes, and `recipe.yaml`,
    which leaves them out; gives lines that say what was found. Raises `UserError`."""
    recipe = resolve_recipe(request.recipe, request.overrides)
    root = request.root or Path(recipe.data.root or ".")
    entries, missing = held_out_entries(request.against, root)
    if not entries:
        raise UserError(f"--root {root}: holds no validation or test set of the tasks", *missing)
    for line in missing:
        say(f"not held against: {line}")
    out = out.absolute()
    read = [*recipe.data.train, *(entry.settings for entry in entries)]
    outputs = Outputs(force=force, inputs=[Path(find_recipe(request.recipe)), *source_files(read)])
    for name in (_REPORT, _RECIPE):
        outputs.check(out / name)
    held_out = _held_out(entries, recipe, request)
    reports: list[dict[str, Any]] = []
    train: list[SourceSettings] = []
    for number, settings in enumerate(recipe.data.train):
        source = open_source(settings, max_pixels=recipe.data.max_pixels)
        found = duplicates(source, held_out)
        train.append(_without(settings, found, out / f"exclude-{number}-{settings.kind}.json", outputs))
        reports.append(_report(number, settings.kind, len(source), found))
        yield _line(reports[-1], source.name)
    if held_out.hashes is not None:
        outputs.write(out / "held-out-hashes.json", held_out.hashes_json())
    whole_report = _whole_report(request, entries, missing, held_out) | {"sources": reports}
    outputs.write(out / _REPORT, dump_json(whole_report, 1) + "\n")
    data = dataclasses.replace(recipe.data, train=tuple(train))
    outputs.write(out / _RECIPE, dataclasses.replace(recipe, data=data).to_yaml())
    yield f"{out / _RECIPE}: {request.recipe} without them; {_REPORT} beside it names each and why"


def _without(settings: SourceSettings, found: Found, file: Path, outputs: Outputs) -> SourceSettings:
    """The entry without what was found, which is listed in the file."""
    if not found.duplicates:
        return settings
    outputs.write(file, exclude_json(found.duplicates))
    earlier = settings.exclude or ()
    if isinstance(earlier, str):
        earlier = (earlier,)
    return dataclasses.replace(settings, exclude=(*earlier, str(file)))


def _held_out(entries: list[HeldOutEntry], recipe: Recipe, request: Request) -> HeldOut:
    sources = [open_source(entry.settings, max_pixels=recipe.data.max_pixels) for entry in entries]
    return held_out_pictures(
        sources, names=request.by != "hash", hashes=request.by != "name", distance=request.distance
    )


def _report(number: int, kind: str, samples: int, found: Found) -> dict[str, Any]:
    by = [duplicate.by for duplicate in found.duplicates]
    return {
        "entry": f"data.train.{number}",
        "kind": kind,
        "samples": samples,
        "removed": len(by),
        "by_name": by.count(BY_NAME),
        "by_hash": by.count(BY_HASH),
        "unreadable": found.unreadable,
        "duplicates": [duplicate._asdict() for duplicate in found.duplicates],
    }


def _line(report: dict[str, Any], name: str) -> str:
    line = (
        f"{report['entry']} ({name}): {report['removed']:,} of {report['samples']:,} samples are held out, "
        f"{report['by_name']:,} by name, {report['by_hash']:,} by image hash"
    )
    if report["unreadable"]:
        line += f"; {report['unreadable']:,} cannot be read, and are told by name alone"
    return line


def _whole_report(
    request: Request, entries: list[HeldOutEntry], missing: list[str], held_out: HeldOut
) -> dict[str, Any]:
    return {
        "recipe": request.recipe,
        "by": request.by,
        "distance": request.distance,
        "held_out": [f"{entry.name} {entry.split}" for entry in entries],
        "not_there": missing,
        "held_out_unreadable": held_out.unreadable,
    }
