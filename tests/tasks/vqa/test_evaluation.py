"""Evaluation of VQA: every question is predicted, those with annotators are scored."""

import numpy as np
import pytest
from vqa_files import PATTERN, SAID, TYPES, VOCABULARY, annotation, vqa_source, write_annotations

from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.vqa.evaluation import VqaSet, evaluation
from fiber_cli.tasks.vqa.settings import VqaSettings


def test_labels_are_scored_and_submitted(vqa_folder, tokenizer):
    write_annotations(vqa_folder / "some.json", [annotation(n, SAID[n], *TYPES[n]) for n in (10, 20, 30)])
    questions = VqaSet([vqa_source(vqa_folder, "some.json")], tokenizer, 12, (32, 64), VOCABULARY)
    assert questions.ids == [f"val_questions/{number}" for number in (10, 11, 20, 30)]
    item = {name: getattr(value, "shape", value) for name, value in questions.read(2).items()}
    assert item == {"pixels": (3, 32, 64), "ids": (12,), "mask": (12,), "truncated": 0}
    # cat: 3 of 10 = 0.9; 11 is not annotated; "2" for two "two" and eight "3" = 0.6; yes for 30 = 0.
    score = questions.score({3: np.int64(0), 2: np.int64(4), 0: np.int64(2), 1: np.int64(1)})
    assert score.metrics == pytest.approx(
        {
            "vqa/accuracy": 50.0,
            "vqa/other": 45.0,
            "vqa/number": 60.0,
            "vqa/question/what": 90.0,
            "vqa/question/how-many": 60.0,
            "vqa/question/where": 0.0,
        }
    )
    assert score.files == {
        "predictions.json": [
            {"question_id": 10, "answer": "cat"},
            {"question_id": 11, "answer": "no"},
            {"question_id": 20, "answer": "2"},
            {"question_id": 30, "answer": "yes"},
        ]
    }
    assert score.notes == ["1 questions have no annotations: predicted only"]


def test_a_split_without_annotations_is_submitted_alone(vqa_folder, tokenizer):
    questions = VqaSet([vqa_source(vqa_folder, None)], tokenizer, 12, 32, VOCABULARY)
    score = questions.score({0: np.int64(3)})
    assert score.metrics == {}
    assert score.files["predictions.json"] == [{"question_id": 10, "answer": "dog"}]


def test_the_questions_of_a_broken_image_are_left_out(vqa_folder, tokenizer):
    (vqa_folder / "images" / PATTERN.format(image_id=2)).write_bytes(b"\xff\xd8\xff no picture")
    questions = VqaSet([vqa_source(vqa_folder)], tokenizer, 12, 32, VOCABULARY)
    (batch,) = questions.loader(rank=0, world=1, batch_size=4, workers=0)
    assert batch["index"].tolist() == [0, 1]
    assert batch["pixels"].shape == (2, 3, 32, 32)
    assert [name for name, _ in batch["bad"]] == ["val_questions/20", "val_questions/30"]
    assert "not a readable image" in batch["bad"][0][1]
    assert "no such file" in batch["bad"][1][1]


def test_the_labels_of_the_checkpoint_are_the_answers(vqa_folder, tokenizer):
    context = TaskContext(VqaSettings("vqa"), TINY, tokenizer, 12, ("a", "b"))
    measured = evaluation([vqa_source(vqa_folder)], context, EvaluationOptions())
    assert measured.mode == "vqa"
    assert measured.evalset.vocabulary == ("a", "b")
    assert measured.evalset.read(0)["pixels"].shape == (3, *TINY.image_size)


@pytest.mark.parametrize(("annotators", "told"), [(2, True), (3, True), (4, False), (10, False)])
def test_questions_with_too_few_annotators_for_the_official_accuracy_are_told(vqa_folder, tokenizer, annotators, told):
    rows = [annotation(10, ["cat"] * annotators, *TYPES[10])]
    write_annotations(vqa_folder / "some.json", rows)
    questions = VqaSet([vqa_source(vqa_folder, "some.json")], tokenizer, 12, 32, VOCABULARY)
    score = questions.score({0: np.int64(VOCABULARY.index("cat"))})
    assert (score.metrics["vqa/accuracy"] < 99.9) == told
    assert any("fewer than 4 annotators" in note for note in score.notes) == told
