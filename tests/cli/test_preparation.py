"""`fiber convert`, `fiber vqa-answers` and `fiber cider-df`."""

import json
import os
from pathlib import Path

import pytest
from files_server import serving

from fiber_cli.cli.preparation import published_checkpoints
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.outputs import LEDGER, sha256_of


def test_convert(run, calls):
    assert run("convert", "a.ckpt", "out", "--tokenizer", "here")[0] == 0
    options = {"task": "coarse", "tokenizer": "here", "answers": None, "force": False}
    assert calls.convert == [(Path("a.ckpt"), Path("out"), options)]
    code, _, err = run("convert", "a.ckpt", "out", "--task", "retrieval")
    assert code == 2
    assert "retrieval-itc" in err
    assert len(calls.convert) == 1


def test_a_fetched_file_is_another_than_the_one_at_the_address(run, calls, tmp_path):
    with serving({"fiber%20coarse.ckpt": b"weights" * 1000}) as server:
        for _ in range(2):
            assert run("convert", server.address, "out", "--downloads", "fetched")[0] == 0
        assert server.asked == [None]
    files = [file for file, _, _ in calls.convert]
    assert [file.name for file in files] == ["fiber_coarse.ckpt"] * 2
    assert files[0].read_bytes() == b"weights" * 1000
    assert files[0].parent.parent == Path("fetched")


def test_a_file_of_another_digest_is_converted(run, calls):
    Path("a.ckpt").write_bytes(b"weights")
    digest = sha256_of(Path("a.ckpt"))
    assert run("convert", "a.ckpt", "out", "--sha256", digest.upper())[0] == 0
    code, _, err = run("convert", "a.ckpt", "out", "--sha256", "0" * 64)
    assert code == 1
    assert f"a.ckpt: its SHA-256 is {digest}, not 000" in err
    assert len(calls.convert) == 1
    code, _, err = run("convert", "http://example.org/a.ckpt", "out")
    assert code == 1
    assert "not an https:// address" in err


def test_the_way_back_is_the_way_there(run, calls):
    assert run("convert", "runs/vqa", "out.ckpt", "--to-published", "--force")[0] == 0
    assert calls.convert_back == [("runs/vqa", Path("out.ckpt"), {"force": True})]
    code, _, err = run("convert", "runs/vqa", "out.ckpt", "--to-published", "--answers", "answers.json")
    assert code == 2
    assert "are of the way from a published checkpoint" in " ".join(err.split())


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
        "coco-detection",
        "lvis",
        "grounding",
        "refexp",
        "refcoco",
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


VQA = """
model: {preset: tiny}
task: {name: vqa, answers: vqa/answers.json}
data:
  train: [{kind: vqa, questions: q.json, images: i, annotations: a.json}, {kind: vqa, questions: q.json, images: i}]
optim: {lr: 1e-3, steps: 2}
runtime: {micro_batch: 2, global_batch: 2}
"""


def test_the_vocabulary_is_not_where_training_looks(run, tmp_path):
    """From the working folder, with the data elsewhere: as the recipe says, or as --output says."""
    (tmp_path / "data").mkdir()
    entry = {"question_id": 1, "multiple_choice_answer": "yes", "answers": [{"answer": "yes"}]}
    (tmp_path / "data/a.json").write_text(json.dumps({"annotations": [entry]}))
    (tmp_path / "recipe.yaml").write_text(VQA)
    recipe = ["--recipe", "recipe.yaml", "data.root=data"]
    below_root = tmp_path / "data/vqa/answers.json"
    code, out, err = run("vqa-answers", *recipe, "--minimum", "1")
    assert code == 0, err
    assert out == f"{below_root}: 1 answers\n"
    assert resolve_recipe("recipe.yaml", ["data.root=data"]).task.answers == str(below_root)
    below_root.unlink()
    assert run("vqa-answers", "data/a.json", "--output", "vqa/answers.json", "--minimum", "1")[0] == 0
    assert resolve_recipe("recipe.yaml", ["data.root=data"]).task.answers == str(tmp_path / "vqa/answers.json")


def test_document_frequencies_are_not_where_training_looks(run, tmp_path):
    overrides = ["task.objective=cider", "task.cider_df=table.json", "data.train.0.count=3", "data.root=data"]
    (tmp_path / "data").mkdir()
    assert run("cider-df", "--recipe", "tiny_caption", *overrides)[0] == 0
    assert resolve_recipe("tiny_caption", overrides).task.cider_df == str(tmp_path / "data/table.json")
    (tmp_path / "data/table.json").unlink()
    assert run("cider-df", "--recipe", "tiny_caption", "--output", "table.json", *overrides)[0] == 0
    assert resolve_recipe("tiny_caption", overrides).task.cider_df == str(tmp_path / "table.json")


def test_nothing_says_what_to_make_and_where(run, tmp_path):
    code, _, err = run("vqa-answers", "a.json")
    assert code == 2
    assert "give the annotations and --output, or a --recipe that names both" in " ".join(err.split())
    code, _, err = run("vqa-answers", "--recipe", "tiny")
    assert code == 1
    assert "a recipe for coarse; the vocabulary is VQA's" in err
    code, _, err = run("cider-df", "--recipe", "tiny")
    assert code == 2
    assert "tiny names no task.cider_df: give --output" in " ".join(err.split())


def test_a_vocabulary_of_no_answer_is_written(run, tmp_path):
    entry = {"question_id": 1, "multiple_choice_answer": "yes", "answers": [{"answer": "yes"}]}
    (tmp_path / "a.json").write_text(json.dumps({"annotations": [entry]}))
    code, _, err = run("vqa-answers", "a.json", "--output", "answers.json")
    assert code == 1
    assert "no answer comes 9 times in a.json: lower --minimum" in err
    assert not Path("answers.json").exists()


def test_n_grams_of_a_recipes_captions_are_counted(run):
    code, out, err = run("cider-df", "--recipe", "tiny_caption", "--output", "table.json", "data.train.0.count=3")
    assert code == 0, err
    assert out == "table.json: n-grams of the captions of 3 images\n"
    assert Path("table.json").stat().st_size > 0


ANSWERS = ("vqa-answers", "a.json", "--minimum", "1", "--output")
FREQUENCIES = ("cider-df", "--recipe", "recipe.yaml", "--output")
KARPATHY = """
model: {preset: tiny}
task: {name: caption}
data: {train: [{kind: karpathy, json: captions.json, images: images, split: train}]}
optim: {lr: 1e-3, steps: 2}
runtime: {micro_batch: 2, global_batch: 2}
"""


@pytest.fixture
def prepared(run, tmp_path):
    """The current folder with VQA's annotations, captions, a recipe over them, links to them, and a user's file."""
    entry = {"question_id": 1, "multiple_choice_answer": "yes", "answers": [{"answer": "yes"}]}
    (tmp_path / "a.json").write_text(json.dumps({"annotations": [entry]}))
    images = []
    for number in range(3):
        images.append({"filename": f"{number}.jpg", "split": "train", "imgid": number, "sentences": [{"raw": "a dog"}]})
    (tmp_path / "captions.json").write_text(json.dumps({"images": images}))
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.jpg").touch()
    (tmp_path / "recipe.yaml").write_text(KARPATHY)
    for name in ("a.json", "captions.json"):
        (tmp_path / f"symbolic-{name}").symlink_to(name)
        os.link(tmp_path / name, tmp_path / f"hard-{name}")
    (tmp_path / "user.json").write_text("a user's file")
    return tmp_path


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name != LEDGER}


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize(
    ("argv", "output"),
    [
        (ANSWERS, "a.json"),
        (ANSWERS, "images/../a.json"),
        (ANSWERS, "symbolic-a.json"),
        (ANSWERS, "hard-a.json"),
        (FREQUENCIES, "captions.json"),
        (FREQUENCIES, "symbolic-captions.json"),
        (FREQUENCIES, "hard-captions.json"),
        (FREQUENCIES, "./recipe.yaml"),
    ],
)
def test_what_is_read_is_replaced(run, prepared, argv, output, force):
    before = texts(prepared)
    code, _, err = run(*argv, output, *force)
    assert code == 1
    assert err.count("\n") == 1
    assert "is read by this command and would be overwritten" in err
    assert texts(prepared) == before


@pytest.mark.parametrize("argv", [ANSWERS, FREQUENCIES], ids=["answers", "frequencies"])
def test_a_users_file_is_replaced_and_an_earlier_output_is_not(run, prepared, argv):
    code, _, err = run(*argv, "user.json")
    assert (code, "user.json: is there already" in err) == (1, True)
    assert (prepared / "user.json").read_text() == "a user's file"
    assert run(*argv, "user.json", "--force")[0] == 0
    made = (prepared / "user.json").read_text()
    assert run(*argv, "new/made.json")[0] == run(*argv, "new/made.json")[0] == 0
    assert (prepared / "new/made.json").read_text() == made
    (prepared / "new/made.json").write_text(made + " ")
    assert run(*argv, "new/made.json")[0] == 1
    assert run(*argv, "/dev/null")[0] == 0


@pytest.mark.parametrize("argv", [ANSWERS, FREQUENCIES], ids=["answers", "frequencies"])
def test_without_room_something_is_left_or_lost(run, prepared, argv):
    resource = pytest.importorskip("resource")
    assert run(*argv, "made.json")[0] == 0
    (prepared / "captions.json").write_text((prepared / "captions.json").read_text().replace("a dog", "two cats here"))
    (prepared / "a.json").write_text((prepared / "a.json").read_text().replace("yes", "no"))
    before = texts(prepared)
    for size in range(10):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            code, _, err = run(*argv, "made.json")
            assert (code, "made.json: cannot be written (File too large" in err) == (1, True)
            assert run(*argv, "new/made.json")[0] == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert texts(prepared) == before
        assert not (prepared / "new").exists()
