"""A step, validation and the checkpoints of a run, driven with a toy task."""

import math
from types import SimpleNamespace

import pytest
import torch
import toy_training
from toy_runs import assert_equal, max_difference, metrics, run, summary, weights

from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.training.progress import Progress
from fiber_cli.training.run import Run


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_update_is_adamw_with_clipping(tmp_path, clip):
    """One step of the engine against torch's AdamW, with and without clipping."""
    codes, log = run(tmp_path, recipe={"optim.steps": 1, "optim.warmup": 0, "runtime.clip": clip})
    assert codes == [EXIT_OK], log
    work = toy_training.work(toy_training.recipe({"optim.steps": 1, "optim.warmup": 0}))
    (batch,) = work.batches(0)
    task = work.task
    task(batch)["loss"].backward()
    gradients = [parameter.grad for parameter in task.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert metrics(tmp_path)[0]["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    if clip:
        for gradient in gradients:
            gradient *= clip / (norm + 1e-6)
    groups = [
        {"params": [task.mlm["out"].weight], "lr": 0.05},
        {"params": [task.mlm["out"].bias], "lr": 0.05, "weight_decay": 0},
        {"params": [task.encoder["a"].weight, task.unused], "weight_decay": 0.01},
        {"params": [task.encoder["a"].bias, *task.encoder["norm"].parameters()], "weight_decay": 0},
        {"params": [task.temperature], "weight_decay": 0},
    ]
    torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01).step()
    expected = {name: parameter.detach() for name, parameter in task.named_parameters()}
    # DeepSpeed gives a parameter without gradient a zero one, so that it decays.
    expected["unused"] = torch.ones(3) * (1 - 0.01 * 0.01)
    assert_equal(weights(tmp_path, 1), expected, atol=1e-6, rtol=1e-5)


def test_accumulating_two_micro_batches_equals_one_batch(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    # Without the toy's memory, which changes with every micro-batch.
    for folder, micro_batch in ((whole, 8), (halves, 4)):
        recipe = {"runtime.clip": 1.0, "runtime.micro_batch": micro_batch}
        codes, log = run(folder, memory_weight=0.0, recipe=recipe)
        assert codes == [EXIT_OK], log
    assert_equal(weights(halves), weights(whole), atol=1e-6)
    for ours, theirs in zip(metrics(halves), metrics(whole), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=1e-5)


def test_chance_differs_between_steps_micro_steps_and_ranks_and_repeats_with_the_seed(plain, tmp_path):
    first_draws = drawn(plain)
    assert len(set(first_draws)) == 8
    # With two ranks or two micro-steps it is a mean with another number.
    means = {}
    for name, options in {"ranks": {"world": 2}, "micro": {"recipe": {"runtime.micro_batch": 4}}}.items():
        codes, log = run(tmp_path / name, **options)
        assert codes[0] == EXIT_OK, log
        means[name] = drawn(tmp_path / name)
        for mean, first in zip(means[name], first_draws, strict=True):
            other = 2 * mean - first
            assert 0 <= other < 1, "the first draw is the same, the second is a draw too"
            assert abs(other - first) > 1e-4
    assert means["ranks"] != means["micro"]


def drawn(folder):
    return [record["drawn"] for record in metrics(folder)]


@pytest.mark.parametrize(
    ("stage", "world", "value"), [(0, 1, math.nan), (2, 1, math.inf), (0, 2, math.inf), (2, 2, math.nan)]
)
def test_a_step_with_a_nonfinite_loss_changes_nothing(tmp_path, stage, world, value):
    """A non-finite loss of one micro-batch of one rank, at the second micro-step: the same as leaving the
    step out."""
    recipe = {"runtime.zero_stage": stage, "runtime.micro_batch": 4 // world, "optim.schedule": "constant"}
    recipe |= {"optim.steps": 3, "log.save_every": 1, "log.keep_last": 9}
    codes, log = run(tmp_path, world=world, recipe=recipe, poison=[(1, world - 1)], poison_value=value)
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path, 2), weights(tmp_path, 1))
    assert max_difference(weights(tmp_path, 3), weights(tmp_path, 2)) > 1e-4
    assert all(weight.isfinite().all() for weight in weights(tmp_path, 3).values())
    records = metrics(tmp_path)
    assert [record["skipped"] for record in records] == [0, 1, 1]
    assert records[1]["loss"] is None
    assert records[2]["loss"] < 10


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_on_other_ranks_does_not_go_on_as_before_but_for_rounding(plain, tmp_path, before, after):
    assert run(tmp_path, world=before, signal_at=2).codes == [EXIT_STOPPED] * before
    codes, log = run(tmp_path, resume=True, world=after)
    assert codes == [EXIT_OK] * after, log
    assert f"resumed at step 3 on {after} ranks, before on {before}: not to the bit" in log
    assert "begin anew" not in log
    assert_equal(weights(tmp_path), weights(plain), atol=1e-5, rtol=1e-5)
    assert [record["step"] for record in metrics(tmp_path)] == list(range(1, 9))


@pytest.mark.parametrize("stage", [1, 3])
def test_shards_of_other_ranks_are_read_or_the_weights_are_lost(tmp_path, stage):
    recipe = {"runtime.zero_stage": stage, "log.save_every": 1, "log.keep_last": 9}
    assert run(tmp_path, world=2, signal_at=2, recipe=recipe).codes == [EXIT_STOPPED] * 2
    codes, log = run(tmp_path, resume=True, world=1, recipe=recipe)
    assert codes == [EXIT_OK], log
    assert "before on 2: not to the bit what it would have been there; AdamW's averages begin anew" in log
    # A step of Adam's changes no weight by more than a few rates.
    assert max_difference(weights(tmp_path, 4), weights(tmp_path, 3)) < 0.1
    assert summary(tmp_path)["steps"] == 8


def test_damaged_state_is_one_clear_error(tmp_path):
    assert run(tmp_path, signal_at=2).codes == [EXIT_STOPPED]
    shard = next((tmp_path / "checkpoints" / "step-000003" / "state" / "deepspeed").glob("*.pt"))
    shard.write_bytes(shard.read_bytes()[:2000])
    codes, log = run(tmp_path, resume=True)
    assert codes == [1]
    assert f"{shard} is not as it was written" in log
    assert "latest" in log


@pytest.mark.parametrize("problem", ["flipped", "missing", "missing, unchecked", "cut, unchecked"])
def test_a_damaged_shard_is_trained_on_or_keeps_the_other_rank_waiting(tmp_path, problem):
    recipe = {"runtime.zero_stage": 1}
    assert run(tmp_path, world=2, signal_at=2, recipe=recipe).codes == [EXIT_STOPPED] * 2
    checkpoint = tmp_path / "checkpoints" / "step-000003"
    shard = checkpoint / "state" / "deepspeed" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content if problem == "flipped" else content[:2000])
    if problem.startswith("missing"):
        shard.unlink()
    if problem.endswith("unchecked"):
        (checkpoint / "SHA256SUMS").unlink()
    codes, log = run(tmp_path, world=2, resume=True, recipe=recipe)
    assert codes == [1, 1], log
    assert log.count("UserError") == 1
    assert "Traceback" not in log
    assert ("cannot be read" if problem == "cut, unchecked" else shard.name) in log
    assert "latest" in log


@pytest.mark.parametrize(("stage", "world"), [(0, 1), (1, 2)])
def test_a_full_disk_ends_the_run_on_all_ranks_and_keeps_the_earlier_checkpoint(tmp_path, stage, world):
    recipe = {"runtime.zero_stage": stage}
    codes, log = run(tmp_path, world=world, recipe=recipe, full_at=6)
    assert codes == [1] * world, log
    assert "checkpoint of step 8 could not be written: File too large" in log
    assert log.count("UserError") == 1
    assert "--resume" in log
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-000004"]
    codes, log = run(tmp_path, world=world, recipe=recipe, resume=True)
    assert codes == [EXIT_OK] * world, log


def test_the_state_holds_the_weights_in_training_beside_their_average(plain, tmp_path):
    assert run(tmp_path, recipe={"runtime.ema": 0.9}).codes == [EXIT_OK]
    state = tmp_path / "checkpoints" / "step-000008" / "state" / "deepspeed"
    raw = torch.load(state / "mp_rank_00_model_states.pt", weights_only=True)["module"]
    torch.testing.assert_close(raw["mlm.out.weight"], weights(plain)["mlm.out.weight"], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ({"caption/cider": 3.0}, "caption/cider"),
        ({"caption/cider (plain tokens)": 3.0}, "caption/cider (plain tokens)"),
    ],
)
def test_the_best_is_kept_by_another_metric_than_was_measured(metrics, best):
    run = run_that_measures(metrics)
    assert Run.validate(run, QUIET)
    assert run.progress.best["metric"] == best


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"caption/bleu4": 3.0}, "it measured caption/bleu4. Go by one of these"),
        ({"vqa/accuracy": 1.0, "cider": 2.0}, "it measured vqa/accuracy, cider. Go by one"),
        ({"caption/cider/dog": 3.0}, "too small a validation may have none of it"),
        ({}, "it measured nothing: data.val is too small"),
    ],
)
def test_a_run_goes_on_without_the_metric_that_it_keeps_the_best_by(metrics, message):
    with pytest.raises(UserError, match=f"^log.keep_best: the validation has no caption/cider.*{message}"):
        Run.validate(run_that_measures(metrics), QUIET)


def test_validation_makes_graphs_of_its_own():
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(torch.nn.Tanh(), backend=count)
    run = run_that_measures(None)
    run.work.validate = lambda task: {"caption/cider": float(compiled(torch.ones(1)))}
    Run.validate(run, QUIET)
    assert not graphs
    compiled(torch.ones(1))
    assert graphs, "what is compiled is not seen here"


QUIET = SimpleNamespace(write=lambda record, show: None, say=lambda line: None)


def run_that_measures(metrics):
    """What `Run.validate` needs of a run of captions."""
    return SimpleNamespace(
        progress=Progress(step=5),
        recipe=SimpleNamespace(log=SimpleNamespace(keep_best="caption/cider"), optim=SimpleNamespace(patience=3)),
        task_to_keep=torch.nn.Identity,
        work=SimpleNamespace(validate=lambda task: metrics),
        whole=None,
    )
