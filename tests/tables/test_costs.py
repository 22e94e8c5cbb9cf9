"""What trainings cost."""

import pytest

from fiber_cli.config.resolve import resolve_recipe, shipped_recipes
from fiber_cli.tables.commands import chain
from fiber_cli.tables.costs import SIZES, Cost, evaluation_cost, total, training_cost
from fiber_cli.tables.departures import runs_behind
from fiber_cli.tables.paper import TABLES
from fiber_cli.training.samples import length_of

RECIPES = sorted({stage.recipe for table in TABLES.values() for run in runs_behind(table) for stage in chain(run)})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_of_a_table_has_no_cost(recipe):
    assert (training_cost(recipe).gpu_hours or 0) > 0


def test_costs_do_not_follow_the_paper():
    assert training_cost("coco_scratch") == Cost(540, "V100", "the paper's")
    # Table 2's recipe from other weights, with as many images.
    assert training_cost("coco_detection").gpu_hours == pytest.approx(540, rel=0.001)
    # 800,000 steps of 64.
    assert training_cost("fine").gpu_hours == pytest.approx(540 * 51.2e6 / (24 * 117_266), rel=0.001)
    assert training_cost("tiny").gpu_hours is None


@pytest.mark.parametrize("recipe", [name for name in SIZES if name in shipped_recipes()])
def test_a_cost_is_of_other_samples_than_fiber_plan_tells(recipe):
    """As far as their number is published."""
    length = length_of(resolve_recipe(recipe, ["data.root=/nowhere"]))
    size = SIZES[recipe]
    if length.samples is None or size.samples is None:
        return
    settings = resolve_recipe(recipe)
    batch, epochs = settings.runtime.global_batch, settings.optim.epochs
    # Table 2's hours are of COCO's pictures with boxes.
    assert size.samples // batch * epochs == pytest.approx(length.steps, rel=0.01)


def test_fusion_on_top_costs_what_the_recipe_does():
    """In pre-training less, as the towers go once over a batch whose pairs are fused three times; in VQA more."""
    pretrained, top = training_cost("4m", "4m").gpu_hours, training_cost("4m", "4m_top").gpu_hours
    assert top is not None
    assert pretrained is not None
    assert top < pretrained
    assert (training_cost("vqav2", "vqav2_top").gpu_hours or 0) > (training_cost("vqav2", "vqav2").gpu_hours or 0)


def test_costs_of_different_gpus_are_added():
    costs = [Cost(1, "A100", "estimate"), Cost(2, "V100", "the paper's"), Cost(3, "A100", "estimate"), Cost(None)]
    assert total(costs) == [Cost(4, "A100", "estimate"), Cost(2, "V100", "the paper's"), Cost(None)]
    assert [str(cost) for cost in total(costs)] == ["4 A100-hours (estimate)", "2 V100-hours (the paper's)", "unknown"]


def test_all_pairs_cost_nothing():
    assert (evaluation_cost("coco", "itc+itm").gpu_hours or 0) > 1 > (evaluation_cost("coco", "itc").gpu_hours or 0)
