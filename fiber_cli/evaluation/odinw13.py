"""ODinW-13: its sets, their names and prompts, and where their files lie in the published archive.

Folders are those of GLIP's archive, below its `odinw/`. The prompts are GLIP's; they are optional.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fiber_cli.data.object_source import COPIES
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.errors import UserError
from fiber_cli.evaluation.few_shot import FewShotSet, drawn_from_files

#: The folder of the archive in the recipes' layout.
ARCHIVE = "odinw"
SPLITS = ("test", "valid")
#: Shots and seeds of the published few-shot files.
SHOTS = tuple(COPIES)
SEEDS = (3, 30, 300)

PromptTexts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class OdinwSet:
    """folder: below the archive's. names: of its categories. prompts: published, name → {name, prefix, suffix}.

    one_folder: the pictures of all splits lie together, and the annotations of a split have its name before theirs.
    """

    name: str
    folder: str
    names: tuple[str, ...]
    prompts: PromptTexts = field(default_factory=dict)
    one_folder: bool = False

    def pictures(self, split: str) -> Path:
        """The folder of a split's pictures, below the archive's."""
        return Path(self.folder) if self.one_folder else Path(self.folder, split)

    def annotations(self, split: str) -> Path:
        """The file of a split's boxes, below the archive's folder; split: train, valid or test."""
        file = "annotations_without_background.json"
        if self.one_folder:
            file = f"{'val' if split == 'valid' else split}_{file}"
        return self.pictures(split) / file

    def few_shot_annotations(self, shots: int, seed: int) -> Path:
        """The published draw of so many shots, below the archive's folder."""
        return self.pictures("train") / f"fewshot_train_shot{shots}_seed{seed}.json"


_VOC_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_AQUARIUM_PROMPTS = {
    "penguin": {"suffix": ", which is black and white"},
    "puffin": {"suffix": " with orange beaks"},
    "stingray": {"suffix": " which is flat and round"},
}
_MUSHROOM_PROMPTS = {"CoW": {"name": "flat mushroom"}, "chanterelle": {"name": "yellow mushroom"}}

SETS = (
    OdinwSet("AerialMaritimeDrone", "AerialMaritimeDrone/large", ("boat", "car", "dock", "jetski", "lift")),
    OdinwSet(
        "Aquarium",
        "Aquarium/Aquarium Combined.v2-raw-1024.coco",
        ("fish", "jellyfish", "penguin", "puffin", "shark", "starfish", "stingray"),
        _AQUARIUM_PROMPTS,
    ),
    OdinwSet(
        "CottontailRabbits",
        "CottontailRabbits",
        ("Cottontail-Rabbit",),
        {"Cottontail-Rabbit": {"name": "rabbit"}},
    ),
    OdinwSet("EgoHands", "EgoHands/generic", ("hand",), {"hand": {"suffix": " of a person"}}),
    OdinwSet(
        "NorthAmericaMushrooms",
        "NorthAmericaMushrooms/North American Mushrooms.v1-416x416.coco",
        ("CoW", "chanterelle"),
        _MUSHROOM_PROMPTS,
    ),
    OdinwSet(
        "Packages",
        "Packages/Raw",
        ("package",),
        {"package": {"prefix": "there is a ", "suffix": " on the porch"}},
    ),
    OdinwSet("PascalVOC", "PascalVOC", _VOC_NAMES),
    OdinwSet("pistols", "pistols/export", ("pistol",), one_folder=True),
    OdinwSet(
        "pothole",
        "pothole",
        ("pothole",),
        {"pothole": {"name": "holes", "prefix": "there are some ", "suffix": " on the road"}},
    ),
    OdinwSet("Raccoon", "Raccoon/Raccoon.v2-raw.coco", ("raccoon",)),
    OdinwSet("ShellfishOpenImages", "ShellfishOpenImages/raw", ("Crab", "Lobster", "Shrimp")),
    OdinwSet("thermalDogsAndPeople", "thermalDogsAndPeople", ("dog", "person")),
    OdinwSet("VehiclesOpenImages", "VehiclesOpenImages/416x416", ("Ambulance", "Bus", "Car", "Motorcycle", "Truck")),
)


class OdinwArchive(NamedTuple):
    """folder: the archive's. present: the sets that are there, missing: the names of those that are not."""

    folder: Path
    present: list[OdinwSet]
    missing: list[str]

    def source(self, odinw_set: OdinwSet, split: str, *, published_prompts: bool) -> CocoSettings:
        """A split of a set as an entry of a recipe."""
        return CocoSettings(
            kind="coco",
            name=odinw_set.name,
            json=str(self.folder / odinw_set.annotations(split)),
            images=str(self.folder / odinw_set.pictures(split)),
            prompts=dict(odinw_set.prompts) if published_prompts else {},
        )

    def few_shot_set(self, odinw_set: OdinwSet, *, published_prompts: bool) -> FewShotSet:
        """A set with the published draws of few shots, each picture as often as the published command repeats it."""
        train, valid, test = (
            self.source(odinw_set, split, published_prompts=published_prompts) for split in ("train", "valid", "test")
        )

        def file_of(shots: int, seed: int) -> Path:
            return self.folder / odinw_set.few_shot_annotations(shots, seed)

        return FewShotSet(odinw_set.name, train, valid, test, drawn_from_files(train, file_of))


def find_archive(root: Path, splits: Collection[str]) -> OdinwArchive:
    """The archive in `root` or in its folder `odinw`; a set is there where the annotations of these splits are.

    Raises UserError where none is.
    """
    for folder in (root, root / ARCHIVE):
        present = [each for each in SETS if all((folder / each.annotations(split)).is_file() for split in splits)]
        if present:
            missing = [each.name for each in SETS if each not in present]
            return OdinwArchive(folder, present, missing)
    wanted = SETS[0].annotations(next(iter(splits)))
    raise UserError(
        f"{root}: none of the 13 sets of ODinW is there; --root names the folder of the archive, in which "
        f"{wanted} lies, or the one that holds it as {ARCHIVE}/"
    )


def completeness(missing: Sequence[str]) -> str | None:
    """What the reader must know of a mean over fewer than the 13 sets; None where none is missing."""
    if not missing:
        return None
    return f"the mean is over {len(SETS) - len(missing)} of the 13 sets, without {', '.join(missing)}"
