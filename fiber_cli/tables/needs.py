"""The files that trainings and evaluations read: which of them are there, under the names that they are published by.

Looked at are annotations, folders of pictures and shards, not each picture; of a file its size, and of JSON its first
and its last bytes, by which one that was cut is known.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fiber_cli.config.recipe import Recipe
from fiber_cli.data.catalogue import catalogue
from fiber_cli.data.exclude_files import matched_files
from fiber_cli.data.shard_paths import find_shards
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSettings
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.data.sources.region_shards import RegionShardsSettings
from fiber_cli.data.sources.visual_genome import VisualGenomeSettings
from fiber_cli.data.sources.webdataset import WebDatasetSettings
from fiber_cli.errors import UserError, first_names
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.evaluation.known import MissingData
from fiber_cli.evaluation.odinw13 import ARCHIVE, SEEDS, SETS, OdinwArchive, find_archive
from fiber_cli.settings import SourceSettings, paths_in
from fiber_cli.tables.commands import HeaderCommand, placed

#: Metrics that pycocoevalcap's Java programs compute, and the one that needs more than Java.
JAVA_METRICS = frozenset({"caption/bleu4", "caption/meteor", "caption/cider", "caption/spice"})
SPICE = "caption/spice"
#: The 13 sets as `fiber eval` knows them.
ODINW = "odinw13"
_SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
#: Annotations of LVIS → folders of COCO that their pictures lie in.
LVIS_IMAGES = {
    "lvis_v1_train.json": ("train2017",),
    "lvis_v1_val.json": ("train2017", "val2017"),
    "lvis_v1_minival_inserted_image_name.json": ("val2017",),
}
#: Of a file of JSON, or of JSON lines: how it begins → how it ends. So many bytes of the end are read.
_JSON = (".json", ".jsonl")
_ENDS = {b"{": b"}", b"[": b"]"}
_END_BYTES = 64
#: Between and around JSON's values; bytes of UTF-16 and marks of byte order too.
_NOT_JSON = b" \t\r\n\0\xff\xfe\xef\xbb\xbf"


class Files(NamedTuple):
    """there, missing: names below the folder of the data sets, or what is wrong in words. partial: which part of the
    data is there, where not all and a figure of that part can still be had."""

    there: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    partial: str | None = None

    def __add__(self, other: "Files") -> "Files":  # type: ignore[override]
        there = dict.fromkeys(self.there + other.there)
        missing = dict.fromkeys(self.missing + other.missing)
        return Files(tuple(there), tuple(missing), self.partial or other.partial)


def training_files(recipe: Recipe, data: Path) -> Files:
    """What a recipe's training and its validation read."""
    return _files_of((*recipe.data.train, *recipe.data.val), data)


def _files_of(sources: Iterable[SourceSettings], data: Path) -> Files:
    """What the sources read, and what of it is not there or not whole."""
    there = []
    missing = []
    for source in sources:
        is_of_shards = isinstance(source, WebDatasetSettings | RegionShardsSettings)
        for path in _paths(source):
            problem = _problem(path, is_of_shards=is_of_shards)
            if problem is None:
                there.append(_shown(path, data))
            else:
                missing.append(_shown(path, data) + problem)
    return Files(tuple(dict.fromkeys(there)), tuple(dict.fromkeys(missing)))


def _paths(source: SourceSettings) -> Iterator[str]:
    """Files and folders of an entry of a recipe, those of `exclude` first."""
    for pattern, matches in matched_files(source.exclude):
        yield from matches or [pattern]
    for name in source.path_names():
        yield from paths_in(vars(source)[name])
    yield from _known_parts(source)


def _known_parts(source: SourceSettings) -> Iterator[str]:
    """Files and folders below those of an entry, of formats that have them."""
    if isinstance(source, KarpathySettings) and os.path.basename(source.json) == "dataset_coco.json":
        if "train" in source.split:
            yield os.path.join(source.images, "train2014")
        yield os.path.join(source.images, "val2014")
    if isinstance(source, CocoSettings) and os.path.basename(source.json) in LVIS_IMAGES:
        for folder in LVIS_IMAGES[os.path.basename(source.json)]:
            yield os.path.join(source.images, folder)
    if isinstance(source, VisualGenomeSettings):
        yield os.path.join(source.images, "VG_100K")
        yield os.path.join(source.images, "VG_100K_2")
    if isinstance(source, FlickrEntitiesSettings):
        for name in ("Sentences", "Annotations", f"{source.split}.txt"):
            yield os.path.join(source.folder, name)


def _problem(path: str, *, is_of_shards: bool) -> str | None:
    """None for a file that is whole, a folder with something in it, and a pattern or a folder of shards that names
    some; else what is wrong in brackets, behind the name, and nothing of what is not there."""
    if os.path.isdir(path) and not is_of_shards:
        with os.scandir(path) as entries:
            return None if next(entries, None) is not None else ""
    if os.path.isfile(path):
        return _problem_of_file(path)
    try:
        shards = find_shards(path)
    except UserError:
        return ""
    empty = [shard for shard in shards if not os.path.getsize(shard)]
    return f" (empty: {first_names(empty)})" if empty else None


def _problem_of_file(path: str) -> str | None:
    if not os.path.getsize(path):
        return " (empty)"
    if not path.endswith(_JSON):
        return None
    with open(path, "rb") as file:
        first = file.read(_END_BYTES).lstrip(_NOT_JSON)[:1]
        file.seek(max(0, os.path.getsize(path) - _END_BYTES))
        last = file.read().rstrip(_NOT_JSON)[-1:]
    is_whole = _ENDS.get(first) == last
    return None if is_whole else " (cut off: its JSON does not end)"


def _shown(path: str, data: Path) -> str:
    """A path below the folder of the data sets as seen from there."""
    below = os.path.relpath(path, data)
    return path if below.startswith("..") else below


def evaluation_files(command: HeaderCommand, task: str, data: Path, runs: Path) -> Files:
    """What a command of `fiber eval` or `fiber rerank` reads."""
    arguments = placed(command.arguments, data, runs)
    placed_command = command._replace(arguments=tuple(arguments))
    try:
        found = eval_data(
            command.dataset,
            task,
            command.option("--split"),
            placed_command.path("--root"),
            images=placed_command.path("--images"),
            published_prompts="--published-prompts" in arguments,
        )
    except MissingData as error:
        return Files(missing=(_published_name(error.places, data),))
    except UserError as error:
        if command.dataset == ODINW:
            return Files(missing=_odinw_folders())
        return Files(missing=(str(error).replace(f"{data}{os.sep}", ""),))
    files = _files_of(found.sources, data)
    missing_sets = found.details.get("missing_sets")
    partial = None
    if missing_sets:
        partial = f"{len(SETS) - len(missing_sets)} of {len(SETS)} sets, without {first_names(missing_sets)}"
    return files._replace(partial=partial)


def _published_name(places: Sequence[str], data: Path) -> str:
    """Of the places that a file may lie in, as seen from the folder of the data sets, the one that `fiber data get`
    makes; the first where it makes none."""
    names = [_shown(place, data) for place in places]
    for name in names:
        if name in _published():
            return name
    return names[0]


@cache
def _published() -> frozenset[str]:
    """What there is of all data sets once they are fetched."""
    names: set[str] = set()
    for data_set in catalogue().values():
        for file in data_set.files:
            names.update(file.makes)
    return frozenset(names)


def _odinw_folders() -> tuple[str, ...]:
    return tuple(f"{ARCHIVE}/{each.folder}" for each in SETS)


class Draws(NamedTuple):
    """The fine-tunings of ODinW that can be made. files: what they read; seeds: of the draws that all sets which are
    there have; none of all data."""

    files: Files
    seeds: tuple[int, ...]


def tuning_files(data: Path, shots: int) -> Draws:
    """What `fiber odinw` reads to fine-tune with so many shots; 0 is all data."""
    try:
        archive = find_archive(data, ("train", "valid", "test"))
    except UserError:
        return Draws(Files(missing=_odinw_folders()), ())
    there = []
    spoilt = []
    for each in archive.present:
        for split in ("train", "valid", "test"):
            path = str(archive.folder / each.annotations(split))
            problem = _problem_of_file(path)
            if problem is None:
                there.append(_shown(path, data))
            else:
                spoilt.append(_shown(path, data) + problem)
    if spoilt:
        return Draws(Files(tuple(there), tuple(spoilt)), ())
    partial = []
    if archive.missing:
        partial.append(f"{len(archive.present)} of {len(SETS)} sets, without {first_names(archive.missing)}")
    if not shots:
        return Draws(Files(tuple(there), (), "; ".join(partial) or None), ())
    seeds = []
    missing = []
    for seed in SEEDS:
        absent = _missing_draws(archive, shots, seed)
        if absent:
            missing += [_shown(str(path), data) for path in absent]
        else:
            seeds.append(seed)
    if not seeds:
        return Draws(Files(tuple(there), tuple(missing)), ())
    if missing:
        partial.append(f"{len(seeds)} of {len(SEEDS)} draws, without {first_names(missing)}")
    return Draws(Files(tuple(there), (), "; ".join(partial) or None), tuple(seeds))


def _missing_draws(archive: OdinwArchive, shots: int, seed: int) -> list[Path]:
    """The files of a draw that are not there, of the sets that are."""
    files = [archive.folder / each.few_shot_annotations(shots, seed) for each in archive.present]
    return [file for file in files if not file.is_file()]


def hub_files(recipe: Recipe) -> tuple[str, ...]:
    """Weights and tokenisers that a training takes from the Hugging Face hub, where it does not have them yet."""
    model = recipe.model
    named = {"model.swin": model.swin, "model.roberta": model.roberta, "model.tokenizer": model.tokenizer}
    wanted = []
    for setting, name in named.items():
        if name not in (None, "builtin") and not os.path.exists(os.path.expanduser(str(name))):
            wanted.append(f"{name} ({setting})")
    return tuple(wanted)


def missing_programs(metric: str) -> str | None:
    """What is not installed of what a metric needs; None where all is."""
    if metric not in JAVA_METRICS:
        return None
    if shutil.which("java") is None:
        return "Java, which the tokeniser, METEOR and SPICE need"
    package = find_spec("pycocoevalcap")
    if metric == SPICE and package is not None:
        library = Path(str(package.origin)).parent / "spice" / "lib"
        if not all((library / name).is_file() for name in _SPICE_FILES):
            return "SPICE's CoreNLP: python -m pycocoevalcap.spice.get_stanford_models"
    return None
