"""`fiber data`: data sets fetched, checked, packed into shards, and freed of what they are to be tested on."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fiber_cli.characters import one_line
from fiber_cli.cli.options import WORKERS, AsJson, Force, Overrides
from fiber_cli.errors import UserError
from fiber_cli.printing import say, show, show_json
from fiber_cli.settings import paths_in

if TYPE_CHECKING:
    from fiber_cli.config.recipe import Recipe
    from fiber_cli.data.catalogue import DataSet
    from fiber_cli.data.getting import Got
    from fiber_cli.settings import SourceSettings

#: Where `data.root` stands while paths below it are looked for.
_ROOT = "/data"
#: Folders below it that hold pictures of several data sets.
_SHARED_FOLDERS = ("coco/images", "vg")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", help="Data sets, or recipes, of which all data are meant.  [default: all]"),
]


def get(
    names: Names = None,
    *,
    root: Annotated[
        Path | None, typer.Option(help="The recipes' data.root, to fetch into.  [default: only say what is fetched]")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Address of a folder with the files under their names, in place of theirs.")
    ] = None,
    unpack: Annotated[bool, typer.Option("--unpack/--no-unpack", help="Unpack what is fetched.")] = True,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Say what data are fetched from where under which licence, and fetch what may be fetched directly."""
    from fiber_cli.data.getting import get_files
    from fiber_cli.outputs import Outputs

    outputs = Outputs(force=force)
    described: list[dict[str, Any]] = []
    done: list[Got] = []
    for data_set in _data_sets(names):
        described.append(_described(data_set))
        if not as_json:
            _show_data_set(described[-1])
        for got in get_files(data_set, root, outputs, mirror=mirror, unpack=unpack):
            done.append(got)
            if not as_json:
                _show_file(got)
    if as_json and root is None:
        show_json(described)
    elif as_json:
        show_json([_got_json(got) for got in done])
    elif root is None:
        show("nothing is fetched without --root, the recipes' data.root")
    if root is not None:
        _tell_rest(done)


def _tell_rest(done: "list[Got]") -> None:
    """What a person has to do; `UserError` for what could not be fetched."""
    for got in done:
        if got.state == "by hand":
            say(f"to do: {got.words}")
    failed = [got.words for got in done if got.state == "failed"]
    if failed:
        raise UserError(f"not fetched ({len(failed)} of {len(done)}):", *failed)


def _got_json(got: "Got") -> dict[str, Any]:
    return {"makes": got.file.makes, "url": got.url, "state": got.state, "words": got.words}


def _data_sets(names: Sequence[str] | None) -> "list[DataSet]":
    """The data sets of names of theirs and of recipes, each once, and those that they share files with."""
    from fiber_cli.config.resolve import shipped_recipes
    from fiber_cli.data.catalogue import catalogue, data_sets

    known = catalogue()
    if not names:
        return list(known.values())
    chosen: list[str] = []
    for name in names:
        if name not in known and name in shipped_recipes():
            of_recipe = [data_set.name for data_set in known.values() if name in recipes_of(data_set)]
            if not of_recipe:
                raise UserError(f"recipe {name}: needs no data but its own scenes, or those that you name in it")
            chosen += of_recipe
        else:
            chosen.append(name)
    return data_sets(chosen)


def recipes_of(data_set: "DataSet") -> list[str]:
    """The shipped recipes that read a file of the data set."""
    using = list(data_set.recipes)
    for name, paths in _paths_of_recipes().items():
        if any(data_set.has(path) for path in paths):
            using.append(name)
    return sorted(using)


@cache
def _paths_of_recipes() -> Mapping[str, Sequence[str]]:
    """What the shipped recipes read of public data, by their names."""
    from fiber_cli.config.resolve import recipe_header, resolve_recipe, shipped_recipes

    paths = {}
    for name, path in shipped_recipes().items():
        if f"data.root={_ROOT}" in recipe_header(path)["command"]:
            paths[name] = list(_paths_of(resolve_recipe(name, [f"data.root={_ROOT}"])))
    return paths


def _paths_of(recipe: "Recipe") -> Iterator[str]:
    """The files and folders that a recipe's sources name, below its root; folders of several sets tell nothing."""
    for entry in (*recipe.data.train, *recipe.data.val):
        for name in entry.path_names():
            for path in paths_in(vars(entry)[name]):
                below = str(PurePosixPath(path).relative_to(_ROOT))
                if below not in _SHARED_FOLDERS:
                    yield below


def _described(data_set: "DataSet") -> dict[str, Any]:
    return dataclasses.asdict(data_set) | {"recipes": recipes_of(data_set)}


def _show_data_set(about: dict[str, Any]) -> None:
    show(one_line(f"{about['name']}: {about['title']}"))
    show(one_line(f"  {about['home']}; licence: {about['licence']}"))
    show(one_line(f"  for {', '.join(about['recipes']) or 'evaluation'}"))


def _show_file(got: "Got") -> None:
    from fiber_cli.data.catalogue import UNKNOWN, size_in_words

    file = got.file
    show(one_line(f"  {', '.join(file.makes)}"))
    if got.url is None:
        show(one_line(f"    by hand: {file.by}"))
        return
    checksum = " ".join(file.checksum or ("checksum", UNKNOWN))
    show(one_line(f"    from {got.url}, size {size_in_words(file.bytes)}, {checksum}"))
    if got.words:
        show(one_line(f"    {got.state}: {got.words}"))


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="Data sets, or recipes, of which all data are meant; or your own labels: a folder as a tool exports "
            "it, a data.yaml, a JSON file in COCO's form.  [default: all data sets]",
        ),
    ] = None,
    *,
    root: Annotated[Path | None, typer.Option(help="The recipes' data.root, for data sets.")] = None,
    any_count: Annotated[
        bool, typer.Option("--any-count", help="The numbers of samples need not be the published ones.")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Own labels as an entry of recipes, such as {kind: voc, folder: …}; may come several times."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Own labels: folder of the pictures of a JSON file.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Own labels: draw some pictures with their boxes into this file.")
    ] = None,
    shown: Annotated[int, typer.Option(min=1, help="Pictures of each split on the sheet.")] = 12,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Check data: that data sets lie as recipes want them, or what is in labels of your own and what is wrong there."""
    from fiber_cli.data.checking import check_data_set

    own = _own_labels(names or (), source or ())
    if own or source:
        from fiber_cli.cli.labels import LabelCheck, check_own_labels

        if root is not None or any_count:
            raise typer.BadParameter("--root and --any-count are of the recipes' data sets, not of own labels")
        check_own_labels(LabelCheck(own, source or (), images, sheet, shown, force, as_json))
        return
    if images is not None or sheet is not None or force:
        raise typer.BadParameter("--images, --sheet and --force are of own labels; name a folder, data.yaml or JSON")
    if root is None:
        raise typer.BadParameter(_without_root(names or ()))
    if not root.is_dir():
        raise UserError(f"--root {root}: no such folder")
    wrong = 0
    rows: list[dict[str, str]] = []
    for data_set in _data_sets(names):
        if not as_json:
            show(one_line(f"{data_set.name}: {data_set.title}"))
        for checked in check_data_set(data_set, root, any_count=any_count):
            wrong += checked.status != "ok"
            rows.append({"data_set": data_set.name, **checked._asdict()})
            if not as_json:
                show(one_line(f"  {checked.status:7}  {checked.what}: {checked.detail}"))
    if as_json:
        show_json(rows)
    if wrong:
        raise UserError(f"{wrong} of {len(rows)} checks found something missing or different")


def _without_root(names: Sequence[str]) -> str:
    """What is missing where neither --root nor a folder with labels is given."""
    known = _known_names()
    wanted = "give --root, the recipes' data.root, or name a folder with labels of your own"
    for name in names:
        if name not in known:
            return f"{name}: there is no such folder or file, and no data set or recipe of that name; {wanted}"
        if Path(name).exists():
            return (
                f"{name}: is a data set or recipe, for which give --root; a folder of your own of that name is ./{name}"
            )
    return wanted


def _known_names() -> set[str]:
    """Of the data sets and of the recipes that have some."""
    from fiber_cli.config.resolve import shipped_recipes
    from fiber_cli.data.catalogue import catalogue

    return catalogue().keys() | shipped_recipes().keys()


def _own_labels(names: Sequence[str], sources: Sequence[str]) -> list[Path]:
    """The names that are paths of labels; UserError for such beside names of data sets."""
    known = _known_names()
    paths = []
    others = []
    for name in names:
        if name not in known and Path(name).exists():
            paths.append(Path(name))
        else:
            others.append(name)
    if others and (paths or sources):
        raise UserError(
            f"{others[0]}: is no folder or file of labels; check data sets and own labels in commands of their own"
        )
    return paths


def shard(
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the shards; one with some of them is gone on with.")],
    source: Annotated[
        str | None, typer.Option(help="An entry as in recipes, such as {kind: karpathy, json: …, images: …}.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Take the entry from this recipe.")] = None,
    entry: Annotated[int, typer.Option(min=0, help="Number of the recipe's entry of data.train.")] = 0,
    per_shard: Annotated[int, typer.Option(min=1, help="Samples in a shard.")] = 1000,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = WORKERS,
    force: Force = False,
) -> None:
    """Pack images with captions or boxes into WebDataset shards, which train as the files that they were made from."""
    from fiber_cli.data.sharding import shard_source
    from fiber_cli.data.source_files import source_files
    from fiber_cli.data.sources import open_source
    from fiber_cli.outputs import Outputs

    if (source is None) == (recipe is None):
        raise typer.BadParameter("give --source, an entry, or --recipe, whose entry --entry names")
    settings = _entry(source, recipe, entry, overrides or ())
    outputs = Outputs(force=force, inputs=source_files([settings]))
    result = shard_source(open_source(settings), out.absolute(), outputs, per_shard=per_shard, workers=workers)
    for sample, reason in result.bad:
        say(f"packed as it is, and bad where it is used: {sample}: {reason}")
    kept = f", {result.kept} of them from before" if result.kept else ""
    bad = f"; {len(result.bad)} cannot be read" if result.bad else ""
    show(one_line(f"{out}: {result.samples:,} samples in {result.shards:,} shards{kept}{bad}"))
    named = ", ".join(f"{name}: {_quoted(value)}" for name, value in result.entry.items())
    show(one_line(f"entry of a recipe: {{{named}}}"))


def _quoted(value: str) -> str:
    """A value in YAML, in quotes where it needs them."""
    is_plain = value.replace("/", "").replace("_", "").replace("-", "").replace(".", "").isalnum()
    return value if is_plain else "'" + value.replace("'", "''") + "'"


def _entry(source: str | None, recipe: str | None, number: int, overrides: Sequence[str]) -> "SourceSettings":
    from fiber_cli.config.resolve import resolve_recipe, resolve_source

    if source is not None:
        if overrides:
            raise typer.BadParameter(f"{overrides[0]}: settings are put over a --recipe, not over --source")
        return resolve_source(source)
    assert recipe is not None, "one of the two is given"
    train = resolve_recipe(recipe, overrides).data.train
    if number >= len(train):
        raise UserError(f"--entry {number}: {recipe} has {len(train)} entries of data.train, counted from 0")
    return train[number]


def dedup(
    overrides: Overrides = None,
    *,
    recipe: Annotated[str, typer.Option(help="The recipe whose data.train is gone through.")],
    out: Annotated[Path, typer.Option(help="Folder for the lists, the report and the recipe that uses them.")],
    against: Annotated[
        str | None,
        typer.Option(help="Data sets, by commas, whose validation and test splits are held out.  [default: all there]"),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where those lie.  [default: the recipe's data.root]")] = None,
    by: Annotated[
        Literal["both", "name", "hash"], typer.Option(help="By the pictures' names, by image hashes, or by both.")
    ] = "both",
    distance: Annotated[int, typer.Option(min=0, max=16, help="Bits of 64 in which hashes of copies may differ.")] = 4,
    force: Force = False,
) -> None:
    """Find what pre-training would see of validation and test sets, and write a recipe that leaves it out."""
    from fiber_cli.cli.deduplication import Request, write_dedup

    request = Request(recipe, tuple(overrides or ()), _names(against), root, by, distance)
    for line in write_dedup(request, out, force=force):
        show(one_line(line))


def _names(listed: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())
