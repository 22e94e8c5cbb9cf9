"""`fiber caption`, `answer` and `detect`: which checkpoint they take and what they hand over."""

import shutil

import pytest
from commands import command
from PIL import Image
from run_folders import CELLS, SCENES, make_run

from fiber_cli.errors import UserError
from fiber_cli.inference import detect
from fiber_cli.inference.fiber import Fiber


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(file)
    return file


def test_the_newest_run_of_the_task_is_taken(runs, picture, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "answer", picture, "is there a star?")
    assert code == 1
    assert "no run of task vqa" in err
    (tmp_path / "runs").mkdir()
    for name in ("vqa", "caption"):
        (tmp_path / "runs" / name).symlink_to(runs[name])
    assert command(capsys, "answer", picture, "is there a star?")[0] == 0
    assert command(capsys, "caption", picture, "--beam", "1")[0] == 0


@pytest.mark.parametrize(
    ("task", "words"),
    [("caption", ["--beam", "1"]), ("vqa", ["is there a star?"]), ("vqa_generated", ["is there a star?"])],
)
def test_precision_or_device_is_not_taken(runs, picture, capsys, task, words, monkeypatch):
    asked = []
    from_pretrained = Fiber.from_pretrained

    def kept(path, **options):
        asked.append(options)
        return from_pretrained(path, **options)

    monkeypatch.setattr(Fiber, "from_pretrained", kept)
    verb = "caption" if task == "caption" else "answer"
    command_of = (verb, picture, *words, "--checkpoint", runs[task])
    code, out, _ = command(capsys, *command_of, "--precision", "int8", "--device", "cpu", "--no-tf32")
    assert code == 0
    assert out.startswith(str(picture))
    assert (asked[0]["precision"], asked[0]["device"], asked[0]["tf32"]) == ("int8", "cpu", False)
    code, _, err = command(capsys, *command_of, "--device", "abacus")
    assert code == 1
    assert "device 'abacus' cannot be used" in err


@pytest.fixture
def detected(tmp_path, monkeypatch) -> list[tuple[str, bool]]:
    """Runs in the order of docs/training.md, and what `fiber detect` takes: the run's name, and whether its latest
    checkpoint."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(
        detect, "run_detect", lambda checkpoint, files, *, latest, **more: calls.append((checkpoint.name, latest))
    )
    shapes = ("red star", "blue ring")
    make_run(tmp_path, "coarse", SCENES)
    make_run(tmp_path, "fine", SCENES, labels=shapes)
    make_run(tmp_path, "detection", SCENES, labels=shapes)
    make_run(tmp_path, "grounding", SCENES)
    make_run(tmp_path, "refexp", SCENES)
    make_run(tmp_path, "detection", CELLS, labels=("platelet", "red blood cell"))
    make_run(tmp_path, "vqa", SCENES)
    return calls


@pytest.mark.parametrize(
    ("words", "run"),
    [
        (["cat . dog"], "fine1"),
        (["Red  star . blue ring"], "detection2"),
        (["platelet"], "detection5"),
        (["a man beside two small dogs", "--phrases"], "grounding3"),
        (["two dogs", "--phrases", "dogs", "--latest"], "grounding3"),
    ],
)
def test_what_is_to_be_found_decides_on_the_detector(detected, picture, capsys, words, run):
    code, _, err = command(capsys, "detect", picture, *words)
    assert code == 0, err
    assert detected == [(run, "--latest" in words)]
    assert f"checkpoint: runs/{run}, the newest" in err


def test_labels_of_a_file_decide_on_the_detector(detected, picture, capsys, tmp_path):
    (tmp_path / "names.txt").write_text("red blood cell\nplatelet\n")
    assert command(capsys, "detect", picture, "--labels", "names.txt")[0] == 0
    assert detected == [("detection5", False)]


def test_of_a_run_the_best_is_used_and_the_latest_on_demand(runs, picture, capsys, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["vqa"], run)
    shutil.copytree(run / "checkpoints" / "step-000001", run / "checkpoints" / "step-000002")
    for pointer, step in (("best", "step-000001"), ("latest", "step-000002")):
        (run / "checkpoints" / pointer).write_text(f"{step}\n")
    (run / "recipe.yaml").write_text("log: {keep_best: vqa/accuracy}")
    words = ("answer", picture, "is there a star?", "--checkpoint", run)
    _, _, err = command(capsys, *words)
    assert f"{run}/checkpoints/step-000001, the best by vqa/accuracy; --latest takes step-000002" in err
    _, _, err = command(capsys, *words, "--latest")
    assert f"{run}/checkpoints/step-000002, the latest; the best by vqa/accuracy is step-000001" in err


@pytest.mark.parametrize(("option", "as_published"), [([], False), (["--as-published"], True), (["--published"], True)])
def test_the_published_search_has_two_names(runs, picture, capsys, monkeypatch, option, as_published):
    calls = []

    def caption(self, pictures, beam, as_published):
        calls.append((beam, as_published))
        return ["a red thing"] * len(pictures)

    monkeypatch.setattr(Fiber, "caption", caption)
    code, out, _ = command(capsys, "caption", picture, "--checkpoint", runs["caption"], "--beam", "3", *option)
    assert code == 0
    assert out == f"{picture}\ta red thing\n"
    assert calls == [(3, as_published)]


def test_the_former_name_is_not_shown(capsys):
    _, out, _ = command(capsys, "caption", "--help")
    assert "--as-published" in out
    assert "--published" not in out


@pytest.mark.parametrize(
    "words",
    [
        ("answer", "PICTURE", ""),
        ("answer", "PICTURE", " \t"),
        ("detect", "PICTURE", ""),
        ("detect", "PICTURE", "  ", "--phrases"),
        ("detect", "PICTURE", "a dog", "--phrases", " ; "),
        ("rerank", "scenes", "--query", ""),
        ("rerank", "--images", "FOLDER", "--query", " "),
    ],
)
def test_nothing_is_asked_by_words_that_say_nothing(picture, capsys, words):
    places = {"PICTURE": picture, "FOLDER": picture.parent}
    code, out, err = command(capsys, *(places.get(word, word) for word in words))
    assert (code, out) == (1, "")
    assert "is empty" in err or "names nothing" in err


@pytest.mark.parametrize("question", ["", " ", ["is there a star?", "\n"]])
def test_an_empty_question_has_no_answer(runs, picture, question):
    model = Fiber.from_pretrained(runs["vqa"])
    with pytest.raises(UserError, match="is empty"):
        model.answer(picture, question)


def test_every_command_that_reads_pictures_has_a_limit_of_pixels(capsys):
    for verb in ("caption", "answer", "detect", "rerank", "eval", "odinw"):
        assert "--max-pixels" in command(capsys, verb, "--help")[1], verb
