"""What the training, `--dry-run` and `fiber plan` allow: each the same."""

import json
from itertools import product

import pytest
from rank_processes import on_two_ranks
from small_runs import RECIPE

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.errors import EXIT_OK, UserError
from fiber_cli.training.fit import fit
from fiber_cli.training.forecast import forecast
from fiber_cli.training.gpus import GPUS
from fiber_cli.training.plan import dry_run

QUICK = ["data.workers=0", "optim.steps=1", "optim.warmup=0"]
ALL_MEET = "task.compare_over=global_batch"
#: Objectives that recipes have, by the settings that leave out the others.
OBJECTIVES = {
    "all": [],
    "ITC alone": ["task.mlm=0", "task.itm=0"],
    "ITM alone": ["task.mlm=0", "task.itc=0", "task.itm_negatives=random"],
    "MLM alone": ["task.itm=0", "task.itc=0"],
    "no ITM": ["task.itm=0"],
    "no MLM": ["task.mlm=0"],
}


def recipe(*overrides):
    return parse_recipe(RECIPE, "test", [*QUICK, *overrides])


def batch(micro_batch, global_batch):
    return [f"runtime.micro_batch={micro_batch}", f"runtime.global_batch={global_batch}"]


def dry_run_refuses(settings, world, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    return reason(dry_run, settings)


def plan_refuses(settings, world):
    return reason(lambda asked: list(forecast(asked, GPUS["4090"], world, None)), settings)


def reasons_of_all(settings, output, monkeypatch):
    """Those of the dry run, the plan and the training, on one rank."""
    reasons = [dry_run_refuses(settings, 1, monkeypatch), plan_refuses(settings, 1)]
    monkeypatch.delenv("WORLD_SIZE")
    return [*reasons, reason(lambda asked: fit(asked, output), settings)]


def reason(allowed, settings):
    """Why a recipe is refused; None where it is not."""
    try:
        allowed(settings)
    except UserError as error:
        return str(error)
    return None


def runs():
    """Objectives, further settings and whether one rank trains with them."""
    for objectives, meeting, (micro_batch, global_batch) in product(
        OBJECTIVES, (False, True), ((1, 1), (1, 2), (2, 2))
    ):
        if meeting and objectives in ("ITM alone", "MLM alone"):
            continue  # by a rule of the recipe, which all three read
        overrides = [*OBJECTIVES[objectives], *batch(micro_batch, global_batch)]
        met = global_batch if meeting else micro_batch
        draws = objectives in ("all", "ITM alone", "no MLM")
        name = f"{objectives}, {micro_batch} of {global_batch}{', all meet' if meeting else ''}"
        yield pytest.param([*overrides, *([ALL_MEET] if meeting else [])], met > 1 or not draws, id=name)


@pytest.mark.parametrize(("overrides", "trains"), list(runs()))
def test_one_rank_trains_what_a_dry_run_or_a_plan_refuses_or_the_other_way(overrides, trains, tmp_path, monkeypatch):
    settings = recipe(*overrides)
    reasons = reasons_of_all(settings, tmp_path / "run", monkeypatch)
    assert len(set(reasons)) == 1
    assert (reasons[0] is None) == trains
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or trains


@pytest.mark.parametrize("overrides", [["task.queue_size=5"], ["task.queue_size=5", ALL_MEET]], ids=str)
def test_a_queue_is_refused_by_one_of_the_three(overrides, tmp_path, monkeypatch):
    settings = recipe(*batch(2, 4), *overrides)
    assert dry_run_refuses(settings, 1, monkeypatch) is plan_refuses(settings, 1) is None
    monkeypatch.delenv("WORLD_SIZE")
    assert fit(settings, tmp_path / "run") == EXIT_OK


def two_ranks_train(rank, folder):
    """Two micro-batches of a pair each, and three, which two ranks do not divide."""
    codes = []
    for number, (global_batch, overrides) in enumerate([(2, []), (3, []), (4, [ALL_MEET]), (1, [])]):
        codes.append(fit(recipe(*batch(1, global_batch), *overrides), folder / str(number)))
    return codes


def test_pairs_of_other_ranks_count_for_the_training_alone(tmp_path, monkeypatch, capsys):
    ended = on_two_ranks(tmp_path, two_ranks_train, joins=False)
    assert [each.result for each in ended] == [[EXIT_OK] * 4] * 2
    for number, (global_batch, overrides) in enumerate([(2, []), (3, []), (4, [ALL_MEET]), (1, [])]):
        settings = recipe(*batch(1, global_batch), *overrides)
        assert dry_run_refuses(settings, 2, monkeypatch) is None
        assert plan_refuses(settings, 2) is None
        trained = json.loads((tmp_path / str(number) / "summary.json").read_text())
        assert f"of {trained['global_batch']} samples" in capsys.readouterr().out
    # Three ranks share a batch of 2, a pair each.
    settings = recipe(*batch(2, 2))
    assert dry_run_refuses(settings, 3, monkeypatch) is plan_refuses(settings, 3) is None
    out = capsys.readouterr().out
    assert "of 3 samples" in out
    assert "one batch of 2, as the 3 ranks' of 1 meet:" in out


def test_what_is_refused_names_settings_that_do_not_help(monkeypatch):
    refused = plan_refuses(recipe(*batch(1, 2)), 1)
    assert "from 1 pair (micro_batch 1 x 1 rank), and needs 2: raise runtime.micro_batch" in refused
    for mend in (ALL_MEET, "task.itm=0"):
        assert mend in refused
        assert plan_refuses(recipe(*batch(1, 2), mend), 1) is None
    alone = plan_refuses(recipe(*batch(1, 1), ALL_MEET), 1)
    assert "raise runtime.global_batch, or leave it out with task.itm=0" in alone
    assert ALL_MEET not in alone
    assert ALL_MEET not in plan_refuses(recipe(*batch(1, 2), *OBJECTIVES["ITM alone"]), 1)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optim.steps=null", "optim.epochs=1", "optim.warmup=2"], "optim.warmup: 2 must end before the run's 2 steps"),
        (["deepspeed.zero_optimization.zenflow={topk_ratio: 7}"], "DeepSpeed refuses these settings"),
    ],
    ids=["warmup", "deepspeed"],
)
def test_what_other_sections_forbid_is_told_by_the_training_alone(overrides, expected, tmp_path, monkeypatch):
    settings = recipe(*overrides)
    reasons = reasons_of_all(settings, tmp_path / "run", monkeypatch)
    assert len(set(reasons)) == 1
    assert expected in reasons[0]
