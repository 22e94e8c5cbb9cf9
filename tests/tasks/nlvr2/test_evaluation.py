"""Evaluation of visual reasoning: every statement is predicted, those with a label are scored."""

import csv
import io
import json

import numpy as np
import pytest
from statement_files import write_statements

from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.sources.statements import StatementFile
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.nlvr2.evaluation import StatementSet, evaluation
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings


def test_predictions_are_scored_and_submitted(tmp_path, tokenizer):
    files = {f"dev-1-{pair}-img{side}.png": 50 for pair in range(2) for side in range(2)}
    labels = {"dev-1-0-0": "True", "dev-1-1-0": "False", "dev-1-0-1": "False", "dev-1-1-1": None, "dev-2-0-0": "False"}
    rows = [{"sentence": "t", "identifier": name, "label": label} for name, label in labels.items()]
    source = StatementFile(*write_statements(tmp_path, files, rows))
    evalset = StatementSet([source], tokenizer, 12, (32, 64))
    assert evalset.ids == list(labels)
    item = {name: getattr(value, "shape", value) for name, value in evalset.read(0).items()}
    assert item == {"pixels": (2, 3, 32, 64), "ids": (12,), "mask": (12,), "truncated": 0}
    # Right: 0-0 and 1-0, which are one group, and 2-0-0; wrong: 0-1. 1-1 has no label and counts nowhere.
    score = evalset.score({i: np.int64(said) for i, said in ((4, 0), (3, 1), (2, 1), (1, 0), (0, 1))})
    assert score.metrics == pytest.approx({"nlvr2/accuracy": 75, "nlvr2/consistency": 200 / 3, "nlvr2/majority": 75})
    assert score.files == {
        "predictions.csv": "dev-1-0-0,True\ndev-1-1-0,False\ndev-1-0-1,True\ndev-1-1-1,True\ndev-2-0-0,False\n"
    }
    assert score.notes == ["1 statements have no label: predicted only"]
    some = evalset.score({0: np.int64(1), 2: np.int64(0)})
    assert some.metrics["nlvr2/accuracy"] == 100
    assert some.notes == []
    hidden = evalset.score({3: np.int64(0)})
    assert hidden.metrics == {}
    assert hidden.files["predictions.csv"] == "dev-1-1-1,False\n"
    (batch,) = evalset.loader(rank=0, world=1, batch_size=8, workers=0)
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert batch["bad"][0][0] == "dev-2-0-0"


def test_an_identifier_splits_a_row_of_the_predictions(tmp_path, tokenizer):
    names = ["a,b", 'says "yes"', "new\nline", "plain"]
    rows = [{"sentence": "t", "identifier": name, "image": "a.png"} for name in names]
    evalset = StatementSet([StatementFile(*write_statements(tmp_path, {"a.png": 50}, rows))], tokenizer, 12, (32, 64))
    written = evalset.score({i: np.int64(1) for i in range(4)}).files["predictions.csv"]
    assert list(csv.reader(io.StringIO(written))) == [[name, "True"] for name in names]


def test_real_statements_are_scored(shared, tokenizer):
    folder = shared / "data" / "nlvr"
    val = StatementFile(folder / "statements_val.jsonl", folder / "val")
    evalset = StatementSet([val], tokenizer, 40, (64, 64))
    rows = [json.loads(line) for line in (folder / "statements_val.jsonl").read_text().splitlines()]
    right = evalset.score({i: np.int64(row["label"]) for i, row in enumerate(rows)}).metrics
    assert right["nlvr2/accuracy"] == right["nlvr2/consistency"] == 100
    always = evalset.score({i: np.int64(1) for i in range(len(rows))}).metrics
    assert 50 < always["nlvr2/majority"] < 60
    assert always["nlvr2/majority"] == pytest.approx(max(always["nlvr2/accuracy"], 100 - always["nlvr2/accuracy"]))
    sentences = {row["identifier"].split("-")[0] for row in rows}
    wrong = {row["identifier"].split("-")[0] for row in rows if not row["label"]}
    assert always["nlvr2/consistency"] == pytest.approx(100 * (1 - len(wrong) / len(sentences)))


def test_all_statements_of_the_sources_are_evaluated(tokenizer):
    context = TaskContext(Nlvr2Settings("nlvr2"), TINY, tokenizer, 12)
    two, one = ScenesSource("val", 3), ScenesSource("val", 3, pairs=False)
    measured = evaluation([two], context, EvaluationOptions())
    assert measured.mode == "nlvr2"
    assert len(measured.evalset) == sum(len(two.statements(i)) for i in range(3))
    with pytest.raises(UserError, match="statements about one image and about two cannot be evaluated together"):
        evaluation([two, one], context, EvaluationOptions())
