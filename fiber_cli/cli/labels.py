"""`fiber data check` of one's own labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fiber_cli.characters import one_line
from fiber_cli.errors import UserError
from fiber_cli.printing import show, show_json

if TYPE_CHECKING:
    from fiber_cli.data.label_check import LabelReport, LabelSplit, SplitReport

#: Classes of a split that are named on the screen; JSON has all.
_NAMED = 30


class LabelCheck(NamedTuple):
    """What is checked, and how it is told. places: folders, data.yaml and JSON files; sources: entries as in recipes;
    images: of a JSON file; sheet: file of the contact sheet, with `shown` pictures of each split."""

    places: Sequence[Path]
    sources: Sequence[str]
    images: Path | None
    sheet: Path | None
    shown: int
    force: bool
    as_json: bool


def check_own_labels(check: LabelCheck) -> None:
    """Counts, what is wrong, and the contact sheet. UserError, which says so, where something has to be mended."""
    from fiber_cli.data.label_check import check_labels
    from fiber_cli.data.label_splits import named_apart
    from fiber_cli.outputs import Outputs

    outputs = Outputs(force=check.force)
    if check.sheet is not None:
        from fiber_cli.inference.sheet import check_sheet

        check_sheet(check.sheet)
    splits = named_apart(list(_splits(check)))
    if check.sheet is not None:
        outputs = Outputs(force=check.force, inputs=_pictures(splits))
        outputs.reserve(check.sheet)
    report = check_labels(splits)
    if check.sheet is not None:
        from fiber_cli.inference.label_sheet import draw_label_sheet

        draw_label_sheet(splits, check.sheet, check.shown, outputs)
    if check.as_json:
        show_json(_to_json(report))
    else:
        for line in _lines(report):
            show(one_line(line))
        if check.sheet is not None:
            show(one_line(f"{check.sheet}: up to {check.shown} pictures of each split with their boxes"))
    faults = len(report.faults())
    if faults:
        raise UserError(
            f"{faults} kinds of faults were found, see above" if faults > 1 else "a fault was found, see above"
        )


def _splits(check: LabelCheck) -> "Iterator[LabelSplit]":
    from fiber_cli.config.resolve import resolve_source
    from fiber_cli.data.label_splits import split_of_entry, splits_at

    for place in check.places:
        yield from splits_at(place, check.images)
    for source in check.sources:
        yield split_of_entry(resolve_source(source))


def _pictures(splits: "Sequence[LabelSplit]") -> Iterator[Path]:
    for split in splits:
        yield Path(split.by)
        for path in split.labelled.paths:
            yield split.labelled.folder / path


def _lines(report: "LabelReport") -> Iterator[str]:
    for split in report.splits:
        yield f"{split.split}: {split.form}, by {split.by}"
        yield f"  {split.pictures:,} pictures, {split.boxes:,} boxes of {len(split.classes)} classes"
        yield from _class_lines(split)
        for note in split.notes():
            yield f"  {note}"
        for fault in split.faults():
            yield f"  to mend: {fault}"
    for each in report.twice[:_NAMED]:
        where = "in two splits" if each.across else "twice"
        how = "the same file" if each.same_bytes else "they look the same"
        yield f"{where}: {each.first} and {each.second} ({how})"
    across = [each for each in report.twice if each.across]
    same = sum(each.same_bytes for each in across)
    yield f"in two splits: {same:,} pictures as the same file, {len(across) - same:,} that look the same"
    for fault in report.faults_between():
        yield f"to mend: {fault}"
    inside = len(report.twice) - len(across)
    if inside:
        yield f"twice in one split: {inside:,} pictures"


def _class_lines(split: "SplitReport") -> Iterator[str]:
    for name, count in list(split.classes.items())[:_NAMED]:
        yield f"    {name}: {count:,}"
    if len(split.classes) > _NAMED:
        yield f"    and {len(split.classes) - _NAMED} more (--json has all)"


def _to_json(report: "LabelReport") -> dict[str, object]:
    splits = []
    for split in report.splits:
        splits.append(split._asdict() | {"faults": list(split.faults())})
    twice = [each._asdict() for each in report.twice]
    return {"splits": splits, "twice": twice, "faults": report.faults()}
