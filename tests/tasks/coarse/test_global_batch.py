"""All pairs of an optimiser step meet, however many micro-batches and ranks share them."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rank_processes import on_two_ranks
from small_encoder import SMALL

from benchmarks.coarse_step import random_batch
from fiber_cli.distributed import collectives
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.retrieval.task import RetrievalTask

PAIRS = 8
SEED = 7
OBJECTIVES = {
    "all": {},
    "itc": {"mlm": 0, "itm": 0},
    "itc and itm": {"mlm": 0},
    "random negatives": {"itm_negatives": "random"},
    "detached keys": {"itc_detach_keys": True},
    "margin": {"itm_margin": 0.5},
    "queue": {"queue_size": 12},
    "noise": {"queue_size": 12, "itc_queue_noise": True},
}


def make(config=SMALL, **settings):
    torch.manual_seed(0)
    task = CoarseTask(config, compare_over="global_batch", **settings)
    for name, parameter in task.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, 0.5)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return task


def whole_batch():
    """Masked words that differ from pair to pair in number, and two captions of one image."""
    batch = random_batch(SMALL, PAIRS, length=12)
    batch["image_key"][5] = batch["image_key"][1]
    batch["mlm_labels"][:3, 2:6] = 9
    return batch


def micro_batches(batch, count):
    """Those of this rank, in the order of their places."""
    size = PAIRS // (count * collectives.world_size())
    for micro_step in range(count):
        first = (micro_step * collectives.world_size() + collectives.rank()) * size
        part = {}
        for name, value in batch.items():
            part[name] = value[first : first + size] if torch.is_tensor(value) else value
        yield part | {"seed": SEED if micro_step == 0 else 100 + micro_step}


def step(task, batches, count):
    """The means of the outputs, and the gradients, of a step whose losses have their share as in DeepSpeed."""
    task.zero_grad()
    share = 1 / (count * collectives.world_size())
    outputs = {}
    for each in task.passes(iter(batches), count):
        torch.manual_seed(1000 * each.micro_step + 10 * each.stream + collectives.rank())
        batch = each.batch if each.compute is None else each.batch | {"compute": each.compute}
        with torch.set_grad_enabled(each.has_graph):
            computed = task(batch)
        if each.has_graph:
            (8 * computed["loss"] * share).backward()
        for name, value in computed.items():
            outputs[name] = outputs.get(name, 0) + share * value.detach()
    sums = {name: collectives.all_reduce_sum(value) for name, value in outputs.items()}
    gradients = {}
    for name, parameter in task.named_parameters():
        if parameter.grad is not None:
            gradients[name] = collectives.all_reduce_sum(parameter.grad) / 8
    return sums, gradients


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = torch.allclose(ours[name], value, atol=1e-5, rtol=1e-4)
        assert same, f"{name}: {(ours[name] - value).abs().max()}"


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("count", [2, 4])
def test_micro_batches_have_other_losses_or_gradients_than_one_batch(name, count):
    task, batch = make(**OBJECTIVES[name]), whole_batch()
    if task.queue.size:
        task.queue.push(F.normalize(torch.randn(5, 24)), F.normalize(torch.randn(5, 24)))
    before = {name: value.clone() for name, value in task.step_state().items()}
    expected = step(task, [batch | {"seed": SEED}], 1)
    after = {name: value.clone() for name, value in task.step_state().items()}
    task.load_resume_state(before)
    outputs, gradients = step(task, micro_batches(batch, count), count)
    assert_same(outputs, expected[0])
    assert_same(gradients, expected[1])
    assert_same(
        {name: value.float() for name, value in task.step_state().items()},
        {name: value.float() for name, value in after.items()},
    )


@pytest.mark.parametrize("name", ["all", "queue"])
def test_two_ranks_of_two_micro_batches_have_other_losses_or_gradients_than_one_batch(tmp_path, name):
    ended = on_two_ranks(tmp_path, step_of_rank, OBJECTIVE=name)
    assert [each.code for each in ended] == [0, 0], (tmp_path / "log0").read_text()
    expected = step(make(**OBJECTIVES[name]), [whole_batch() | {"seed": SEED}], 1)
    for rank in (0, 1):
        outputs, gradients, state = torch.load(tmp_path / f"step{rank}.pt")
        assert_same(outputs, expected[0])
        assert_same(gradients, expected[1])
    assert name != "queue" or state["queue_position"].tolist() == [PAIRS, PAIRS]


def step_of_rank(rank: int, folder: Path) -> None:
    task = make(**OBJECTIVES[os.environ["OBJECTIVE"]])
    torch.save((*step(task, micro_batches(whole_batch(), 2), 2), task.step_state()), folder / f"step{rank}.pt")


def test_the_second_pass_has_other_chance_than_the_first(monkeypatch):
    config = dataclasses.replace(
        SMALL,
        image=dataclasses.replace(SMALL.image, drop_path=0.5),
        text=dataclasses.replace(SMALL.text, dropout=0.3),
    )
    task = make(config)
    features = []

    def embed(batch):
        embedded = CoarseTask.embed(task, batch)
        features.append((embedded.image_features.detach(), embedded.text_features.detach()))
        return embedded

    monkeypatch.setattr(task, "embed", embed)
    step(task, micro_batches(whole_batch(), 4), 4)
    assert len(features) == 8
    for first, second in zip(features[:4], features[4:], strict=True):
        # Attention has another kernel without a graph.
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    without_chance = task.eval().embed(next(micro_batches(whole_batch(), 4)))
    assert (features[0][0] - without_chance.image_features).abs().max() > 1e-3


def test_texts_of_other_widths_do_not_meet():
    task, batch = make(), whole_batch()
    batch["mask"][:4, 6:] = False
    batch["mlm_labels"][:4, 6:] = -100
    expected = step(task, [batch | {"seed": SEED}], 1)
    short, long = micro_batches(batch, 2)
    for name in ("ids", "mask", "mlm_ids", "mlm_labels"):
        short[name] = short[name][:, :6]
    outputs, gradients = step(task, [short, long], 2)
    assert_same(outputs, expected[0])
    assert_same(gradients, expected[1])


def test_without_accumulation_a_pass_more_is_made():
    task = make()
    assert [each.compute for each in task.passes(iter([whole_batch()]), 1)] == [None]
    of_micro_steps = CoarseTask(SMALL)
    assert [each.compute for each in of_micro_steps.passes(iter([whole_batch()] * 2), 2)] == [None, None]


def test_fine_tuning_for_retrieval_compares_the_pairs_of_a_micro_step():
    task = RetrievalTask(SMALL, compare_over="global_batch")
    batch = whole_batch()
    expected = step(task, [batch | {"seed": SEED}], 1)
    outputs, gradients = step(task, micro_batches(batch, 4), 4)
    assert_same(outputs, expected[0])
    assert_same(gradients, expected[1])
