"""Among how many pairs the losses compare is told, and what makes it the global batch again."""

import pytest
from small_encoder import SMALL
from toy_runs import run, summary

from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.errors import EXIT_OK
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.retrieval.task import RetrievalTask
from fiber_cli.tasks.vqa.task import VqaTask
from fiber_cli.training.comparisons import batch_line, comparison_line, pairs_compared
from fiber_cli.training.plan import dry_run

#: Overrides that make a run of a step take seconds.
QUICK = ["data.workers=0", "optim.steps=1", "optim.warmup=0", "log.validate_every=null", "log.keep_best=null"]
QUICK += ["runtime.micro_batch=2", "runtime.global_batch=6"]


@pytest.fixture(scope="module")
def task():
    return CoarseTask(SMALL)


def of_recipe(name):
    """The recipe's runtime, and a small task with its settings."""
    recipe = resolve_recipe(name, ())
    kind = {"coarse": CoarseTask, "retrieval": RetrievalTask}[recipe.task.name]
    return kind(SMALL, **owned(recipe.task, Owner.MODEL)), recipe.runtime


@pytest.mark.parametrize(
    ("name", "world", "pairs", "restored"),
    [
        ("4m", 8, 4096, None),
        ("4m", 1, 4096, None),
        ("4m", 64, 4096, None),
        ("coco_itc", 2, 1024, None),
        ("flickr30k_itm", 8, 256, "32 ranks or runtime.micro_batch=128"),
        ("tiny", 2, 128, None),
        ("tiny_retrieval", 1, 64, "2 ranks or runtime.micro_batch=128"),
    ],
)
def test_a_recipe_on_fewer_ranks_says_how_many_pairs_meet_and_how_all_do(name, world, pairs, restored):
    task, runtime = of_recipe(name)
    line = comparison_line(task, runtime, world)
    counts = pairs_compared(task, runtime, world)
    assert {counts[key] for key in counts.keys() - {"global_batch"}} == {pairs}
    assert counts["global_batch"] == runtime.global_batch
    assert f"{pairs:,} pairs" in line
    if restored is None:
        assert "the whole global batch" in line
        assert ("by cached gradients" in line) == (runtime.micro_steps(world) > 1)
    else:
        assert f"of a global batch of {runtime.global_batch:,}: for all of it use {restored}" in line


def test_a_batch_of_which_few_pairs_meet_hides_the_setting_that_makes_all_meet(task):
    runtime = RuntimeSettings(micro_batch=8, global_batch=64)
    assert "task.compare_over=global_batch compares them all as it is" in comparison_line(task, runtime, 2)
    all_meet = CoarseTask(SMALL, compare_over="global_batch")
    assert pairs_compared(all_meet, runtime, 2) == {"itc": 64, "negatives": 64, "global_batch": 64}
    line = comparison_line(all_meet, runtime, 2)
    assert line == (
        "ITC contrasts 64 pairs, ITM draws hard negatives from 64 pairs (micro_batch 8 x 2 ranks), the whole global "
        "batch, by cached gradients over 4 micro-steps"
    )


def test_a_batch_that_the_ranks_do_not_divide_is_changed_in_silence():
    asked = resolve_recipe("4m", ()).runtime
    assert batch_line(asked, asked.on_ranks(8), 8) is None
    assert batch_line(asked, asked.on_ranks(12), 12) == (
        "runtime.global_batch=4096 does not divide by micro_batch 64 x 12 ranks: a batch near it that does is taken, "
        "4104 in micro-batches of 57"
    )


def test_what_is_switched_off_is_not_spoken_of():
    line = comparison_line(*of_recipe("coco_itc"), 8)
    assert "ITC" in line
    assert "ITM" not in line
    line = comparison_line(*of_recipe("coco_itm"), 8)
    assert "ITM draws random negatives" in line
    assert "ITC" not in line
    assert "queue" not in line


def test_a_queue_is_counted_and_offered_where_there_is_none(task):
    runtime = RuntimeSettings(micro_batch=8, global_batch=64)
    assert "task.queue_size=48 makes up for it" in comparison_line(task, runtime, 2)
    queued = CoarseTask(SMALL, queue_size=4096)
    assert "16 pairs and up to 4,096 earlier features" in comparison_line(queued, runtime, 2)
    assert "task.queue_size" not in comparison_line(queued, runtime, 2)
    assert pairs_compared(queued, runtime, 2)["itc_queue"] == 4096


def test_tasks_whose_samples_do_not_meet_say_nothing():
    runtime = RuntimeSettings(micro_batch=8, global_batch=64)
    for task in (VqaTask(SMALL, labels=3), CaptionTask(SMALL)):
        assert comparison_line(task, runtime, 1) is None
        assert pairs_compared(task, runtime, 1) == {}


def test_the_dry_run_shows_it(capsys, monkeypatch):
    recipe = resolve_recipe("tiny", [*QUICK, "data.train.0.count=20"])
    dry_run(recipe)
    shown = capsys.readouterr().out
    assert "ITC contrasts 2 pairs, ITM draws hard negatives from 2 pairs (micro_batch 2 x 1 rank) of a global" in shown
    monkeypatch.setenv("WORLD_SIZE", "3")
    dry_run(recipe)
    assert "ITC contrasts 6 pairs" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "4")
    dry_run(recipe)
    shown = capsys.readouterr().out
    assert "global_batch: 8" in shown
    assert "runtime.global_batch=6 does not divide by micro_batch 2 x 4 ranks: a batch near it" in shown


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_says_it_at_its_start_and_in_its_summary(tmp_path, world):
    recipe = {"runtime.micro_batch": 2, "optim.steps": 1, "optim.warmup": 0}
    codes, log = run(tmp_path, world=world, recipe=recipe)
    assert codes == [EXIT_OK] * world, log
    pairs = 2 * world
    assert log.index(f"the toy compares {pairs} pairs") < log.index("step 1/1")
    assert summary(tmp_path)["pairs_compared"] == {"toy": pairs, "global_batch": 8}
