"""The files that trainings and evaluations read: which of them are there, under the names that they are published by.

Looked at are annotations, folders of pictures and shards, not each picture.
"""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fiber_cli.config.recipe import Recipe
from fiber_cli.data.shard_paths import find_shards
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSettings
from fiber_cli.data.sources.karpathy import KarpathySettings
from fiber_cli.data.sources.region_shards import RegionShardsSettings
from fiber_cli.data.sources.visual_genome import VisualGenomeSettings
from fiber_cli.data.sources.webdataset import WebDatasetSettings
from fiber_cli.errors import UserError, first_names
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.evaluation.odinw13 import SEEDS, SETS, OdinwArchive, find_archive
from fiber_cli.settings import SourceSettings, path_settings, paths_in
from fiber_cli.tables.commands import HeaderCommand, placed

#: Metrics that pycocoevalcap's Java programs compute, and the one that needs more than Java.
JAVA_METRICS = frozenset({"caption/bleu4", "caption/meteor", "caption/cider", "caption/spice"})
SPICE = "caption/spice"
_SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
#: Annotations of LVIS → folders of COCO that their pictures lie in.
LVIS_IMAGES = {
    "lvis_v1_train.json": ("train2017",),
    "lvis_v1_val.json": ("train2017", "val2017"),
    "lvis_v1_minival_inserted_image_name.json": ("val2017",),
}


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
    there = []
    missing = []
    for source in (*recipe.data.train, *recipe.data.val):
        for path in _paths(source):
            name = _shown(path, data)
            if _is_there(path, is_of_shards=isinstance(source, WebDatasetSettings | RegionShardsSettings)):
                there.append(name)
            else:
                missing.append(name)
    return Files(tuple(dict.fromkeys(there)), tuple(dict.fromkeys(missing)))


def _paths(source: SourceSettings) -> Iterator[str]:
    """Files and folders of an entry of a recipe."""
    for name in path_settings(type(source)):
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


def _is_there(path: str, *, is_of_shards: bool) -> bool:
    """Whether it is a file, a folder with something in it, or a pattern or a folder of shards that names some."""
    if os.path.isfile(path):
        return True
    if os.path.isdir(path) and not is_of_shards:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    try:
        return bool(find_shards(path))
    except UserError:
        return False


def _shown(path: str, data: Path) -> str:
    """A path below the folder of the data sets as seen from there."""
    below = os.path.relpath(path, data)
    return path if below.startswith("..") else below


def evaluation_files(command: HeaderCommand, task: str, data: Path, runs: Path) -> Files:
    """What a command of `fiber eval` or `fiber rerank` reads."""
    arguments = placed(command.arguments, data, runs)
    placed_command = command._replace(arguments=tuple(arguments))
    root, images = placed_command.option("--root"), placed_command.option("--images")
    try:
        found = eval_data(
            command.dataset,
            task,
            command.option("--split"),
            Path(root) if root else None,
            images=Path(images) if images else None,
            published_prompts="--published-prompts" in arguments,
        )
    except UserError as error:
        return Files(missing=(str(error).replace(f"{data}{os.sep}", ""),))
    there = []
    for source in found.sources:
        there += [_shown(path, data) for path in _paths(source)]
    missing_sets = found.details.get("missing_sets")
    partial = None
    if missing_sets:
        partial = f"{len(SETS) - len(missing_sets)} of {len(SETS)} sets, without {first_names(missing_sets)}"
    return Files(tuple(dict.fromkeys(there)), (), partial)


class Draws(NamedTuple):
    """The fine-tunings of ODinW that can be made. files: what they read; seeds: of the draws that all sets which are
    there have; none of all data."""

    files: Files
    seeds: tuple[int, ...]


def tuning_files(data: Path, shots: int) -> Draws:
    """What `fiber odinw` reads to fine-tune with so many shots; 0 is all data."""
    try:
        archive = find_archive(data, ("train", "valid", "test"))
    except UserError as error:
        return Draws(Files(missing=(str(error),)), ())
    there = []
    for each in archive.present:
        for split in ("train", "valid", "test"):
            there.append(_shown(str(archive.folder / each.annotations(split)), data))
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
