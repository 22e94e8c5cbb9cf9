"""Collectives on two processes against the one-process result, and the launcher."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from fiber_cli.distributed import collectives as dist
from fiber_cli.errors import EXIT_STOPPED

ROWS, WIDTH = 6, 3


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
    return rows[rank * half :][:half], *((t[:2], t[2:])[rank] for t in (wanted, weight))


def on_rank(rank, port, folder, dtype):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    dist.init_from_env()
    rows, wanted, weight, gather_weight = whole(dtype)
    rows, wanted, weight = share(rank, rows, wanted, weight)
    leaf = rows.clone().requires_grad_()
    fetched = dist.exchange_rows(leaf, wanted)
    (fetched * weight).sum().backward()
    result = {"fetched": fetched.detach(), "fetched_grad": leaf.grad}
    leaf = rows.clone().requires_grad_()
    gathered = dist.all_gather_grad(leaf)
    (gathered * gather_weight[rank]).sum().backward()
    result |= {"gathered": gathered.detach(), "gathered_grad": leaf.grad}
    none = torch.empty(0, dtype=torch.int64)
    result["one_sided"] = dist.exchange_rows(rows, wanted if rank else none)
    result["flags"] = dist.exchange_rows(rows > 0, wanted)
    result["numbers"] = dist.exchange_rows(torch.arange(3) + 10 * rank, wanted)
    result["objects"] = dist.gather_objects({"rank": rank})
    result["any"] = [dist.any_rank(False), dist.any_rank(rank == 1), dist.any_rank(True)]
    result["sum"] = dist.all_reduce_sum(torch.tensor([1.0, rank]))
    result["facts"] = [dist.rank(), dist.world_size(), dist.local_rank(), dist.is_main()]
    torch.save(result, folder / f"{rank}.pt")
    dist.leave()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_ranks_equal_one_process(tmp_path, dtype):
    mp.start_processes(on_rank, args=(dist.free_port(), tmp_path, dtype), nprocs=2, start_method="spawn")
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    rows, wanted, weight, gather_weight = whole(dtype)

    leaf = rows.clone().requires_grad_()
    (leaf[wanted] * weight).sum().backward()
    both = {name: torch.cat([r[name] for r in ranks]) for name in ("fetched", "fetched_grad", "gathered_grad")}
    assert torch.equal(both["fetched"], rows[wanted])
    torch.testing.assert_close(both["fetched_grad"], leaf.grad)
    # A rank's rows collect what both ranks' losses have for them.
    torch.testing.assert_close(both["gathered_grad"], gather_weight.float().sum(0).to(dtype))
    for rank, result in enumerate(ranks):
        _, mine, _ = share(rank, rows, wanted, weight)
        assert torch.equal(result["gathered"], rows)
        assert torch.equal(result["one_sided"], rows[mine] if rank else rows[:0])
        assert torch.equal(result["flags"], rows[mine] > 0)
        assert torch.equal(result["numbers"], torch.tensor([0, 1, 2, 10, 11, 12])[mine])
        assert result["objects"] == [{"rank": 0}, {"rank": 1}]
        assert result["any"] == [False, True, True]
        assert torch.equal(result["sum"], torch.tensor([2.0, 1.0]))
        assert result["facts"] == [rank, 2, rank, rank == 0]


def test_one_process_needs_no_group():
    rows = torch.randn(4, 2)
    assert (dist.rank(), dist.world_size(), dist.is_main()) == (0, 1, True)
    assert dist.all_gather_grad(rows) is rows
    assert torch.equal(dist.exchange_rows(rows, torch.tensor([3, 3])), rows[[3, 3]])
    assert dist.gather_objects("a") == ["a"] and dist.any_rank(True) and not dist.any_rank(False)


@pytest.mark.parametrize(
    "nodes, first",
    [("gpu[07-09,12],cpu3", "gpu07"), ("node4", "node4"), ("a-1,a-2", "a-1"), ("n[3,5]", "n3")],
)
def test_slurm_variables_become_ranks(nodes, first):
    env = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "777"}
    found = dist._slurm_env(env | {"SLURM_JOB_NODELIST": nodes})
    assert found == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": first, "MASTER_PORT": "20777"
    }  # fmt: skip


CHILD = """
import os, signal, sys, time
from pathlib import Path
rank, folder, what = int(os.environ["RANK"]), Path(sys.argv[1]), sys.argv[2]
def stop(*_):
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
(folder / f"{rank}-{os.getpid()}-of-{os.environ['WORLD_SIZE']}").touch()
if what == "fail" and rank == 1:
    sys.exit(3)
if what != "done":
    time.sleep(60)
"""


@pytest.fixture
def launcher(tmp_path):
    """Starts `dist.launch` over a stand-in for the command line; returns the process and where its ranks sign
    in."""
    package, signed = tmp_path / "fake" / "fiber_cli", tmp_path / "signed"
    package.mkdir(parents=True)
    signed.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(CHILD)
    code = "import sys; from fiber_cli.distributed import collectives as dist; import os; os.chdir(sys.argv[1])\n"
    code += "os.environ.update(PYTHONPATH='.'); sys.exit(dist.launch(2, sys.argv[2:]))"
    root = str(Path(__file__).parents[2])

    def start(what):
        command = [sys.executable, "-c", code, str(package.parent), str(signed), what]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}, cwd=tmp_path)
        deadline = time.monotonic() + 60
        while len(list(signed.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        return process, sorted(path.name for path in signed.iterdir())

    return start


def alive(names):
    """Whether any of the signed-in ranks still runs; waits a moment for the dying."""
    pids = [int(name.split("-")[1]) for name in names]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = [
            pid
            for pid in pids
            if Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
        ]
        if not left:
            return False
        time.sleep(0.05)
    return True


def test_launcher_gives_each_rank_its_number(launcher):
    process, names = launcher("done")
    assert process.wait(60) == 0
    assert [(name.split("-")[0], name.split("-")[3]) for name in names] == [("0", "2"), ("1", "2")]


def test_launcher_passes_signals_on(launcher):
    process, names = launcher("wait")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == EXIT_STOPPED
    assert not alive(names)


def test_launcher_ends_the_others_when_one_rank_fails(launcher):
    process, names = launcher("fail")
    assert process.wait(60) == 3
    assert not alive(names)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the ranks of a killed launcher")
def test_ranks_die_with_a_killed_launcher(launcher):
    process, names = launcher("wait")
    process.kill()
    process.wait(60)
    assert not alive(names)
