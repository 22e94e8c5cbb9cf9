"""Predictions for all items: each once, in evaluation mode, whatever the shares are."""

import numpy as np
import pytest
import torch
from torch import nn

from fiber_cli.tasks.base import Task
from fiber_cli.tasks.items import EvalItems
from fiber_cli.tasks.prediction import PredictOptions, predict_all

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
