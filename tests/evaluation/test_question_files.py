"""Files of questions as data sets: found with their answers and pictures, and never taken for another form."""

import json

import pytest

from fiber_cli.data.sources import open_source
from fiber_cli.errors import UserError
from fiber_cli.evaluation.datasets import eval_data, tasks_for
from fiber_cli.evaluation.question_files import holds_questions


@pytest.fixture
def asked(tmp_path):
    """Makes a file of questions about pictures 7 and 12, of which the folder has files of these names."""

    def make(name="questions.json", pictures=("000007.png", "000012.png"), image_ids=(7, 12)):
        (tmp_path / "images").mkdir(exist_ok=True)
        for picture in pictures:
            (tmp_path / "images" / picture).touch()
        questions = [{"question": "is it?", "question_id": number, "image_id": i} for number, i in enumerate(image_ids)]
        (tmp_path / name).write_text(json.dumps({"info": {}, "questions": questions}))
        return tmp_path / name

    return make


def answered(file):
    answers = [{"question_id": 0, "image_id": 7, "multiple_choice_answer": "no", "answers": [{"answer": "no"}]}]
    file.write_text(json.dumps({"annotations": answers}))


@pytest.mark.parametrize(
    ("questions", "answers"),
    [
        ("questions.json", "answers.json"),
        ("my_questions_val.json", "my_annotations_val.json"),
        ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    ],
)
def test_answers_beside_questions_are_not_read(asked, tmp_path, questions, answers):
    file = asked(questions)
    (source,) = eval_data(str(file), "vqa").sources
    assert source.annotations is None
    answered(tmp_path / answers)
    read = open_source(eval_data(str(file), "vqa").sources[0])
    assert [question.answers[:1] for i in range(2) for question in read.questions(i)] == [("no",), ()]


@pytest.mark.parametrize(
    "pictures",
    [
        ["000007.png", "000012.png"],
        ["7.jpg", "12.jpg", "70.jpg"],
        ["COCO_val2014_000000000007.jpg", "COCO_val2014_000000000012.jpg"],
        ["a{b}7.jpeg", "a{b}12.jpeg", "notes.txt"],
    ],
)
def test_pictures_are_looked_for_under_other_names(asked, pictures):
    (source,) = eval_data(str(asked(pictures=pictures)), "vqa").sources
    assert [source.pattern.format(image_id=number) for number in (7, 12)] == pictures[:2]


def test_pictures_that_are_not_there_end_in_a_traceback(asked, tmp_path):
    file = asked(pictures=["000008.png"])
    with pytest.raises(UserError, match=r"images: has no picture of image_id 7, which .*questions\.json begins with"):
        eval_data(str(file), "vqa")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "7.jpg").touch()
    (source,) = eval_data(str(file), "vqa", images=tmp_path / "elsewhere").sources
    assert source.pattern == "{image_id}.jpg"


def test_questions_about_pictures_without_a_number_end_in_a_traceback(asked):
    with pytest.raises(UserError, match="no question with a number as image_id"):
        eval_data(str(asked(image_ids=("x",))), "vqa")


def test_a_file_of_questions_is_taken_for_captions_or_boxes(asked, tmp_path):
    assert tasks_for(str(asked())) == ("vqa", "vqa_generated")
    with pytest.raises(UserError, match="is for checkpoints of vqa, vqa_generated, not of coarse"):
        eval_data(str(asked()), "coarse")
    (tmp_path / "captions.json").write_text('{"images": []}')
    assert "vqa" not in tasks_for(str(tmp_path / "captions.json"))
    assert not holds_questions(tmp_path / "nothing.json")
