"""Evaluation of generated answers: put in words, and scored as classified ones are."""

import pytest
import torch
from vqa_files import vqa_source

from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.vqa_generated.evaluation import evaluation
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings


def test_tokens_are_scored_or_submitted_otherwise_than_their_words(vqa_folder, tokenizer):
    context = TaskContext(GeneratedVqaSettings("vqa_generated"), TINY, tokenizer, 12)
    measured = evaluation([vqa_source(vqa_folder)], context, EvaluationOptions())
    assert measured.mode == "vqa_generated"
    rows = {}
    for number, answer in enumerate(("cat", "yes", "2", "on the left")):
        ids = tokenizer(answer)["input_ids"][1:-1]
        rows[number] = torch.tensor(ids + [tokenizer.pad_token_id] * (8 - len(ids))).numpy()
    score = measured.evalset.score(rows)
    # cat: 3 of 10; all say yes; "two" twice; 9 of 10 on the left.
    assert score.metrics["vqa/accuracy"] == pytest.approx((90 + 100 + 60 + 100) / 4)
    assert [entry["answer"] for entry in score.files["predictions.json"]] == ["cat", "yes", "2", "on the left"]
