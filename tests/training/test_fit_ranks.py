"""What two ranks must have the same before the first step."""

import os
import shutil

from rank_processes import on_two_ranks
from small_runs import RECIPE
from tar_files import shard_sample, write_tar

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.training.fit import fit

SMALL = ["runtime.micro_batch=4", "log.save_every=1", "optim.steps=1", "optim.warmup=0"]


def recipe(*overrides):
    return parse_recipe(RECIPE, "test", [*SMALL, *overrides])


def assert_refused(ended, *parts):
    """On both ranks with one line, which has the parts, and which the first tells."""
    first, second = ended
    assert first.kind == second.kind == "SharedError"
    assert (first.is_told, second.is_told) == (True, False)
    assert len(first.error.splitlines()) == 1
    for part in parts:
        assert part in first.error


def other_recipes(rank, folder):
    return fit(recipe(f"optim.lr={1 + rank}e-3"), folder / "run")


def test_ranks_train_by_other_recipes(tmp_path):
    assert_refused(on_two_ranks(tmp_path, other_recipes, joins=False), "optim.lr is 0.001 on rank 0", "0.002 on rank 1")
    assert not (tmp_path / "run").exists()


def other_batches(rank, folder):
    return fit(recipe(f"runtime.micro_batch={4 - 2 * rank}"), folder / "run")


def test_ranks_take_other_batches(tmp_path):
    assert_refused(on_two_ranks(tmp_path, other_batches, joins=False), "runtime.micro_batch is 4 on rank 0")


def other_shards(rank, folder):
    os.chdir(folder / str(rank))
    data = "[{kind: webdataset, shards: cc}]"
    return fit(recipe(f"data.train={data}"), folder / "run")


def test_ranks_train_on_other_shards(tmp_path):
    for rank, numbers in enumerate([(0, 1), (0, 2)]):
        for number in numbers:
            samples = [member for i in range(8) for member in shard_sample(f"{number}{i}", f"text {i}")]
            write_tar(tmp_path / str(rank) / "cc" / f"{number:05}.tar", samples)
    assert_refused(
        on_two_ranks(tmp_path, other_shards, joins=False),
        "data.train[0]: the digest of the ids",
        "data.train[0]: the size of shard cc/00001.tar is ",
        "bytes on rank 0",
        "but absent on rank 1",
    )


def test_a_shard_of_another_size_is_taken(tmp_path):
    for rank, text in enumerate(["a", "a " * 3000]):
        samples = [member for i in range(8) for member in shard_sample(f"{i}", text)]
        write_tar(tmp_path / str(rank) / "cc" / "a.tar", samples)
    ended = on_two_ranks(tmp_path, other_shards, joins=False)
    assert_refused(ended, "ranks differ: data.train[0]: the size of shard cc/a.tar is ")


def other_weights(rank, folder):
    # As where a path is on each machine's own disk.
    os.chdir(folder / str(rank))
    return fit(recipe(), folder / "run", init_from="start")


def test_ranks_begin_with_other_weights(tmp_path, saved):
    for rank in (0, 1):
        shutil.copytree(saved, tmp_path / str(rank) / "start")
    ended = on_two_ranks(tmp_path, other_weights, joins=False)
    assert [each.result for each in ended] == [0, 0]
    weights = tmp_path / "1" / "start" / "checkpoints" / "step-000003" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(tmp_path / "run")
    assert_refused(on_two_ranks(tmp_path, other_weights, joins=False), "the checkpoint to start from is step-000003 (")


def test_weights_that_one_rank_does_not_have_hang_the_others(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "0" / "start")
    (tmp_path / "1").mkdir()
    ended = on_two_ranks(tmp_path, other_weights, joins=False)
    assert_refused(ended, f"rank 1 ({os.uname().nodename}): start does not exist")


def private_outputs(rank, folder):
    from fiber_cli.distributed import agreement

    agreement.VISIBLE_SECONDS = 0.5
    (folder / str(rank)).mkdir()
    os.chdir(folder / str(rank))
    return fit(recipe(), "runs/a")


def test_ranks_write_into_folders_of_their_own(tmp_path):
    ended = on_two_ranks(tmp_path, private_outputs, joins=False)
    assert_refused(ended, "the output folder of rank 0", f"rank 1 ({os.uname().nodename})", "--output")
    assert not list((tmp_path / "0" / "runs" / "a").iterdir())
