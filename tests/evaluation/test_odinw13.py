"""ODinW-13: the table of its sets, and the archive as it is published."""

from pathlib import Path

import pytest

from fiber_cli.errors import UserError
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.evaluation.odinw13 import SETS, find_archive
from fiber_cli.tasks.regions.prompts import build_prompt, prompt_names

SET = {each.name: each for each in SETS}


def archive(folder: Path, names=tuple(SET), splits=("train", "valid", "test")) -> None:
    """Empty annotations of sets."""
    for name in names:
        for split in splits:
            file = folder / SET[name].annotations(split)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def test_the_thirteen_sets_are_not_those_of_the_paper():
    assert len(SET) == len(SETS) == 13
    assert len(SET["PascalVOC"].names) == 20
    assert SET["Aquarium"].annotations("valid") == Path(
        "Aquarium/Aquarium Combined.v2-raw-1024.coco/valid/annotations_without_background.json"
    )


def test_pistols_lie_in_folders_by_split():
    pistols = SET["pistols"]
    names = [pistols.annotations(split).name for split in ("train", "valid", "test")]
    assert names == [f"{split}_annotations_without_background.json" for split in ("train", "val", "test")]
    assert {pistols.pictures(split) for split in ("train", "valid", "test")} == {Path("pistols/export")}
    assert pistols.few_shot_annotations(5, 300) == Path("pistols/export/fewshot_train_shot5_seed300.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CottontailRabbits", "rabbit"),
        ("EgoHands", "hand of a person"),
        ("NorthAmericaMushrooms", "flat mushroom. yellow mushroom"),
        ("Packages", "there is a package on the porch"),
        ("pothole", "there are some holes on the road"),
        (
            "Aquarium",
            "fish. jellyfish. penguin, which is black and white. puffin with orange beaks. shark. starfish. "
            "stingray which is flat and round",
        ),
    ],
)
def test_published_prompts_read_otherwise(name, text):
    assert build_prompt(prompt_names(SET[name].names, SET[name].prompts)).text == text


def test_sets_without_published_prompts_have_some():
    plain = {"AerialMaritimeDrone", "PascalVOC", "pistols", "Raccoon", "ShellfishOpenImages", "thermalDogsAndPeople"}
    assert {each.name for each in SETS if not each.prompts} == {*plain, "VehiclesOpenImages"}


@pytest.mark.parametrize("below", ["", "odinw"])
def test_the_archive_is_not_found(tmp_path, below):
    archive(tmp_path / below)
    data = eval_data("odinw13", "detection", None, tmp_path)
    assert (data.name, data.split, len(data.sources)) == ("odinw13", "test", 13)
    assert [source.name for source in data.sources] == list(SET)
    for source in data.sources:
        assert Path(source.json).is_file()
        assert Path(source.images) == Path(source.json).parent
        assert source.prompts == {}
    assert data.notes == ("prompts: the names alone",)
    assert data.details == {"prompts": "names", "missing_sets": []}


def test_results_do_not_say_which_prompts_and_split(tmp_path):
    archive(tmp_path)
    data = eval_data("odinw13", "detection", "valid", tmp_path, published_prompts=True)
    assert data.split == "valid"
    assert data.variant == "published-prompts"
    assert data.notes == ("prompts: as published",)
    assert data.details["prompts"] == "published"
    of_set = {source.name: source for source in data.sources}
    assert of_set["pistols"].json.endswith("pistols/export/val_annotations_without_background.json")
    assert of_set["EgoHands"].prompts == {"hand": {"suffix": " of a person"}}


def test_a_mean_over_fewer_sets_has_the_name_of_thirteen(tmp_path):
    archive(tmp_path, ("Raccoon", "pothole"))
    archive(tmp_path, ("Packages",), splits=("train", "valid"))
    data = eval_data("odinw13", "detection", root=tmp_path)
    assert data.name == "odinw13-2-of-13"
    assert "the mean is over 2 of the 13 sets, without AerialMaritimeDrone" in data.notes[1]
    assert "Packages" in data.details["missing_sets"]
    assert len(find_archive(tmp_path, ("train", "valid")).present) == 3


def test_an_empty_folder_is_evaluated(tmp_path):
    with pytest.raises(UserError, match="none of the 13 sets of ODinW is there; --root names the folder"):
        eval_data("odinw13", "detection", root=tmp_path)


def test_few_shots_come_as_often_as_published(tmp_path):
    archive(tmp_path)
    found = find_archive(tmp_path, ("train",))
    for shots, copies in ((1, 8), (3, 4), (5, 2), (10, 1)):
        drawn = found.few_shot_set(SET["Raccoon"], published_prompts=False).draw(shots, 3)
        assert drawn.copies == copies
        assert drawn.shots is None
        assert drawn.json == str(tmp_path / SET["Raccoon"].few_shot_annotations(shots, 3))


def test_a_list_of_ones_own_is_passed_over(tmp_path):
    archive(tmp_path)
    (tmp_path / "odinw13.yaml").write_text("[{name: a, json: a.json, images: a}, {name: b, json: b.json, images: b}]")
    assert [source.name for source in eval_data("odinw13", "detection", None, tmp_path).sources] == ["a", "b"]
    with pytest.raises(UserError, match="names its files and prompts itself"):
        eval_data("odinw13", "detection", "valid", tmp_path)
