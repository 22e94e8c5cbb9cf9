"""Commands of headers and the chain that they make."""

from pathlib import Path

import pytest

from fiber_cli.config.resolve import shipped_recipes
from fiber_cli.errors import UserError
from fiber_cli.tables import commands
from fiber_cli.tables.commands import (
    Stage,
    chain,
    evaluation_command,
    header_command,
    header_commands,
    placed,
    stage_of,
    stages,
    tuning_command,
)
from fiber_cli.tables.rows import Evaluated, Trained, Tuned


def test_a_launcher_is_taken_for_a_part_of_the_command():
    command = header_command(
        "x", "command", "torchrun --nnodes 8 -m fiber_cli pretrain coarse --recipe 4m data.root=/data"
    )
    assert command.arguments == ("pretrain", "coarse", "--recipe", "4m", "data.root=/data")
    assert command.output == "4m"
    assert header_command("x", "all", "fiber odinw --shots 0").output == "odinw13"
    assert header_command("x", "a", "fiber finetune vqa --recipe a --output runs/b").output == "b"


def test_commands_of_a_header_are_not_in_their_order():
    parts = [command.part for command in header_commands("vqav2")]
    assert parts == ["prepare", "command", "evaluate", "evaluate", *["fusion_on_top"] * 3]
    assert [command.verb for command in header_commands("odinw")] == ["finetune", "eval", "odinw", "odinw"]


def test_folders_are_not_put_in_place():
    words = ["--root", "/data", "data.root=/data", "/data/odinw/A B/x.json", "runs/4m", "/database", "my/runs/4m"]
    wanted = ["--root", "/d", "data.root=/d", "/d/odinw/A B/x.json", "/r/4m", "/database", "my/runs/4m"]
    assert placed(words, Path("/d"), Path("/r")) == wanted


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ("4m", ["4m"]),
        ("flickr30k_itm", ["4m", "coco_itm", "flickr30k_itm"]),
        ("caption_cider", ["4m", "caption_mle", "caption_gold", "caption_cider"]),
        ("lvis", ["4m", "fine", "lvis"]),
        ("fine_no_coarse", ["fine_no_coarse"]),
    ],
)
def test_a_chain_is_not_that_of_the_headers(run, wanted):
    assert [stage.run for stage in chain(run)] == wanted


def test_every_header_of_a_recipe_is_read():
    """Also those of recipes that no table has."""
    for recipe in shipped_recipes():
        assert any(stage.recipe == recipe for stage in stages().values())


def test_a_chain_without_a_beginning_or_an_end_goes_on(monkeypatch):
    def stage(run: str, start: str) -> Stage:
        return Stage(run, run, start, header_command(run, "command", "fiber pretrain coarse"), ())

    monkeypatch.setattr(commands, "stages", lambda: {"a": stage("a", "b"), "b": stage("b", "a"), "c": stage("c", "x")})
    with pytest.raises(UserError, match="start runs/a from itself"):
        chain("a")
    with pytest.raises(UserError, match="no recipe's header makes runs/x"):
        chain("c")


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (Evaluated("vqav2", "vqav2", "test"), "fiber eval vqav2 --split test --root /data --checkpoint runs/vqav2"),
        (Evaluated("fine", "coco", "val"), "fiber eval coco --root /data --checkpoint runs/fine --split val"),
        (
            Evaluated("refcocog", "refcocog", "val"),
            "fiber eval refcocog --split val --root /data --checkpoint runs/refcocog",
        ),
        (
            Evaluated("coco_itm", "coco", "test", "rerank"),
            "fiber rerank coco --root /data --checkpoint runs/coco_itc --itm-checkpoint runs/coco_itm "
            "--top-k 10,20,50,100 --split test",
        ),
        (
            Evaluated("caption_mle", "nocaps", "test"),
            "fiber eval nocaps --root /data --checkpoint runs/caption_mle --split test",
        ),
    ],
)
def test_a_figure_is_measured_by_another_command(source, wanted):
    command = evaluation_command(source)
    assert command is not None
    assert command.written == wanted


def test_alone_and_together_are_mixed_up():
    alone = evaluation_command(Evaluated("coco_itm", "coco", "test", "itm"))
    both = evaluation_command(Evaluated("coco_itm", "coco", "test", "itc+itm"))
    assert alone is not None
    assert both is not None
    assert (alone.run("--checkpoint"), alone.run("--itm-checkpoint")) == ("coco_itm", None)
    assert (both.run("--checkpoint"), both.run("--itm-checkpoint")) == ("coco_itc", "coco_itm")


def test_a_run_that_no_header_makes_has_a_command(monkeypatch):
    assert evaluation_command(Evaluated("no_such_recipe", "coco", "val")) is None
    assert stage_of(Evaluated("coco_itc", "coco", "test", starts_from="no_such_run")) is None
    assert tuning_command(Tuned("4m", 0)) is None


@pytest.mark.parametrize("recipe", ["coco_detection", "lvis"])
def test_a_second_start_is_taken_for_the_first(recipe):
    stage = stage_of(Trained(recipe, "fine_no_coarse"))
    assert stage is not None
    assert stage.run == f"{recipe}_no_coarse"
    assert [link.run for link in chain(stage.run)] == ["fine_no_coarse", stage.run]
    of_sets = tuning_command(Tuned("odinw", 0, "fine_no_coarse"))
    assert of_sets is not None
    assert of_sets.output == "odinw13_no_coarse"


def test_a_second_start_is_measured_otherwise_than_the_first(monkeypatch):
    """Where the header has no evaluation of its own for it."""
    written = "fiber finetune refexp --recipe refcocog --init-from runs/fine_no_coarse --output runs/refcocog_x"
    other = header_command("refcocog", "other", written)
    known = {**stages(), "refcocog_x": Stage("refcocog", "refcocog_x", "fine_no_coarse", other, ())}
    monkeypatch.setattr(commands, "stages", lambda: known)
    of_first = stage_of(Evaluated("refcocog", "refcocog", "val"))
    assert of_first == stages()["refcocog"]
    command = evaluation_command(Evaluated("refcocog", "refcocog", "test", starts_from="fine_no_coarse"))
    assert command is not None
    assert command.run("--checkpoint") == "refcocog_x"
    assert command.option("--split") == "test"
