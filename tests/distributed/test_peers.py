"""What the loss of another rank looks like, on two real ones."""

import multiprocessing
import os
import signal
import time

import torch
from rank_processes import on_two_ranks

from fiber_cli.data.loader import make_loader
from fiber_cli.distributed.collectives import all_reduce_sum, from_main, gather_objects, is_main
from fiber_cli.distributed.peers import peer_error
from fiber_cli.errors import UserError


def one_is_killed(rank, folder):
    gather_objects(rank)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    all_reduce_sum(torch.ones(3))


def test_a_rank_that_is_killed_leaves_a_traceback_of_another(tmp_path):
    first, second = on_two_ranks(tmp_path, one_is_killed)
    assert second.code == -signal.SIGKILL
    assert first.kind == "PeerLost"
    assert first.error.startswith(f"rank 0 on {os.uname().nodename}: another rank has ended")


def wrapped_in_another_error(rank, folder):
    gather_objects(rank)
    if rank == 0:
        os._exit(3)
    try:
        gather_objects(rank)
    except RuntimeError as error:
        raise UserError("state/ cannot be read") from error


def test_a_lost_rank_is_taken_for_a_damaged_file(tmp_path):
    _, second = on_two_ranks(tmp_path, wrapped_in_another_error)
    assert second.kind == "PeerLost"


def one_hangs(rank, folder):
    gather_objects(rank)
    if rank == 1:
        time.sleep(6)
    gather_objects(rank)


def test_the_time_of_a_collective_is_not_the_one_that_is_set(tmp_path):
    first, _ = on_two_ranks(tmp_path, one_hangs, FIBER_TIMEOUT="2")
    assert first.kind == "PeerLate"
    assert "within 2 s" in first.error
    assert "FIBER_TIMEOUT sets the seconds" in first.error


def one_scores(rank, folder):
    def score():
        assert is_main()
        time.sleep(5)
        return 7

    return [from_main(score), from_main(lambda: 8)]


def test_ranks_do_not_wait_for_the_scores_longer_than_for_one_another(tmp_path):
    for ended in on_two_ranks(tmp_path, one_scores, FIBER_TIMEOUT="2"):
        assert (ended.result, ended.error) == ([7, 8], None)


def the_scores_fail(rank, folder):
    def score():
        raise UserError("no Java")

    return from_main(score)


def test_ranks_wait_for_scores_that_never_come(tmp_path):
    first, second = on_two_ranks(tmp_path, the_scores_fail)
    assert first.error == "no Java"
    assert second.kind == "PeerLost"


def test_any_error_is_taken_for_the_loss_of_a_rank(monkeypatch):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:21935")
    assert peer_error(lost) is None  # in one process there are no others
    monkeypatch.setattr("fiber_cli.distributed.peers.world_size", lambda: 2)
    assert peer_error(lost) is not None
    for other in (RuntimeError("CUDA out of memory"), ConnectionResetError("Connection reset by peer"), KeyError("x")):
        assert peer_error(other) is None


def loses_a_reader(rank, folder):
    loader = make_loader(range(10_000), 2, batch_size=1)
    for number, _ in enumerate(loader):
        if number == 3:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    return "went on"


def test_a_reader_of_data_that_is_killed_is_a_traceback(tmp_path):
    for number, ended in enumerate(on_two_ranks(tmp_path, loses_a_reader)):
        assert ended.error.startswith(
            f"rank {number} on {os.uname().nodename}: a process that reads its data was ended ("
        )
        assert "): likely out of memory, or shared memory is full" in ended.error
