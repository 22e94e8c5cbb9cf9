"""What evaluations of numbered items share."""

import pytest
import torch
from torch import nn

from fiber_cli.tasks.evalset import EvalSet, Score
from fiber_cli.tasks.evaluation import EvaluationOptions, ItemEvaluation
from fiber_cli.tasks.prediction import PredictOptions


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
