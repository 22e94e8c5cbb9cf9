"""Which of the shipped checkpoints does what is wanted, and when they are offered: never taken for a run."""

import pytest
from run_folders import COCO_CAPTIONS, SCENES, make_run
from shipped_checkpoints import ship, ship_likely

from fiber_cli.checkpoints.runs import Wanted, choose_run, choose_shipped, shipped_with
from fiber_cli.data.sources import source_format
from fiber_cli.errors import UserError
from fiber_cli.tasks import TASKS, tasks_with
from fiber_cli.tasks.abilities import Ability, Answering, Captioning, Detecting, Embedding, Matching

NAMES = {
    Embedding: "retrieval",
    Matching: "retrieval",
    Answering: "vqa",
    Captioning: "caption",
    Detecting: "detection",
}


def wanted(ability: type[Ability], **more) -> Wanted:
    return Wanted("the purpose", tasks_with(ability), ability, **more)


@pytest.mark.parametrize("ability", NAMES)
def test_the_one_with_the_ability_is_taken(ships, ability):
    ship_likely(ships)
    assert choose_shipped(wanted(ability)) == ships / NAMES[ability]
    assert shipped_with(ability) == [f"builtin/{NAMES[ability]}"]


@pytest.mark.parametrize("ability", NAMES)
def test_without_one_what_there_is_is_listed(ships, ability):
    with pytest.raises(UserError, match="this fiber ships no checkpoints"):
        choose_shipped(wanted(ability))
    ship(ships, "statements", "nlvr2")
    ship(ships, "itm", "retrieval", itc=0.0, itm=0.0)
    with pytest.raises(UserError, match="no shipped checkpoint is for the purpose") as caught:
        choose_shipped(wanted(ability))
    assert "builtin/statements is a checkpoint of nlvr2" in caught.value.details
    assert any("builtin/itm is a checkpoint of retrieval" in line for line in caught.value.details)


def test_what_is_to_be_found_decides_between_detectors(ships):
    ship(ships, "detection", "detection", labels=("red star", "blue ring"))
    ship(ships, "expressions", "refexp", labels=("moon",))
    tasks = tasks_with(Detecting)
    names = Wanted("names", tasks, Detecting, labels=frozenset({"red star"}), texts=frozenset({"names"}))
    expressions = Wanted("expressions", tasks, Detecting, texts=frozenset({"expressions"}))
    assert choose_shipped(names) == ships / "detection"
    assert choose_shipped(expressions) == ships / "expressions"


def test_of_two_that_are_as_good_none_is_taken_silently(ships):
    ship(ships, "one", "vqa")
    ship(ships, "two", "vqa")
    with pytest.raises(
        UserError, match=r"for the purpose there are builtin/one, builtin/two; name one .* --checkpoint"
    ):
        choose_shipped(wanted(Answering))
    with pytest.raises(UserError, match=r"or try --checkpoint builtin/one or builtin/two, trained on"):
        choose_run(wanted(Answering))


def test_a_damaged_one_is_left_out_and_told(ships):
    ship_likely(ships)
    (ships / "vqa" / "model.safetensors").write_bytes(b"\x00" * 9)
    with pytest.raises(UserError) as caught:
        choose_shipped(wanted(Answering))
    assert any("vqa/model.safetensors cannot be read" in line for line in caught.value.details)
    assert choose_shipped(wanted(Captioning)) == ships / "caption"


@pytest.mark.parametrize("ability", NAMES)
def test_without_runs_one_is_offered_at_the_end_and_not_taken(ships, tmp_path, ability):
    offer = "or try --checkpoint builtin, trained on drawn scenes only (`fiber scenes` writes some)"
    with pytest.raises(UserError) as caught:
        choose_run(wanted(ability), tmp_path / "runs")
    assert "builtin" not in str(caught.value)
    ship_likely(ships)
    with pytest.raises(UserError) as caught:
        choose_run(wanted(ability), tmp_path / "runs")
    assert str(caught.value).endswith(offer)
    make_run(tmp_path, "nlvr2", SCENES)
    with pytest.raises(UserError) as caught:
        choose_run(wanted(ability, option="--itm-checkpoint"), tmp_path / "runs")
    assert str(caught.value).endswith(offer.replace("--checkpoint", "--itm-checkpoint"))
    assert "nlvr20 is a run of nlvr2" in str(caught.value)


def test_a_run_comes_before_them_whatever_it_has_seen(ships, tmp_path):
    ship_likely(ships)
    run = make_run(tmp_path, "caption", COCO_CAPTIONS)
    source = source_format("scenes").settings(**SCENES)
    drawn = wanted(Captioning, dataset="scenes", sources=lambda task: [source])
    assert choose_run(drawn, tmp_path / "runs").run.folder == run


def test_they_are_offered_for_no_task_that_they_are_not_of(ships, tmp_path):
    ship_likely(ships)
    ability = None
    for task in TASKS.keys() - {"caption", "fine", "nlvr2", "coarse", "vqa"}:
        with pytest.raises(UserError) as caught:
            choose_run(Wanted("the purpose", (task,), ability), tmp_path / "runs")
        assert "builtin" not in str(caught.value)
