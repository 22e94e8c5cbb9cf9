"""Samples of VQA: which question is taken, what its answers are worth, when the picture may be mirrored."""

import numpy as np
import pytest
import torch
from colour_images import ColourImages
from PIL import Image
from vqa_files import PATTERN, QUESTIONS, VOCABULARY, vqa_source

from fiber_cli.data.mixing import Mixture, TrainSet
from fiber_cli.data.readers import collate
from fiber_cli.data.scenes.questions import answers
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.training_data import ReadingOptions
from fiber_cli.tasks.vqa.data import VqaReader, training_data
from fiber_cli.tasks.vqa.evaluation import VqaSet
from fiber_cli.tasks.vqa.metrics import normalise
from fiber_cli.tasks.vqa.settings import VqaSettings
from fiber_cli.tasks.vqa.vocabulary import write_vocabulary


def text_of(tokenizer, sample) -> str:
    """Without spaces, which the tokenizer may place otherwise."""
    return "".join(tokenizer.decode(sample["ids"][sample["mask"]], skip_special_tokens=True).split())


# Question 10: cat three times, dog once; pig, said six times, is no label. 20: "two" twice.
@pytest.mark.parametrize(("i", "expected"), [(0, [0, 0, 0.9, 0.3, 0]), (1, [1, 0, 0, 0, 0]), (2, [0, 0, 0, 0, 0.6])])
def test_targets_are_of_the_answers_in_the_vocabulary(vqa_folder, tokenizer, i, expected):
    reader, source = VqaReader(tokenizer, 12, 32, "none", VOCABULARY), vqa_source(vqa_folder)
    sample = reader(source, i, np.random.default_rng(0))
    assert sample["targets"].tolist() == pytest.approx(expected)
    assert sample["targets"].dtype == torch.float32
    assert sample["pixels"].shape == (3, 32, 32)
    assert sample["pixels"].dtype == torch.uint8
    assert sample["ids"].shape == sample["mask"].shape == (12,)
    assert sample["mask"].dtype == torch.bool
    assert sample["sample_ids"] == f"val_questions/{(10, 11, 20)[i]}"
    assert sample["truncated"] == 0
    assert text_of(tokenizer, sample) == QUESTIONS[i][2].replace(" ", "")


def test_what_cannot_be_used_is_a_bad_sample_and_replaced(vqa_folder, tokenizer):
    reader, source = VqaReader(tokenizer, 12, 32, "none", VOCABULARY), vqa_source(vqa_folder)
    rng = np.random.default_rng(0)
    with pytest.raises(BadSample, match="no question with an answer in the vocabulary"):
        reader(source, 3, rng)
    with pytest.raises(BadSample, match="no such file"):
        VqaReader(tokenizer, 12, 32, "none", ["right"])(source, 3, rng)
    train_set = TrainSet(Mixture([source], [1.0], 0), reader)
    batch = collate([train_set[0, i] for i in range(4)])
    assert batch["targets"].shape == (4, 5)
    assert batch["bad"] == [("val_questions/30", "no question with an answer in the vocabulary")]


def test_long_questions_are_cut_and_counted(vqa_folder, tokenizer):
    reader = VqaReader(tokenizer, 4, 32, "none", VOCABULARY)
    assert reader(vqa_source(vqa_folder), 0, np.random.default_rng(0))["truncated"] == 1


def test_pictures_are_mirrored_only_where_no_side_is_spoken_of(vqa_folder, tokenizer):
    """Neither in the question (11) nor by an annotator (30)."""
    reader, source = VqaReader(tokenizer, 12, 32, "randaugment", [*VOCABULARY, "right"]), vqa_source(vqa_folder)
    Image.new("RGB", (40, 30)).save(vqa_folder / "images" / PATTERN.format(image_id=3))
    flips = []

    def transform(image, rng, flip):
        flips.append(flip)
        return torch.zeros(3, 32, 32, dtype=torch.uint8)

    reader.transform = transform
    for i in range(4):
        reader(source, i, np.random.default_rng(i))
    assert flips == [True, False, True, False]


def test_questions_are_drawn_among_the_usable_ones_of_an_image(tokenizer):
    source = ScenesSource("train", 1)
    questions = {question.text.replace(" ", ""): question for question in source.questions(0)}
    usable = {text for text, question in questions.items() if question.answers[0] in ("yes", "no")}
    assert 1 < len(usable) < len(questions)
    drawn = set()
    reader = VqaReader(tokenizer, 40, 32, "none", ["no", "yes"])
    for seed in range(30):
        sample = reader(source, 0, np.random.default_rng(seed))
        text = text_of(tokenizer, sample)
        drawn.add(text)
        answer = questions[text].answers[0]
        assert sample["targets"].tolist() == [answer == "no", answer == "yes"]
    assert drawn == usable


def context(tokenizer, **settings) -> TaskContext[VqaSettings]:
    return TaskContext(VqaSettings("vqa", **settings), TINY, tokenizer, text_length=12)


def test_training_alone_leaves_out_what_the_vocabulary_cannot_answer(vqa_folder, tokenizer):
    write_vocabulary(vqa_folder / "answers.json", VOCABULARY)
    source = vqa_source(vqa_folder)
    of_file = context(tokenizer, answers=str(vqa_folder / "answers.json"))
    data = training_data([source], of_file, ReadingOptions("none", "random"))
    assert data.labels == tuple(VOCABULARY)
    (answerable,) = data.sources
    assert [answerable.key(i) for i in range(len(answerable))] == ["10", "11", "20"]
    assert data.notice == "1 questions without an answer in the vocabulary are not trained on"
    assert len(VqaSet([source], tokenizer, 12, 32, VOCABULARY)) == 4


def test_scenes_are_trained_on_whole_with_their_own_answers(tokenizer):
    scenes = ScenesSource("val", 3)
    data = training_data([scenes], context(tokenizer), ReadingOptions("none", "random"))
    assert list(data.sources) == [scenes]
    assert data.labels == tuple(answers())
    assert data.notice is None


def test_sources_without_questions_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"data\.train: colours has no questions; name a source that has them"):
        training_data([ColourImages(3)], context(tokenizer), ReadingOptions("none", "random"))


def test_answers_of_the_scenes_are_a_vocabulary():
    labels, source = list(answers()), ScenesSource("train", 2000, seed=3)
    assert len(set(labels)) == len(labels)
    assert [normalise(label) for label in labels] == labels
    seen = set()
    for i in range(len(source)):
        questions = source.questions(i)
        assert len({question.question_id for question in questions}) == len(questions) > 1
        for question in questions:
            assert len(question.answers) == 10
            assert len(set(question.answers)) == 1
            seen.add(question.answers[0])
    assert seen == set(labels), "a label is missing, or idle"
