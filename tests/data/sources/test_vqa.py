"""VQAv2's files: questions and annotations are joined, and what is wrong is told."""

import json
import pickle

import numpy as np
import pytest
from vqa_files import SAID, annotation, vqa_source, write_annotations

from fiber_cli.data.records import Question
from fiber_cli.data.source import BadSample
from fiber_cli.data.sources.vqa import read_annotations
from fiber_cli.errors import UserError


def test_questions_and_annotations_are_joined(vqa_folder):
    source = pickle.loads(pickle.dumps(vqa_source(vqa_folder)))
    assert source.name == "val_questions"
    assert len(source) == 4
    assert [source.key(i) for i in range(4)] == ["10", "11", "20", "30"]
    assert source.questions(2) == (Question("how many?", tuple(SAID[20]), 20, "number", "how many"),)
    assert [source.image(i).getpixel((5, 5))[0] // 80 for i in range(3)] == [1, 1, 2]
    assert sorted(source.order(np.random.default_rng(0))) == [0, 1, 2, 3]
    with pytest.raises(BadSample, match=r"no such file.*COCO_val2014_000000000003.jpg"):
        source.image(3)


def test_one_answer_alone_stands_for_all_annotators(vqa_folder):
    write_annotations(vqa_folder / "one.json", [annotation(10, ["cat"])])
    source = vqa_source(vqa_folder, "one.json")
    assert source.questions(0)[0].answers == ("cat",) * 10
    assert source.questions(1)[0].answers == ()


def test_questions_without_annotations_have_no_answers(vqa_folder):
    source = vqa_source(vqa_folder, None)
    assert source.questions(0) == (Question("what animal is it?", (), 10, "unknown", "unknown"),)
    with pytest.raises(UserError, match=r"no question of val_questions has an answer in the vocabulary.*annotations"):
        source.answerable(lambda question: bool(question.answers))


def test_training_leaves_out_what_has_no_answer_and_counts_it(vqa_folder):
    source = vqa_source(vqa_folder)
    answerable = source.answerable(lambda question: question.question_id != 30)
    assert [answerable.key(i) for i in range(len(answerable))] == ["10", "11", "20"]
    assert answerable.dropped == 1
    assert [answerable.questions(i)[0].question_id for i in range(3)] == [10, 11, 20]
    assert answerable.image(2).getpixel((5, 5))[0] > 170
    one = source.answerable(lambda question: "two" in question.answers)
    assert [one.key(0), len(one), one.dropped] == ["20", 1, 3]
    assert one.image(0).getpixel((5, 5))[0] > 170
    assert (len(source), source.dropped) == (4, 0)


@pytest.mark.parametrize("pattern", ["{id}.jpg", "{}.jpg", "{image_id:x^^}.jpg"])
def test_a_pattern_that_does_not_fit_is_told(vqa_folder, pattern):
    with pytest.raises(UserError, match=r"pattern .*: not fit for image_id 1 .*wanted is one like COCO_val2014"):
        vqa_source(vqa_folder, pattern=pattern)


def test_files_that_do_not_belong_together_are_told(vqa_folder):
    with pytest.raises(UserError, match=r"holds none of 4 images looked for, such as 000000000001.jpg"):
        vqa_source(vqa_folder, pattern="{image_id:012d}.jpg")
    write_annotations(vqa_folder / "other.json", [annotation(99, ["yes"] * 10)])
    with pytest.raises(UserError, match=r"other.json: has no answer to any question of .*they are of other splits"):
        vqa_source(vqa_folder, "other.json")
    with pytest.raises(
        UserError,
        match=r"val_questions.json: not a VQAv2 annotations JSON, has no list 'annotations'; wanted is \{\"annot",
    ):
        vqa_source(vqa_folder, "val_questions.json")
    with pytest.raises(UserError, match=r"absent.json: No such file.*VQAv2's annotations JSON"):
        vqa_source(vqa_folder, "absent.json")


@pytest.mark.parametrize(
    "change", [{"answers": ["yes"]}, {"answers": None}, {"answers": [{}]}, {"multiple_choice_answer": 3}]
)
def test_annotations_of_another_form_are_told_with_their_place(tmp_path, change):
    entry = annotation(10, ["yes"])
    path = write_annotations(tmp_path / "bad.json", [entry, entry | change])
    with pytest.raises(
        UserError, match=r"bad.json: not a VQAv2 annotations JSON, see annotations\[1\] .*wanted is .*answers"
    ):
        read_annotations(path)


def test_entries_that_lack_fields_are_told(vqa_folder):
    write_annotations(vqa_folder / "bad.json", [annotation(10, ["yes"]), {"question_id": 10}])
    with pytest.raises(UserError, match=r"annotations\[1\] \(KeyError: 'multiple_choice_answer'\); wanted is"):
        vqa_source(vqa_folder, "bad.json")
    questions = vqa_folder / "val_questions.json"
    questions.write_text('{"questions": [{"question": "why?", "image_id": 1}, 3]}')
    with pytest.raises(UserError, match=r"questions\[0\] \(KeyError: 'question_id'\), 2 of 2 such"):
        vqa_source(vqa_folder)
    questions.write_text(json.dumps({"questions": [3]}))
    with pytest.raises(UserError, match=r"questions\[0\] \(TypeError"):
        vqa_source(vqa_folder)
    questions.write_text('{"questions": []}')
    with pytest.raises(UserError, match="not a VQAv2 questions JSON"):
        vqa_source(vqa_folder)


def changed(path, what, change):
    content = json.loads(path.read_text())
    change(content[what])
    path.write_text(json.dumps(content))


def test_questions_that_come_twice_are_taken(vqa_folder):
    changed(vqa_folder / "annotations.json", "annotations", lambda entries: entries[0].update(question_id="10"))
    with pytest.raises(UserError, match="the question_id 10 comes twice in annotations"):
        vqa_source(vqa_folder)
    changed(vqa_folder / "val_questions.json", "questions", lambda rows: rows[1].update(question_id=10))
    with pytest.raises(UserError, match="the question_id 10 comes twice in questions"):
        vqa_source(vqa_folder, None)


def test_ids_as_text_are_other_ids(vqa_folder):
    def as_text(rows):
        for row in rows:
            row.update(question_id=str(row["question_id"]), image_id=str(row["image_id"]))

    changed(vqa_folder / "val_questions.json", "questions", as_text)
    source = vqa_source(vqa_folder)
    assert source.questions(0)[0].answers == tuple(SAID[10])
    assert source.image(0).size == (40, 30)


@pytest.mark.parametrize("bad", [{"question": None}, {"question": " "}, {"image_id": None}, {"image_id": "one"}])
def test_one_bad_question_refuses_the_file(vqa_folder, bad, capsys):
    changed(vqa_folder / "val_questions.json", "questions", lambda rows: rows[1].update(bad))
    source = vqa_source(vqa_folder)
    assert [source.key(i) for i in range(len(source))] == ["10", "20", "30"]
    assert [place for place, _ in source.left_out] == ["questions[1]"]
    assert "1 of 4 questions is left out: questions[1]" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [{"answers": [{"answer": 3}]}, {"answers": None}, {"question_type": 3}])
def test_one_bad_annotation_refuses_the_file(vqa_folder, bad):
    changed(vqa_folder / "annotations.json", "annotations", lambda entries: entries[3].update(bad))
    source = vqa_source(vqa_folder)
    assert [bool(source.questions(i)[0].answers) for i in range(4)] == [False, True, True, True]
    assert [place for place, _ in source.left_out] == ["annotations[3]"]


@pytest.mark.parametrize(("image", "left"), [(1, [10, 11, 20, 30]), ("1", [10, 11, 20, 30]), (2, [11, 20, 30])])
def test_an_annotation_is_about_another_image(vqa_folder, image, left):
    entries = [annotation(number, said) for number, said in SAID.items()]
    write_annotations(vqa_folder / "moved.json", [{**entries[0], "image_id": image}, *entries[1:]])
    source = vqa_source(vqa_folder, "moved.json")
    assert [source.questions(i)[0].question_id for i in range(len(source))] == left
    said = [("questions[0]", "question 10 is about image 1, its annotation about image 2")]
    assert source.left_out == ([] if len(left) == 4 else said)


def test_annotations_of_other_images_are_refused(vqa_folder):
    write_annotations(
        vqa_folder / "moved.json", [{**annotation(number, said), "image_id": 9} for number, said in SAID.items()]
    )
    with pytest.raises(UserError, match=r"question 10 is about image 1, its annotation about image 9\), 4 of 4 such"):
        vqa_source(vqa_folder, "moved.json")
