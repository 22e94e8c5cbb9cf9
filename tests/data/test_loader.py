"""Batches from worker processes, and the count of what could not be read."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from colour_images import ColourImages
from rank_processes import on_two_ranks
from training_batches import folder_and_shards, joined, same, train_batches

from fiber_cli.data.loader import BadCounter, make_loader
from fiber_cli.data.mixing import Mixture
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError


def test_batches_do_not_depend_on_workers_start_or_ranks(mixture, tokenizer):
    before = torch.get_rng_state()
    reference = list(train_batches(mixture, tokenizer))
    assert len(reference) == 6
    assert len(reference[0]["bad"]) + len(reference[1]["bad"]) > 0
    for workers in (1, 2):
        for a, b in zip(train_batches(mixture, tokenizer, workers=workers), reference, strict=True):
            same(a, b)
    for a, b in zip(train_batches(mixture, tokenizer, start_step=4, workers=1), reference[4:], strict=True):
        same(a, b)  # steps 4 and 5 are of the second epoch
    ranks = [list(train_batches(mixture, tokenizer, micro_batch=2, rank=r, world=2)) for r in (0, 1)]
    micro = [batch for pair in zip(*ranks, strict=False) for batch in pair]
    for step, b in enumerate(reference):
        same(joined(micro[4 * step : 4 * step + 4]), b)
    assert torch.equal(torch.get_rng_state(), before)  # the run's own generator is untouched
    assert not all(torch.equal(a["pixels"], b["pixels"]) for a, b in zip(reference[:3], reference[3:], strict=False))


def test_more_ranks_than_shards(mixture, tokenizer):
    one = Mixture(mixture.sources[1:], [1], seed=5)  # three shards
    reference = list(train_batches(one, tokenizer))
    ranks = [list(train_batches(one, tokenizer, micro_batch=1, rank=r, world=8)) for r in range(8)]
    for step, b in enumerate(reference):
        same(joined([rank[step] for rank in ranks]), b)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_samples(tokenizer, workers):
    mixture = Mixture([ColourImages(20, bad=range(20))], [1], seed=0)
    with pytest.raises(UserError) as raised:
        list(train_batches(mixture, tokenizer, workers=workers))
    lines = str(raised.value).splitlines()
    assert lines[0] == "10 samples in a row cannot be used:"
    assert len(lines) == 11
    assert all(line.startswith("  colours/") and line.endswith(": not there") for line in lines[1:])


def test_signals_to_the_whole_job_leave_the_workers_at_work(tokenizer):
    mixture = Mixture([ColourImages(64)], [1], seed=0)
    others = {process.pid for process in multiprocessing.active_children()}
    batches = iter(train_batches(mixture, tokenizer, workers=1, total_steps=8))
    next(batches)
    workers = [process for process in multiprocessing.active_children() if process.pid not in others]
    assert len(workers) == 1
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(workers[0].pid, number)
    assert len(list(batches)) == 7


def reads_with_workers(rank, folder):
    """Batches in a group by workers, twice, against the rank's own; and what is said of data that cannot be used."""
    tokenizer = load_tokenizer("builtin")
    mixture = Mixture(folder_and_shards(folder / str(rank)), [1, 1.5], seed=5)
    own = list(train_batches(mixture, tokenizer, micro_batch=4, rank=rank, world=2))
    for workers in (2, 1):
        batches = train_batches(mixture, tokenizer, micro_batch=4, rank=rank, world=2, workers=workers)
        for a, b in zip(batches, own, strict=True):
            same(a, b)
        assert make_loader([1], workers).multiprocessing_context.get_start_method() == "forkserver"
    bad = Mixture([ColourImages(20, bad=range(20))], [1], seed=0)
    list(train_batches(bad, tokenizer, workers=1))


def test_workers_in_a_group_read_otherwise_or_fail_at_length(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
    for ended in on_two_ranks(tmp_path, reads_with_workers):
        lines = ended.error.splitlines()
        assert (ended.code, ended.kind) == (0, "UserError")
        assert lines[0] == "10 samples in a row cannot be used:"
        assert len(lines) == 11
        assert all(line.startswith("  colours/") and line.endswith(": not there") for line in lines[1:])


def test_a_kept_error_does_not_keep_the_process():
    """The frames of an error that is still held keep a loader and its worker, past the end of the program."""
    program = """
from fiber_cli.data.loader import make_loader

def refuse(samples):
    raise ValueError("never")

try:
    list(make_loader(range(4), 1, collate_fn=refuse))
except ValueError as error:
    kept = error
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


def test_bad_counter():
    def batch(good, bad):
        return {"sample_ids": ["x"] * good, "bad": [(f"s/{n}", "cut short") for n in range(bad)]}

    counter = BadCounter(0.01)
    counter.update(batch(16, 10))  # ten of the first thousand are allowed
    with pytest.raises(UserError, match=r"(?s)11 bad samples among 32 .*max_bad_rate 0.01.*s/0: cut short"):
        counter.update(batch(16, 1))
    counter = BadCounter(0.01)
    counter.load_state_dict({"seen": 2000, "bad": 19})
    counter.update(batch(100, 2))
    assert counter.state_dict() == {"seen": 2100, "bad": 21}
    with pytest.raises(UserError):
        counter.update(batch(0, 1))
    none = BadCounter(0.0)
    with pytest.raises(UserError):
        none.update(batch(16, 1))


def test_workers_take_all_memory_of_the_machine():
    with pytest.raises(UserError, match=r"100000 workers are more than this machine carries.*--workers"):
        make_loader([1, 2], 100_000)
    assert make_loader([1, 2], 2).num_workers == 2
