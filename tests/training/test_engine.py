"""The training loop, driven with a toy task: resuming, signals, guards, accumulation, ZeRO stages."""

import json
import math
import multiprocessing
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import toy_training
from safetensors.torch import load_file

from fiber_cli.training import engine
from fiber_cli.distributed.collectives import free_port
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.training.optim import Ema
from fiber_cli.seeds import mix

# A clean parent that has imported what takes time, so that its children, the ranks, start at once.
processes = multiprocessing.get_context("forkserver")
IMPORTED = ["fiber_cli.training.engine", "matplotlib.figure", "matplotlib.backends.backend_agg"]
if not torch.cuda.is_available():  # a parent that has touched the GPU must not be forked
    IMPORTED += ["deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"]
processes.set_forkserver_preload(IMPORTED)


def start(folder, *, world=1, resume=False, recipe=None, **work):
    """Start the toy run in `folder` on `world` ranks."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = dict(recipe or {})
    settings.setdefault("runtime__micro_batch", toy_training.GLOBAL_BATCH // world)
    options = {"recipe": settings, "work": work, "resume": resume}
    ranks = []
    for rank in range(world):
        env = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        env = env if world > 1 else {}
        env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        arguments = (str(folder), options, env, str(folder / f"log{rank}"))
        ranks.append(processes.Process(target=toy_training.run, args=arguments, daemon=True))
        ranks[-1].start()
    return ranks


def finish(ranks, folder):
    """Exit codes and what rank 0 printed."""
    for rank in ranks:
        rank.join(120)
    hanging = [rank for rank in ranks if rank.exitcode is None]
    for rank in hanging:
        rank.kill()
    assert not hanging, "a rank hangs"
    return [rank.exitcode for rank in ranks], (folder / "log0").read_text()


def run(folder, **options):
    return finish(start(folder, **options), folder)


def weights(folder, step=8):
    return load_file(folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **(tolerance or {"atol": 0, "rtol": 0}))


def max_difference(ours, theirs):
    return max((ours[name] - theirs[name]).abs().max() for name in ours)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("plain")
    codes, log = run(folder)
    assert codes == [EXIT_OK], log
    return folder


def test_a_run_writes_what_it_should(plain):
    records = metrics(plain)
    assert [r["step"] for r in records] == list(range(1, 9))
    keys = "step epoch lr loss toy_loss drawn images_per_second grad_norm skipped bad truncated"
    assert set(records[0]) == set(keys.split())
    # Two warm-up steps, then linearly down over the other six.
    expected = [1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [r["lr"] for r in records] == pytest.approx([0.01 * f for f in expected])
    assert records[-1]["epoch"] == 2.0
    assert records[-1]["loss"] < records[0]["loss"]
    summary = json.loads((plain / "summary.json").read_text())
    assert (summary["steps"], summary["images"], summary["parameters"]["total"]) == (8, 64, 216)
    assert (plain / "curves.png").stat().st_size > 1000
    assert (plain / "checkpoints" / "latest").read_text().strip() == "step-000008"
    assert weights(plain)["temperature"].shape == ()
    assert "memory" not in weights(plain)


def test_the_update_is_adamw_with_clipping(plain, tmp_path):
    """One step of the engine against torch's AdamW, with and without clipping."""
    for clip in (None, 0.1):
        folder = tmp_path / str(clip)
        codes, log = run(folder, recipe={"optim__steps": 1, "optim__warmup": 0, "runtime__clip": clip})
        assert codes == [EXIT_OK], log
        settings = toy_training.recipe(optim__steps=1, optim__warmup=0)
        work = toy_training.work(settings)
        (batch,) = work.batches(0)
        task = work.task
        task(batch)["loss"].backward()
        norm = torch.stack([p.grad.norm() for p in task.parameters() if p.grad is not None]).norm()
        assert metrics(folder)[0]["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
        if clip:
            for p in task.parameters():
                if p.grad is not None:
                    p.grad *= clip / (norm + 1e-6)
        heads = [p for n, p in task.named_parameters() if n.startswith("mlm.")]
        others = [("encoder.a.weight", 0.01), ("unused", 0.01), ("encoder.a.bias", 0), ("temperature", 0)]
        others += [("encoder.norm.weight", 0), ("encoder.norm.bias", 0)]
        groups = [{"params": [heads[0]], "lr": 0.05}, {"params": [heads[1]], "lr": 0.05, "weight_decay": 0}]
        groups += [{"params": [task.get_parameter(n)], "weight_decay": d} for n, d in others]
        torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01).step()
        expected = {n: p.detach() for n, p in task.named_parameters()}
        # DeepSpeed gives a parameter without gradient a zero one, so that it decays.
        expected["unused"] = torch.ones(3) * (1 - 0.01 * 0.01)
        assert_equal(weights(folder, 1), expected, atol=1e-6, rtol=1e-5)


def test_accumulating_two_micro_batches_equals_one_batch(tmp_path):
    # Without the toy's memory, which changes with every micro-batch.
    options = {"memory_weight": 0.0, "recipe": {"runtime__clip": 1.0}}
    assert run(tmp_path / "whole", **options)[0] == [EXIT_OK]
    options["recipe"]["runtime__micro_batch"] = 4
    codes, log = run(tmp_path / "halves", **options)
    assert codes == [EXIT_OK], log
    assert_equal(weights(tmp_path / "halves"), weights(tmp_path / "whole"), atol=1e-6, rtol=0)
    for ours, theirs in zip(metrics(tmp_path / "halves"), metrics(tmp_path / "whole")):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=1e-5)


@pytest.mark.parametrize("stage, world", [(1, 1), (3, 1), (0, 2), (2, 2), (3, 2)])
def test_zero_stages_and_ranks_change_no_weight(plain, tmp_path, stage, world):
    codes, log = run(tmp_path, world=world, recipe={"runtime__zero_stage": stage})
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path), weights(plain), atol=1e-5, rtol=0)
    for ours, theirs in zip(metrics(tmp_path), metrics(plain)):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize("stage, world", [(0, 1), (0, 2), (1, 2), (3, 2)])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path, stage, world):
    options = {"world": world, "dropout": 0.3}
    options["recipe"] = {"runtime__zero_stage": stage, "runtime__ema": None if stage == 3 else 0.9}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ranks = start(whole, **options), start(broken, kill_at=6, **options)
    assert finish(ranks[0], whole)[0] == [EXIT_OK] * world
    finish(ranks[1], broken)
    assert (broken / "checkpoints" / "latest").read_text().strip() == "step-000004"
    assert len(metrics(broken)) >= 5
    codes, log = run(broken, resume=True, **options)
    assert codes == [EXIT_OK] * world, log
    assert "resumed at step 4" in log
    assert_equal(weights(broken), weights(whole))
    timeless = [[{k: v for k, v in r.items() if k != "images_per_second"} for r in metrics(f)] for f in (whole, broken)]
    assert timeless[0] == timeless[1]


def test_chance_differs_between_steps_micro_steps_and_ranks_and_repeats_with_the_seed(plain, tmp_path):
    drawn = {"plain": [r["drawn"] for r in metrics(plain)]}
    assert len(set(drawn["plain"])) == 8
    # With two ranks or two micro-steps it is a mean with another number.
    for name, options in {"ranks": {"world": 2}, "micro": {"recipe": {"runtime__micro_batch": 4}}}.items():
        assert run(tmp_path / name, **options)[0][0] == EXIT_OK
        drawn[name] = [r["drawn"] for r in metrics(tmp_path / name)]
        others = [2 * mean - first for mean, first in zip(drawn[name], drawn["plain"])]
        assert all(0 <= other < 1 for other in others), "the first draw is the same, the second is a draw too"
        assert min(abs(other - first) for other, first in zip(others, drawn["plain"])) > 1e-4
    assert drawn["ranks"] != drawn["micro"]


@pytest.mark.parametrize("world", [1, 2])
def test_sigterm_finishes_the_step_saves_and_can_be_resumed(plain, tmp_path, world):
    codes, log = run(tmp_path, world=world, signal_at=5)
    assert codes == [EXIT_STOPPED] * world, log
    assert "stopped at step 6" in log and not (tmp_path / "summary.json").exists()
    codes, log = run(tmp_path, world=world, resume=True)
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path), weights(plain), **({} if world == 1 else {"atol": 1e-5, "rtol": 0}))


@pytest.mark.parametrize(
    "stage, world, value", [(0, 1, math.nan), (2, 1, math.inf), (0, 2, math.inf), (2, 2, math.nan)]
)
def test_a_step_with_a_nonfinite_loss_changes_nothing(tmp_path, stage, world, value):
    """A non-finite loss of one micro-batch of one rank, at the second micro-step: the same as leaving the
    step out."""
    recipe = {"runtime__zero_stage": stage, "runtime__micro_batch": 4 // world, "optim__schedule": "constant"}
    recipe |= {"optim__steps": 3, "log__save_every": 1, "log__keep_last": 9}
    codes, log = run(tmp_path, world=world, recipe=recipe, poison=[(1, world - 1)], poison_value=value)
    assert codes == [EXIT_OK] * world, log
    assert_equal(weights(tmp_path, 2), weights(tmp_path, 1))
    assert max_difference(weights(tmp_path, 3), weights(tmp_path, 2)) > 1e-4
    assert all(w.isfinite().all() for w in weights(tmp_path, 3).values())
    records = metrics(tmp_path)
    assert [r["skipped"] for r in records] == [0, 1, 1]
    assert records[1]["loss"] is None and records[2]["loss"] < 10


@pytest.mark.parametrize("world", [1, 2])
def test_nonfinite_losses_in_a_row_end_the_run_naming_the_samples(tmp_path, world):
    poison = [(step, 0) for step in (2, 4, 5, 6)]
    codes, log = run(tmp_path, world=world, recipe={"runtime__max_nonfinite": 3}, poison=poison)
    assert codes == [1] * world
    assert "step 7: the loss was not finite 3 steps in a row" in log
    assert "s4-0" in log and "s6-3" in log and "s2-0" not in log
    # With two ranks the samples of the other rank are not blamed.
    assert ("s4-7" in log) == (world == 1)


@pytest.mark.parametrize(
    "precision, stage", [("bf16", 0), ("bf16", 2), ("bf16", 3), ("fp16", 0), ("fp16", 1), ("fp16", 3)]
)
def test_low_precision_trains_with_float32_weights(plain, tmp_path, precision, stage):
    recipe = {"runtime__precision": precision, "runtime__zero_stage": stage, "runtime__clip": 100.0}
    codes, log = run(tmp_path, recipe=recipe)
    assert codes == [EXIT_OK], log
    assert all(w.dtype == torch.float32 for w in weights(tmp_path).values())
    assert 1e-6 < max_difference(weights(tmp_path), weights(plain)) < 0.02
    # The norm is that of the gradients, not of gradients times a loss scale.
    for ours, theirs in zip(metrics(tmp_path), metrics(plain)):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.05)


@pytest.mark.parametrize("stage", [0, 1])
def test_fp16_overflow_lowers_the_scale_and_ends_no_run(tmp_path, stage):
    """Gradients in the thousands overflow float16 at the first loss scales, of which some must go."""
    recipe = {"runtime__precision": "fp16", "runtime__zero_stage": stage, "runtime__max_nonfinite": 2}
    recipe |= {"optim__steps": 16, "optim__warmup": 0}
    codes, log = run(tmp_path, recipe=recipe, loss_factor=1e3)
    assert codes == [EXIT_OK], log
    skipped = [r["skipped"] for r in metrics(tmp_path)]
    assert 2 < skipped[-1] < 14, "some steps overflow, more than max_nonfinite of them, then none"
    assert metrics(tmp_path)[-1]["loss"] < metrics(tmp_path)[0]["loss"]


def test_a_second_run_in_the_same_folder_is_refused(plain):
    codes, log = run(plain)
    assert codes == [1] and "already holds a run" in log


def test_resuming_with_another_recipe_or_world_is_refused(tmp_path):
    assert run(tmp_path, signal_at=2)[0] == [EXIT_STOPPED]
    codes, log = run(tmp_path, resume=True, recipe={"optim__lr": 0.5, "runtime__clip": 1.0})
    assert codes == [1]
    assert "optim.lr: 0.01 in the run, 0.5 now" in log and "runtime.clip: None in the run, 1.0 now" in log
    codes, log = run(tmp_path, resume=True, world=2, recipe={"runtime__micro_batch": 8, "runtime__global_batch": 16})
    assert codes[0] == 1 and "runtime.global_batch: 8 in the run, 16 now" in log
    # What only changes the log may differ.
    codes, log = run(tmp_path, resume=True, recipe={"log__every": 2})
    assert codes == [EXIT_OK], log


def test_resume_on_other_ranks_is_refused(tmp_path):
    recipe = {"runtime__micro_batch": 4}
    assert run(tmp_path, signal_at=2, recipe=recipe)[0] == [EXIT_STOPPED]
    codes, log = run(tmp_path, resume=True, world=2, recipe=recipe)
    assert codes == [1, 1] and "on 1 ranks, this one has 2" in log


@pytest.mark.parametrize("stage, world", [(0, 1), (1, 2)])
def test_a_full_disk_ends_the_run_on_all_ranks_and_keeps_the_earlier_checkpoint(tmp_path, stage, world):
    recipe = {"runtime__zero_stage": stage}
    codes, log = run(tmp_path, world=world, recipe=recipe, full_at=6)
    assert codes == [1] * world, log
    assert "checkpoint of step 8 could not be written: File too large" in log and "--resume" in log
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-000004"]
    codes, log = run(tmp_path, world=world, recipe=recipe, resume=True)
    assert codes == [EXIT_OK] * world, log


def test_damaged_state_is_one_clear_error(tmp_path):
    assert run(tmp_path, signal_at=2)[0] == [EXIT_STOPPED]
    shard = next((tmp_path / "checkpoints" / "step-000003" / "state" / "deepspeed").glob("*.pt"))
    shard.write_bytes(shard.read_bytes()[:2000])
    codes, log = run(tmp_path, resume=True)
    assert codes == [1] and "cannot be read" in log and "latest" in log


def test_the_best_checkpoint_is_kept(tmp_path):
    recipe = {
        "log__validate_every": 2,
        "log__keep_best": "itc/ir@1",
        "log__keep_last": 1,
        "log__save_every": 100,
    }
    recipe["data__val"] = [{"kind": "scenes", "count": 2}]
    codes, log = run(tmp_path, recipe=recipe, shown=[10.0, 40.0, 30.0, 35.0])
    assert codes == [EXIT_OK], log
    folder = tmp_path / "checkpoints"
    assert sorted(p.name for p in folder.glob("step-*")) == ["step-000004", "step-000008"]
    assert (folder / "best").read_text().strip() == "step-000004"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"] == {"metric": "itc/ir@1", "value": 40.0, "step": 4}
    assert summary["metrics"] == {"itc/ir@1": 35.0}


def test_a_plateau_lowers_the_rate_and_then_ends_the_run(tmp_path):
    recipe = {
        "log__validate_every": 1,
        "log__keep_best": "itc/ir@1",
        "log__stop_after": 3,
        "log__save_every": 100,
        "optim__schedule": "plateau",
        "optim__patience": 2,
        "optim__warmup": 0,
        "data__val": [{"kind": "scenes", "count": 2}],
    }
    shown = [10.0, 9.0, 8.0, 40.0, 40.0, 39.0, 38.0, 50.0]
    codes, log = run(tmp_path / "whole", recipe=recipe, shown=shown)
    assert codes == [EXIT_OK] and "ended at step 7: 3 validations without a better itc/ir@1" in log
    rates = [0.01, 0.01, 0.01, 0.001, 0.001, 0.001, 0.0001]
    trained = [record for record in metrics(tmp_path / "whole") if "lr" in record]
    assert [record["lr"] for record in trained] == pytest.approx(rates)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert (summary["steps"], summary["best"]["step"]) == (7, 4)
    # Where it stands is part of a checkpoint: interrupted during the sixth step, and when it has ended.
    codes, log = run(tmp_path / "parts", recipe=recipe, shown=shown, signal_at=5)
    assert codes == [EXIT_STOPPED], log
    codes, log = run(tmp_path / "parts", recipe=recipe, shown=shown[6:], resume=True)
    assert codes == [EXIT_OK] and "ended at step 7" in log
    assert_equal(weights(tmp_path / "parts", 7), weights(tmp_path / "whole", 7))
    # A run of a time when a setting did not exist goes on with its default.
    file = tmp_path / "parts" / "recipe.yaml"
    file.write_text(file.read_text().replace("  stop_after: 3\n", "").replace("  text_mult: 1.0\n", ""))
    codes, log = run(tmp_path / "parts", recipe=recipe, shown=shown[7:], resume=True)
    assert codes == [EXIT_OK] and "ended at step 7" in log


def test_moving_average_is_the_recursion():
    task = torch.nn.Linear(2, 1)
    ema = Ema(task, 0.5)
    expected = task.weight.detach().clone()
    for number in range(6):
        with torch.no_grad():
            task.weight += 1.0
        ema.update(task, number)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * task.weight.detach()
    torch.testing.assert_close(ema.task.weight, expected)
    assert not ema.task.weight.requires_grad


def test_published_weights_are_the_moving_average(plain, tmp_path):
    assert run(tmp_path, recipe={"runtime__ema": 0.9})[0] == [EXIT_OK]
    assert max_difference(weights(tmp_path), weights(plain)) > 1e-4
    saved = tmp_path / "checkpoints" / "step-000008" / "state"
    raw = torch.load(saved / "deepspeed" / "mp_rank_00_model_states.pt", weights_only=True)["module"]
    torch.testing.assert_close(raw["mlm.out.weight"], weights(plain)["mlm.out.weight"], atol=0, rtol=0)


def test_interrupt_stops_a_run_and_a_second_one_ends_it_at_once(tmp_path):
    folder = tmp_path / "run"
    (rank,) = start(folder, recipe={"optim__steps": 100_000, "log__save_every": 100_000, "log__every": 1})
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    rank._popen._send_signal(signal.SIGINT)
    codes, log = finish([rank], folder)
    assert codes == [EXIT_STOPPED], log


def test_seeds_differ_for_every_place():
    seeds = {
        mix(seed, step, micro, rank) for seed in (0, 1) for step in range(5) for micro in (0, 1) for rank in (0, 1)
    }
    assert len(seeds) == 40 and all(0 <= seed < 2**63 for seed in seeds)
    assert mix(1, 2) == mix(1, 2)


def test_a_run_killed_before_its_first_checkpoint_starts_again_from_the_same_weights(tmp_path, monkeypatch):
    given = []

    def work(recipe, init_from, *, fresh):
        given.append(Path(init_from))
        raise UserError("far enough")

    monkeypatch.setattr(engine.build, "work", work)
    monkeypatch.setattr(engine.dist, "init_from_env", lambda always: None)
    for options in ({"init_from": tmp_path / "weights"}, {"resume": True}):
        with pytest.raises(UserError, match="far enough"):
            engine.fit(toy_training.recipe(), tmp_path / "run", **options)
    assert given == [tmp_path / "weights"] * 2


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ({"caption/cider": 3.0}, "caption/cider"),
        ({"caption/cider (plain tokens)": 3.0}, "caption/cider (plain tokens)"),
        ({"caption/bleu4": 3.0}, None),
    ],
)
def test_keeping_the_best_by_a_metric_that_is_not_there(metrics, best):
    said = []
    log = SimpleNamespace(write=lambda record, show: None, say=said.append)
    run = SimpleNamespace(
        progress=engine.Progress(step=5),
        recipe=SimpleNamespace(log=SimpleNamespace(keep_best="caption/cider")),
        published=torch.nn.Identity,
        work=SimpleNamespace(validate=lambda task: metrics),
        whole=None,
    )
    assert engine.Run.validate(run, log) is (best is not None)
    assert (run.progress.best and run.progress.best["metric"]) == best
    assert any("there is no caption/cider among caption/bleu4" in line for line in said) is (best is None)
