"""Predictions for all items: each once, in evaluation mode, whatever the shares are."""

import numpy as np
import pytest
import torch
from rank_processes import on_two_ranks
from torch import nn

from fiber_cli.data.source import BadSample
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.evalset import EvalSet, Score
from fiber_cli.tasks.evaluation import measure_items
from fiber_cli.tasks.items import EvalItems
from fiber_cli.tasks.prediction import PredictOptions, predict_all, predict_on_main

OPTIONS = PredictOptions(batch_size=2, workers=0)


class Identity(Task):
    """Predicts rows of a unit matrix, as `dtype`."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))
        self.dtype = dtype
        self.modes = []
        self.contexts = []

    def forward(self, batch):
        raise AssertionError("predictions need no loss")

    def predict(self, batch):
        self.modes.append(self.training)
        self.contexts.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return self.weight[batch["index"]].to(self.dtype)


class Shares(EvalItems):
    """Batches that overlap, as a padded sampler's would: every row comes twice."""

    left_out = (("gone", "not there"),)

    def __init__(self):
        self.ids = ["a", "b"]

    def read(self, index):
        return {}

    def loader(self, *, rank, world, batch_size, workers):
        for index in ([0, 1], [1, 0]):
            yield {"index": torch.tensor(index), "bad": [], "truncated": 1}
        yield {"index": torch.tensor([], dtype=torch.int64), "bad": [("c", "damaged")], "truncated": 0}


def test_a_row_that_comes_twice_counts_once_and_training_mode_returns():
    task = Identity().train()
    rows, bad, truncated = predict_all(task, Shares(), OPTIONS)
    assert {number: row.tolist() for number, row in rows.items()} == {0: [1, 0, 0, 0], 1: [0, 1, 0, 0]}
    assert bad == [("gone", "not there"), ("c", "damaged")]
    assert truncated == 2
    assert task.training
    assert task.modes == [False, False]
    assert task.contexts == [(False, False)] * 2


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float16, np.float32), (torch.bfloat16, np.float32), (torch.int64, np.int64)]
)
def test_rows_are_arrays_of_a_type_that_numpy_has(dtype, expected):
    rows = predict_all(Identity(dtype), Shares(), OPTIONS).rows
    assert rows[0].dtype == expected


def test_the_precision_is_of_the_computation():
    task = Identity()
    predict_all(task, Shares(), PredictOptions(2, 0, "bf16"))
    assert task.contexts == [(False, True)] * 2


def test_a_list_of_predictions_is_kept_as_it_is():
    class Texts(Identity):
        def predict(self, batch):
            return [f"row {number}" for number in batch["index"].tolist()]

    assert predict_all(Texts(), Shares(), OPTIONS).rows == {0: "row 0", 1: "row 1"}


class Numbers(EvalSet):
    """Four items, the last of which cannot be read."""

    def __init__(self):
        self.ids = ["a", "b", "c", "d"]

    def read(self, index):
        if index == 3:
            raise BadSample("damaged")
        return {"truncated": index % 2}

    def score(self, predictions):
        rows = {str(number): row.argmax().item() for number, row in predictions.items()}
        return Score({"rows": float(len(rows))}, {"rows.json": rows})


def predict_on_two(rank, folder):
    rows, bad, truncated = predict_on_main(Identity(), Numbers(), OPTIONS)
    result = measure_items(Identity(), Numbers(), OPTIONS)
    return [sorted(rows), bad, truncated, result.metrics, result.samples, result.files, result.bad]


def test_ranks_that_do_not_score_get_what_is_scored(tmp_path):
    """All of them are told what could be read and what the score is; rows and files are the first rank's."""
    bad = [["d", "damaged"]]
    rows = {"0": 0, "1": 1, "2": 2}
    first, second = on_two_ranks(tmp_path, predict_on_two)
    assert (first.error, second.error) == (None, None)
    assert first.result == [[0, 1, 2], bad, 1, {"rows": 3.0}, 3, {"rows.json": rows}, bad]
    assert second.result == [[], bad, 1, {"rows": 3.0}, 3, {}, bad]
    one = measure_items(Identity(), Numbers(), OPTIONS)
    assert (one.metrics, one.samples, one.files) == ({"rows": 3.0}, 3, {"rows.json": rows})
