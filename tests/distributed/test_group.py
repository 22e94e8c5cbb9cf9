"""The process group that a launcher's environment describes."""

import os

import pytest
import torch
import torch.distributed as td
from toy_runs import processes

from fiber_cli.distributed import group
from fiber_cli.distributed.group import _slurm_env, init_from_env, leave
from fiber_cli.errors import UserError

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS")
STEP = ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "777",
    "SLURM_JOB_NODELIST": "a,b",
}


@pytest.fixture
def ungrouped(monkeypatch):
    """A process that no launcher started and that is in no group."""
    for name in (*LAUNCHER, *STEP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(td, "is_initialized", lambda: False)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[07-09,12],cpu3", "gpu07"), ("node4", "node4"), ("a-1,a-2", "a-1"), ("n[3,5]", "n3")],
)
def test_slurm_variables_become_ranks(nodes, first):
    env = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "777"}
    assert _slurm_env(env | {"SLURM_JOB_NODELIST": nodes}) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": first,
        "MASTER_PORT": "20777",
    }


def test_a_master_that_is_named_comes_before_slurms_first_node():
    env = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "a,b"}
    named = _slurm_env(env | {"MASTER_ADDR": "c", "MASTER_PORT": "1"})
    assert (named["MASTER_ADDR"], named["MASTER_PORT"]) == ("c", "1")


@pytest.fixture
def joined(ungrouped, monkeypatch):
    """The backends and options of the groups that a process without a GPU is made to join."""
    for name in LAUNCHER:
        # Set before they are removed, so that what is set under these names goes again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(td, "init_process_group", lambda backend, **options: calls.append((backend, options)))
    monkeypatch.setattr(group, "meet", lambda *arguments: arguments)
    monkeypatch.setattr(group._turns, "store", None)  # what joining sets goes again
    monkeypatch.setattr(group.atexit, "register", lambda function: None)
    return calls


def test_ranks_under_slurm_join_a_group(joined, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    init_from_env()
    ((backend, options),) = joined
    assert (backend, options["rank"], options["world_size"]) == ("gloo", 5, 8)
    assert options["store"] == (5, 8, "a", 20777)
    assert options["timeout"].total_seconds() == 1800
    expected = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "20777"}
    assert {name: os.environ[name] for name in expected} == expected


def test_a_launcher_inside_a_slurm_job_is_believed(joined, monkeypatch):
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}
    for name, value in (SLURM | ranks).items():
        monkeypatch.setenv(name, value)
    init_from_env()
    assert {name: os.environ[name] for name in ranks} == ranks


def test_a_slurm_job_of_one_task_waits_for_nobody(joined, monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    init_from_env()
    assert joined == []
    assert "RANK" not in os.environ


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, True),  # a script of sbatch
        ({"SLURM_NTASKS": "8"}, False),  # a shell of salloc
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "9", "SLURM_STEP_NUM_TASKS": "1"}, False),
    ],
)
def test_a_process_that_srun_has_not_started_waits_for_the_tasks_of_its_job(
    joined, monkeypatch, capsys, variables, told
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    init_from_env()
    assert joined == []
    assert "RANK" not in os.environ
    said = "SLURM_NTASKS=8, but srun has not started this process: it works alone; `srun fiber …` starts all 8"
    assert (said in capsys.readouterr().err) == told


@pytest.mark.parametrize(("rank", "tasks"), [("0", "2"), ("1", "2")])
def test_a_step_of_a_larger_job_waits_for_all_of_the_job(joined, monkeypatch, rank, tasks):
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": tasks, "SLURM_PROCID": rank, "SLURM_NTASKS": "8"}
    for name, value in (SLURM | step).items():
        monkeypatch.setenv(name, value)
    init_from_env()
    assert joined[0][1]["world_size"] == 2
    assert joined[0][1]["rank"] == int(rank)


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("RANK", "-1"), ("MASTER_PORT", "http")])
def test_a_variable_that_is_no_number_is_a_traceback(joined, monkeypatch, name, value):
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500", name: value}
    for each, set_to in ranks.items():
        monkeypatch.setenv(each, set_to)
    with pytest.raises(UserError, match=f"{name}='{value}' is no number"):
        init_from_env()


def test_more_processes_than_gpus_are_refused(joined, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="process 2 of this machine has no GPU: there are 2; start at most one"):
        init_from_env(always=True)
    assert joined == []


def test_a_process_takes_its_own_gpu(joined, monkeypatch):
    taken = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    init_from_env(always=True)
    assert taken == [torch.device("cuda", 1)]
    assert joined[0][0] == "nccl"


def test_a_single_process_stays_alone(ungrouped, monkeypatch):
    monkeypatch.setattr(td, "init_process_group", lambda *_, **__: pytest.fail("joined a group"))
    init_from_env()


def test_an_incomplete_environment_is_told(ungrouped, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="WORLD_SIZE=2 is set but MASTER_ADDR, MASTER_PORT is not; use a launcher"):
        init_from_env()


def alone():
    """A process that makes a group of one, twice, and leaves it, twice."""
    for name in LAUNCHER:
        os.environ.pop(name, None)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    init_from_env(always=True)
    init_from_env(always=True)
    assert (td.get_rank(), td.get_world_size()) == (0, 1)
    leave()
    leave()
    assert not td.is_initialized()


def test_a_group_of_one_is_made_where_one_is_wanted():
    process = processes.Process(target=alone)
    process.start()
    process.join(60)
    assert process.exitcode == 0
