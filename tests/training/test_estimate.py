"""What a training is estimated to take, against the counts of a dry run of the same recipe."""

import pytest
from small_runs import RECIPE

from fiber_cli.config.resolve import parse_recipe, resolve_recipe
from fiber_cli.tasks import declarations
from fiber_cli.training.estimate import VQAV2_ANSWERS, estimate
from fiber_cli.training.plan import dry_run

TINY = ("model.preset=tiny", "model.swin=null", "model.roberta=null", "model.tokenizer=builtin")
#: Each task by a shipped recipe.
RECIPES = {
    "coarse": "tiny",
    "fine": "tiny_fine",
    "vqa": "tiny_vqa",
    "vqa_generated": "tiny_vqa_generated",
    "nlvr2": "tiny_nlvr2",
    "caption": "tiny_caption",
    "retrieval": "tiny_retrieval",
    "detection": "tiny_detection",
    "grounding": "tiny_grounding",
    "refexp": "tiny_refexp",
}


def test_a_task_is_not_estimated():
    assert RECIPES.keys() == {declaration.name for declaration in declarations()}


@pytest.mark.parametrize("name", RECIPES)
def test_every_task_is_estimated_with_the_parameters_of_its_dry_run(name, capsys, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    changes = ["runtime={micro_batch: 2, global_batch: 2}", "data.workers=0"]
    if "fine" in RECIPES[name] or name in ("detection", "grounding", "refexp"):
        changes += ["task.short_sides=[64]", "task.channels=32", "task.blocks=1"]
    recipe = resolve_recipe(RECIPES[name], changes)
    estimated = estimate(recipe)
    dry_run(recipe)
    counts = "  ".join(f"{part} {count:,}" for part, count in estimated.parameters.items())
    assert f"parameters:  {counts}\n" in capsys.readouterr().out
    assert estimated.passes.operations > 0
    assert estimated.passes.activations > 0


def test_larger_micro_batches_take_more_memory_and_as_many_operations_a_sample():
    few, more = (estimate(parse_recipe(RECIPE, "small", [f"runtime.micro_batch={count}"])) for count in (2, 8))
    assert 2 * few.passes.activations < more.passes.activations < 4.5 * few.passes.activations
    # Beside the drawing of negatives.
    assert more.passes.operations == pytest.approx(few.passes.operations, rel=0.1)


def test_what_is_computed_again_saves_memory_and_takes_operations():
    kept, again = (
        estimate(parse_recipe(RECIPE, "small", [f"runtime.activation_checkpointing={value}"]))
        for value in ("false", "true")
    )
    assert again.passes.activations < kept.passes.activations
    assert again.passes.operations > kept.passes.operations


@pytest.mark.parametrize("name", ["vqa_small", "vqav2"])
def test_answers_that_are_not_there_are_as_many_as_vqav2_s(name, tmp_path):
    overrides = [*TINY, "model.image_size=64", "runtime={micro_batch: 2, global_batch: 2}", f"data.root={tmp_path}"]
    estimated = estimate(resolve_recipe(name, overrides))
    assert any(f"answers: {VQAV2_ANSWERS:,}" in note for note in estimated.notes)
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa/answers.json").write_text('["yes", "no"]')
    with_answers = estimate(resolve_recipe(name, overrides))
    assert with_answers.notes == ()
    assert with_answers.parameters["heads"] < estimated.parameters["heads"]


def test_pictures_of_detection_are_photographs_of_the_recipe_s_sizes():
    def detection(sides: str):
        changes = [*TINY, "model.text_length=104", "runtime={micro_batch: 1, global_batch: 1}"]
        changes += ["task.channels=32", "task.blocks=1", f"task.short_sides={sides}", "task.longest_side=200"]
        return estimate(resolve_recipe("detection_small", changes))

    one, several = detection("[96]"), detection("[48, 96]")
    assert several.passes.activations == one.passes.activations
    assert several.passes.operations == pytest.approx(0.625 * one.passes.operations)
    assert any("a mean over 48, 96" in note for note in several.notes)


def test_a_reward_is_said_to_be_left_out():
    estimated = estimate(resolve_recipe("caption_cider", [*TINY, "model.image_size=64", "runtime.micro_batch=2"]))
    assert any("task.objective=cider: counted as mle" in note for note in estimated.notes)
