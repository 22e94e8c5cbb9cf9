"""What tasks are measured on: results of one set and of several, and options that are not for a task."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fiber_cli.errors import UserError
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.evalset import EvalSet, Score
from fiber_cli.tasks.evaluation import (
    ItemEvaluation,
    Result,
    distinct_names,
    measure_items,
    refuse_detection_options,
    refuse_retrieval_options,
    together,
)
from fiber_cli.tasks.evaluation_options import EvaluationOptions, PairScorer
from fiber_cli.tasks.prediction import PredictOptions

OPTIONS = PredictOptions(batch_size=2, workers=0)


class Brightness(Task):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        raise AssertionError

    def predict(self, batch):
        return self.gain * batch["pixels"].float().mean(1)


class Lamps(EvalSet):
    """Item i has a picture as bright as i."""

    left_out = (("lamp9", "no bulb"),)

    def __init__(self, count=4):
        self.ids = [f"lamp{number}" for number in range(count)]

    def read(self, index):
        return {"pixels": torch.full((3,), index), "truncated": 1}

    def score(self, predictions):
        right = [number == row for number, row in predictions.items()]
        return Score({"lamps/right": 100.0 * sum(right) / len(right)}, {"lamps.txt": "text"}, ["a note"])


def test_one_set_is_scored_and_counted():
    result = measure_items(Brightness(), Lamps(), OPTIONS)
    assert result == Result(
        {"lamps/right": 100.0},
        samples=4,
        bad=[("lamp9", "no bulb")],
        truncated=4,
        files={"lamps.txt": "text"},
        notes=["a note"],
    )


def test_nothing_to_evaluate_is_told():
    with pytest.raises(UserError, match="nothing to evaluate: no item could be read; check the data set's paths"):
        measure_items(Brightness(), Lamps(0), OPTIONS)


def test_a_blind_model_is_measured_beside():
    evaluation = ItemEvaluation("lamps", Lamps(), EvaluationOptions(blind=True))
    assert evaluation.mode == "lamps"
    result = evaluation.measure(Brightness(), OPTIONS)
    assert result.metrics == {"lamps/right": 100.0, "blind/lamps/right": 0.0}
    assert result.samples == 4
    seeing = ItemEvaluation("lamps", Lamps(), EvaluationOptions()).measure(Brightness(), OPTIONS)
    assert seeing.metrics == {"lamps/right": 100.0}


SCORER = PairScorer(Brightness(), None, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "itc", "checkpoint": "some/run"}, "--mode itc is for retrieval; some/run is a checkpoint of lamps"),
        ({"scorer": SCORER}, "--itm-checkpoint scores pairs: it is for retrieval with fusion"),
        ({"chunk": 40, "checkpoint": "some/run"}, "--chunk is for detection; some/run is a checkpoint of lamps"),
        ({"ap_library": "pycocotools"}, "--ap-library is for detection; the task is a checkpoint of lamps"),
    ],
)
def test_options_of_other_tasks_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ItemEvaluation("lamps", Lamps(), EvaluationOptions(**options))


def test_options_that_fit_are_not_refused():
    options = EvaluationOptions(mode="lamps", folder=Path("x"), fingerprint="f", rerank=())
    refuse_retrieval_options(options, "lamps")
    refuse_detection_options(options, "lamps")


def test_one_result_stays_as_it_is():
    result = Result({"a/b": 1.0}, samples=3)
    assert together(["set"], [result]) is result


def test_results_of_several_sets_stand_side_by_side():
    first = Result({"ap": 1.0, "ap50": 2.0}, 3, bad=[("x", "gone")], truncated=1, files={"f.json": [1]}, notes=["odd"])
    second = Result({"ap": 4.0, "r@1": 5.0}, 4, truncated=2, files={"f.json": [2]})
    assert together(["one", "two"], [first, second]) == Result(
        {"ap/one": 1.0, "ap50": 2.0, "ap/two": 4.0, "r@1": 5.0},
        samples=7,
        bad=[("x", "gone")],
        truncated=3,
        files={"one/f.json": [1], "two/f.json": [2]},
        notes=["one: odd"],
    )


def test_sets_of_one_name_are_numbered():
    assert distinct_names(["a", "b", "a"]) == ["a-1", "b", "a-3"]
    assert distinct_names(["a", "b"]) == ["a", "b"]


class Shades(EvalSet):
    """Pictures of one number each; a prediction is right where it is the item's own."""

    def __init__(self, count):
        self.ids = [str(number) for number in range(count)]

    def read(self, index):
        return {"pixels": torch.tensor(float(index))}

    def score(self, predictions):
        right = [float(row) == index for index, row in predictions.items()]
        return Score({"shade/accuracy": 100 * sum(right) / len(right)})


class Seeing(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def predict(self, batch):
        return batch["pixels"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_score_without_the_own_image_needs_another_image(count):
    measured = ItemEvaluation("shade", Shades(count), EvaluationOptions(blind=True))
    result = measured.measure(Seeing(), PredictOptions(2, 0))
    assert result.metrics["shade/accuracy"] == 100
    if count == 1:
        assert "blind/shade/accuracy" not in result.metrics
        assert "--blind measures nothing" in result.notes[0]
    else:
        assert result.metrics["blind/shade/accuracy"] == 0
        assert result.notes == []
