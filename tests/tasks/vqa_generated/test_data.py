"""Samples of VQA by generation: a question, and behind it an annotator's answer that is learned alone."""

from collections import Counter

import numpy as np
import pytest
from vqa_files import SAID, annotation, vqa_source, write_annotations

from fiber_cli.data.source import BadSample
from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions
from fiber_cli.tasks.vqa_generated.data import GeneratedVqaReader, training_data
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings

LENGTH, ANSWER_LENGTH = 12, 5


@pytest.fixture
def reader(tokenizer):
    return GeneratedVqaReader(tokenizer, LENGTH, ANSWER_LENGTH, 32, "none")


def answer_of(tokenizer, sample) -> str:
    learned = sample["labels"][sample["labels"] != -100]
    assert learned[-1] == tokenizer.sep_token_id
    return tokenizer.decode(learned, skip_special_tokens=True).strip()


def test_the_question_is_learned_or_the_answer_is_not(vqa_folder, tokenizer, reader):
    sample = reader(vqa_source(vqa_folder), 1, np.random.default_rng(0))
    assert sample["ids"].shape == sample["mask"].shape == sample["labels"].shape == (LENGTH + ANSWER_LENGTH,)
    question, answer = tokenizer("is it left of you?")["input_ids"], tokenizer("yes")["input_ids"][1:]
    real = len(question) + len(answer)
    assert sample["ids"][sample["mask"]].tolist() == question + answer
    assert sample["mask"].tolist() == [True] * real + [False] * (len(sample["ids"]) - real)
    # Every position is labelled with the token behind it, from the question's closing one on.
    expected = [-100] * (len(question) - 1) + answer
    assert sample["labels"].tolist() == expected + [-100] * (len(sample["ids"]) - len(expected))
    assert sample["truncated"] == 0


def test_answers_are_not_drawn_by_how_many_gave_them(vqa_folder, tokenizer, reader):
    source = vqa_source(vqa_folder)
    drawn = Counter(answer_of(tokenizer, reader(source, 0, np.random.default_rng(seed))) for seed in range(300))
    assert drawn.keys() == {"cat", "dog", "pig"}  # "Dog" in the official form
    for answer, said in (("cat", 3), ("dog", 1), ("pig", 6)):
        assert drawn[answer] / 300 == pytest.approx(said / 10, abs=0.1)
    assert SAID[10].count("Dog") == 1


def test_long_texts_are_cut_without_a_word(vqa_folder, tokenizer):
    said = ["a very long answer about a cat beside the small green house"] * 10
    write_annotations(vqa_folder / "some.json", [annotation(10, said)])
    source = vqa_source(vqa_folder, "some.json")
    short = GeneratedVqaReader(tokenizer, 4, ANSWER_LENGTH, 32, "none")
    sample = short(source, 0, np.random.default_rng(0))
    assert sample["truncated"] == 2
    assert len(sample["ids"]) == 4 + ANSWER_LENGTH
    assert sample["mask"].all()
    assert sample["ids"][[3, -1]].tolist() == [tokenizer.sep_token_id] * 2


def test_questions_without_an_answer_are_trained_on(vqa_folder, tokenizer, reader):
    write_annotations(vqa_folder / "some.json", [annotation(10, ["cat"] * 10), annotation(11, ["the", "a"])])
    source = vqa_source(vqa_folder, "some.json")
    with pytest.raises(BadSample, match="no question with an answer"):
        reader(source, 1, np.random.default_rng(0))
    settings = GeneratedVqaSettings("vqa_generated", answer_length=ANSWER_LENGTH)
    context = TaskContext(settings, TINY, tokenizer, LENGTH)
    data = training_data([source], context, ReadingOptions("none", "random"))
    (answerable,) = data.sources
    assert [answerable.key(i) for i in range(len(answerable))] == ["10"]
    assert data.labels is None
    assert data.notice == "3 questions without an answer are not trained on"
