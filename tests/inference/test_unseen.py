"""Words that a checkpoint never saw, as the commands say them; a copy of a random model with words of its own."""

import shutil
import warnings

import pytest
from commands import command

from fiber_cli.checkpoints.digests import digest_together, write_digests
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.words import write_words
from fiber_cli.errors import UnseenWords
from fiber_cli.inference.fiber import Fiber

SAID = "never seen in this checkpoint's training"


@pytest.fixture
def taught(tmp_path):
    """Makes a copy of a checkpoint that knows these words alone; None takes them away."""

    def make(checkpoint, words):
        copy = tmp_path / f"{checkpoint.parent.parent.name}-{len(words or '')}"
        shutil.copytree(checkpoint, copy)
        if words is not None:
            write_words(copy, words)
        write_digests(copy, digest_together(copy))
        return copy

    return make


@pytest.mark.parametrize(
    ("words", "unseen"),
    [
        (["cat . red star . Traffic light"], "cat, traffic, light"),
        (["red star . star"], None),
        (["two red cats", "--phrases", "red cats; two"], "two, cats"),
        (["--phrases", "red cats; blue"], "cats, blue"),
    ],
)
def test_detection_asks_for_unseen_words_in_silence(detector_run, readable, taught, capsys, words, unseen):
    known = taught(resolve(detector_run), ["red", "star"])
    code, _, err = command(capsys, "detect", readable[0], *words, "--checkpoint", known)
    assert code == 0, err
    lines = [line for line in err.splitlines() if "never seen" in line]
    assert lines == ([f"{unseen}: {SAID}"] if unseen else [])


def test_labels_of_a_file_are_asked_for_in_silence(detector_run, readable, taught, capsys, tmp_path):
    (tmp_path / "labels.txt").write_text("red star\nzebra\n")
    known = taught(resolve(detector_run), ["red", "star"])
    _, _, err = command(capsys, "detect", readable[0], "--labels", tmp_path / "labels.txt", "--checkpoint", known)
    assert f"zebra: {SAID}" in err


def test_something_is_called_unseen_where_the_words_of_training_are_not_known(detector_run, readable, capsys):
    _, _, err = command(capsys, "detect", readable[0], "zebra", "--checkpoint", resolve(detector_run))
    assert "never seen" not in err


def test_search_asks_for_unseen_words_in_silence(retriever, folder, taught, capsys, tmp_path):
    known = taught(retriever().path, ["a", "red", "circle"])
    search = ("rerank", "--images", folder, "--checkpoint", known)
    code, out, err = command(capsys, *search, "--query", "a dog on the beach, a red circle")
    assert code == 0, err
    assert f"dog, on, the, beach: {SAID}\n" in err
    assert "never seen" not in out
    many = [f"thing{number} and a circle" for number in range(20)]
    (tmp_path / "queries.txt").write_text("\n".join(many))
    _, _, err = command(capsys, *search, "--queries", tmp_path / "queries.txt", "--force")
    [line] = [line for line in err.splitlines() if "never seen" in line]
    assert line.startswith("21 words never seen in this checkpoint's training: thing0, and, thing1, ")
    assert line.endswith("thing6 and 13 more")


def test_of_two_checkpoints_it_is_not_said_which_never_saw_a_word(retriever, folder, taught, capsys):
    finds = taught(retriever().path, ["a", "dog"])
    scores = taught(retriever(1).path, ["a", "red", "dog"])
    models = ("--checkpoint", finds, "--itm-checkpoint", scores)
    _, _, err = command(capsys, "rerank", "--images", folder, *models, "--query", "a red cat")
    assert f"red, cat: never seen in the training of {finds}\n" in err
    assert f"cat: never seen in the training of {scores}\n" in err


def test_a_question_is_answered_in_silence_about_unseen_words(runs, readable, taught, capsys):
    known = taught(resolve(runs["vqa"]), ["what", "is", "the", "colour"])
    code, _, err = command(capsys, "answer", readable[0], "What colour is the CAT?", "--checkpoint", known)
    assert code == 0, err
    assert f"cat: {SAID}\n" in err


def test_in_python_nothing_warns_of_unseen_words(detector_run, runs, retriever, folder, readable, taught):
    detector = Fiber.from_pretrained(taught(resolve(detector_run), ["red", "a"]))
    answerer = Fiber.from_pretrained(taught(resolve(runs["vqa"]), ["red", "is", "it"]))
    searcher = Fiber(load(taught(retriever().path, ["red", "a"])))
    searched = searcher.with_index(folder)
    calls = [
        lambda word: detector.detect(readable[0], ["a red", word]),
        lambda word: detector.ground(readable[0], f"a {word}", [word]),
        lambda word: answerer.answer(readable[0], f"is it {word}"),
        lambda word: answerer.answers(readable[0], f"is it {word}", k=1),
        lambda word: searcher.match(readable[0], [f"a {word}", "red"]),
        lambda word: searcher.embed_texts(f"a {word}"),
        lambda word: searched.search(f"a {word}"),
    ]
    for number, call in enumerate(calls):
        with pytest.warns(UnseenWords, match=rf"^Zebra{number}: never seen in this checkpoint's training".lower()):
            call(f"Zebra{number}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call("RED")


def test_in_python_unseen_words_are_not_told(detector_run, taught):
    model = Fiber.from_pretrained(taught(resolve(detector_run), ["red"]))
    assert model.unseen_words("a red cat") == ["a", "cat"]
    assert model.unseen_words(["red", "Cat", "cat"]) == ["cat"]
    assert Fiber.from_pretrained(detector_run).unseen_words("a red cat") == []
