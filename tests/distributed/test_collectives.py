"""Collectives on two processes against the one-process result."""

import os

import pytest
import torch
from toy_runs import processes

from fiber_cli.distributed import collectives
from fiber_cli.distributed.group import init_from_env, leave
from fiber_cli.distributed.launch import free_port

ROWS, WIDTH = 6, 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def whole(dtype):
    """Rows, weights and requests of the one-process computation."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, WIDTH, generator=generator).to(dtype)
    wanted = torch.tensor([5, 0, 0, 3, 1, 5, 4])
    weight = torch.randn(len(wanted), WIDTH, generator=generator).to(dtype)
    gather_weight = torch.randn(2, ROWS, WIDTH, generator=generator).to(dtype)
    return rows, wanted, weight, gather_weight


def share(rank, rows, wanted, weight):
    """What rank 0 or 1 holds and asks for; rank 1 asks for more than rank 0."""
    half = len(rows) // 2
    held = rows[rank * half :][:half]
    requests = slice(0, 2) if rank == 0 else slice(2, None)
    return held, wanted[requests], weight[requests]


def on_rank(rank, port, folder):
    """One of two ranks; writes what it gets for each dtype."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    init_from_env()
    results = {name: results_of(rank, dtype) for name, dtype in DTYPES.items()}
    torch.save(results, folder / f"{rank}.pt")
    leave()


def results_of(rank, dtype):
    rows, wanted, weight, gather_weight = whole(dtype)
    rows, wanted, weight = share(rank, rows, wanted, weight)
    leaf = rows.clone().requires_grad_()
    fetched = collectives.exchange_rows(leaf, wanted)
    (fetched * weight).sum().backward()
    result = {"fetched": fetched.detach(), "fetched_grad": leaf.grad}
    leaf = rows.clone().requires_grad_()
    gathered = collectives.all_gather_grad(leaf)
    (gathered * gather_weight[rank]).sum().backward()
    result |= {"gathered": gathered.detach(), "gathered_grad": leaf.grad}
    none = torch.empty(0, dtype=torch.int64)
    result["one_sided"] = collectives.exchange_rows(rows, wanted if rank else none)
    result["flags"] = collectives.exchange_rows(rows > 0, wanted)
    result["numbers"] = collectives.exchange_rows(torch.arange(3) + 10 * rank, wanted)
    result["objects"] = collectives.gather_objects({"rank": rank})
    result["on_main"] = collectives.gather_on_main({"rank": rank})
    result["any"] = [collectives.any_rank(flag) for flag in (False, rank == 1, True)]
    result["sum"] = collectives.all_reduce_sum(torch.tensor([1.0, rank]))
    result["place"] = [collectives.rank(), collectives.world_size(), collectives.is_main()]
    return result


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What each of two ranks gets, by dtype."""
    folder = tmp_path_factory.mktemp("ranks")
    port = free_port()
    ranks = [processes.Process(target=on_rank, args=(rank, port, folder), daemon=True) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", DTYPES)
def test_two_ranks_equal_one_process(two_ranks, name):
    dtype = DTYPES[name]
    ranks = [results[name] for results in two_ranks]
    rows, wanted, weight, gather_weight = whole(dtype)

    leaf = rows.clone().requires_grad_()
    (leaf[wanted] * weight).sum().backward()
    both = {}
    for key in ("fetched", "fetched_grad", "gathered_grad"):
        both[key] = torch.cat([result[key] for result in ranks])
    assert torch.equal(both["fetched"], rows[wanted])
    torch.testing.assert_close(both["fetched_grad"], leaf.grad)
    # A rank's rows collect what both ranks' losses have for them.
    torch.testing.assert_close(both["gathered_grad"], gather_weight.float().sum(0).to(dtype))
    for rank, result in enumerate(ranks):
        _, requested, _ = share(rank, rows, wanted, weight)
        assert torch.equal(result["gathered"], rows)
        assert torch.equal(result["one_sided"], rows[requested] if rank else rows[:0])
        assert torch.equal(result["flags"], rows[requested] > 0)
        assert torch.equal(result["numbers"], torch.tensor([0, 1, 2, 10, 11, 12])[requested])
        assert result["objects"] == [{"rank": 0}, {"rank": 1}]
        assert result["on_main"] == (None if rank else [{"rank": 0}, {"rank": 1}])
        assert result["any"] == [False, True, True]
        assert torch.equal(result["sum"], torch.tensor([2.0, 1.0]))
        assert result["place"] == [rank, 2, rank == 0]


def test_one_process_needs_no_group():
    rows = torch.randn(4, 2)
    assert (collectives.rank(), collectives.world_size(), collectives.is_main()) == (0, 1, True)
    assert collectives.all_gather_grad(rows) is rows
    assert torch.equal(collectives.exchange_rows(rows, torch.tensor([3, 3])), rows[[3, 3]])
    assert collectives.gather_objects("a") == ["a"]
    assert collectives.gather_on_main("a") == ["a"]
    assert collectives.any_rank(True)
    assert not collectives.any_rank(False)


def test_a_sum_over_ranks_is_a_new_tensor_without_a_gradient():
    tensor = torch.ones(2, requires_grad=True)
    total = collectives.all_reduce_sum(tensor)
    assert not total.requires_grad
    total += 1
    assert torch.equal(tensor.detach(), torch.ones(2))
