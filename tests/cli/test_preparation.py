"""`fiber convert`, `fiber vqa-answers` and `fiber cider-df`."""

import json
from pathlib import Path

from fiber_cli.cli.preparation import published_checkpoints


def test_convert(run, calls):
    assert run("convert", "a.ckpt", "out", "--tokenizer", "here")[0] == 0
    assert calls.convert == [(Path("a.ckpt"), Path("out"), {"task": "coarse", "tokenizer": "here", "answers": None})]
    code, _, err = run("convert", "a.ckpt", "out", "--task", "retrieval")
    assert code == 2
    assert "retrieval-itc" in err
    assert len(calls.convert) == 1


def test_published_checkpoints_are_those_of_the_authors():
    assert set(published_checkpoints()) == {
        "coarse",
        "retrieval-itc",
        "retrieval-itm",
        "vqa",
        "nlvr2",
        "caption",
        "fine",
        "detection",
        "grounding",
        "refexp",
    }


def test_answers_that_occur_often_enough_are_written(run, tmp_path):
    annotations = []
    for number, answer in enumerate(["yes"] * 3 + ["no"]):
        answers = [{"answer": answer}]
        annotations.append({"question_id": number, "multiple_choice_answer": answer, "answers": answers})
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({"annotations": annotations}))
    code, out, _ = run("vqa-answers", str(file), "--output", "answers.json", "--minimum", "2")
    assert code == 0
    assert out == "answers.json: 1 answers\n"
    assert "yes" in Path("answers.json").read_text()


def test_n_grams_of_a_recipes_captions_are_counted(run):
    code, out, err = run("cider-df", "--recipe", "tiny", "--output", "table.json", "data.train.0.count=3")
    assert code == 0, err
    assert out == "table.json: n-grams of the captions of 3 images\n"
    assert Path("table.json").stat().st_size > 0
