"""Whether a data set lies below a folder as the recipes want it: its layout, how many samples it has, samples
decoded."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fiber_cli.data.catalogue import Check, DataSet, Layout, layout
from fiber_cli.data.source import (
    BadSample,
    CaptionSource,
    ImageSource,
    QuestionSource,
    RegionSource,
    Source,
    StatementSource,
)
from fiber_cli.data.sources import open_source, source_format
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, path_settings, paths_in

Status = Literal["ok", "missing", "differs"]


class Checked(NamedTuple):
    """what: a path below the root, or the entry that was opened; detail: what was found, in words."""

    what: str
    status: Status
    detail: str


def check_data_set(data_set: DataSet, root: Path, *, any_count: bool = False) -> Iterator[Checked]:
    """The layout, then each part of the data set opened. root: the recipes' `data.root`, or the data set's own folder.
    any_count: the numbers of samples need not be the published ones."""
    here = layout(data_set, root)
    for file in data_set.files:
        for made in file.makes:
            if here.place(made).exists():
                yield Checked(made, "ok", "is there")
            elif file.serves is not None and here.place(file.serves).exists():
                yield Checked(made, "ok", f"not needed any more, {file.serves} is there")
            else:
                yield Checked(made, "missing", file.by or f"fiber data get {data_set.name} --root {root}")
    for check in data_set.checks:
        yield _check(check, here, any_count=any_count)


def _check(check: Check, here: Layout, *, any_count: bool) -> Checked:
    what = ", ".join(str(value) for key, value in check.entry.items() if key not in ("images", "pattern", "kind"))
    settings = entry_settings(check.entry, here)
    absent = [str(path) for path in _paths(settings) if not path.exists()]
    if absent:
        return Checked(what, "missing", f"{absent[0]} is not there")
    try:
        source = open_source(settings)
        decoded = _decode_some(source)
    except (UserError, BadSample) as error:
        return Checked(what, "differs", str(error))
    count = len(source)
    published = "unknown" if check.count is None else f"{check.count:,}"
    left_out = f"; {len(source.left_out)} records cannot be read" if source.left_out else ""
    detail = f"{count:,} samples (published: {published}); {decoded}{left_out}"
    if check.count not in (None, count) and not any_count:
        return Checked(what, "differs", detail)
    return Checked(what, "ok", detail)


def entry_settings(entry: Mapping[str, Any], here: Layout) -> SourceSettings:
    """The settings of an entry of the catalogue, its paths where they lie."""
    settings = source_format(entry["kind"]).settings
    given = dict(entry)
    for name in path_settings(settings):
        value = given.get(name)
        if value is not None:
            if isinstance(value, Mapping):
                given[name] = {key: str(here.place(path)) for key, path in value.items()}
            else:
                given[name] = str(here.place(value))
    return settings(**given)


def _paths(settings: SourceSettings) -> Iterator[Path]:
    """The files and folders that an entry names."""
    for name in path_settings(type(settings)):
        yield from map(Path, paths_in(vars(settings)[name]))


def _decode_some(source: Source) -> str:
    """Reads the first, the middle and the last sample; what they are, in words. Raises `BadSample` naming one that
    cannot be read."""
    last = len(source) - 1
    numbers = sorted({0, last // 2, last})
    sizes = []
    for i in numbers:
        try:
            sizes += _decode(source, i)
        except BadSample as error:
            raise BadSample(f"sample {source.key(i)}: {error}") from None
    return f"decoded {', '.join(f'{width} x {height}' for width, height in sizes)}"


def _decode(source: Source, i: int) -> list[tuple[int, int]]:
    """Reads a sample; the widths and heights of its pictures."""
    if isinstance(source, StatementSource):
        source.statements(i)
        return [image.size for image in source.images(i)]
    assert isinstance(source, ImageSource), "sources have one image a sample or several"
    if isinstance(source, CaptionSource):
        source.captions(i)
    elif isinstance(source, QuestionSource):
        source.questions(i)
    elif isinstance(source, RegionSource):
        source.regions(i)
    return [source.image(i).size]
