"""What two ranks must have the same before an evaluation."""

import shutil

import pytest
from rank_processes import on_two_ranks

from fiber_cli.checkpoints.loading import load
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.evaluation.evaluate import run_eval
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions


def evaluate(run, source, output, **options):
    results = run_eval(
        [source],
        dataset="scenes",
        split="val",
        loaded=load(run),
        output=output,
        options=EvaluationOptions(**options),
        predict=PredictOptions(4, workers=0),
    )
    return results["metrics"]


def same(rank, folder):
    return evaluate(folder / "run", ScenesSource("val", 6, image_size=64), folder / "out", mode="itc+itm")


def other_data(rank, folder):
    return evaluate(folder / "run", ScenesSource("val", 6 + rank, image_size=64), folder / "out", mode="itc")


def other_modes(rank, folder):
    source = ScenesSource("val", 6, image_size=64)
    return evaluate(folder / "run", source, folder / "out", mode="itm" if rank else "itc")


def other_weights(rank, folder):
    run = folder / "run" if rank == 0 else folder / "other"
    return evaluate(run, ScenesSource("val", 6, image_size=64), folder / "out", mode="itc")


def private_journals(rank, folder):
    from fiber_cli.distributed import agreement

    agreement.VISIBLE_SECONDS = 0.5
    return evaluate(folder / "run", ScenesSource("val", 6, image_size=64), folder / f"out{rank}", mode="itm")


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    shutil.copytree(saved, tmp_path / "other")
    weights = tmp_path / "other" / "checkpoints" / "step-000003" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    weights.with_name("SHA256SUMS").unlink()
    return tmp_path


def test_ranks_that_agree_give_no_figures(folder):
    first, second = on_two_ranks(folder, same)
    assert first.error is None
    assert first.result == second.result


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (other_data, "data[0]: the number of samples is 6 on rank 0"),
        (other_modes, "the mode is itc on rank 0"),
        (other_weights, "checkpoint 1 is step-000003 ("),
        (private_journals, "out0/.pairs, the output folder of rank 0"),
    ],
)
def test_ranks_that_differ_give_figures(folder, function, message):
    first, second = on_two_ranks(folder, function)
    assert message in first.error
    assert first.error == second.error
    assert (first.is_told, second.is_told) == (True, False)
