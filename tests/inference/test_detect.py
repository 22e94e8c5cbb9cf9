"""`fiber detect`: what it reads from its line, and what it prints."""

import json

import pytest
from commands import command
from small_detector import LABELS, MOST, PROMPT, assert_same, detect

from fiber_cli.inference.annotate import SAME_OBJECT_IOU
from fiber_cli.inference.detections import Detection, best_of_objects


def detections_in(printed: str, number: int = 0) -> list[Detection]:
    """Of the printed JSON, those of one picture."""
    return [Detection(**one) for one in json.loads(printed)[number]["detections"]]


def test_json_and_table_of_a_folder(detector_run, detector, pictures, readable, capsys):
    code, out, err = detect(capsys, detector_run, pictures, PROMPT, "--json", "--batch", "2")
    rows = json.loads(out)
    assert code == 0
    assert "broken.jpg: not a readable image" in err
    assert f"{3 * MOST} detections" in err
    assert [row["image"] for row in rows] == [str(path) for path in readable]
    assert (rows[1]["width"], rows[1]["height"]) == (150, 40)
    assert "frame" not in rows[0]
    for number, expected in enumerate(detector.detect(readable, LABELS, threshold=0)):
        assert_same(detections_in(out, number), expected)
    code, out, err = detect(capsys, detector_run, *readable[:2], PROMPT, "--top-k", "3")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [line[0] for line in lines] == [str(readable[0])] * 3 + [str(readable[1])] * 3
    assert lines[0][1] in LABELS
    assert len(lines[0][3].split()) == 4
    assert 0 < float(lines[0][2]) < 1
    nothing = ("detect", readable[0], PROMPT, "--checkpoint", detector_run, "--threshold", "0.999")
    code, out, _ = command(capsys, *nothing)
    assert code == 0
    assert out == ""
    code, out, _ = command(capsys, *nothing, "--json")
    assert json.loads(out)[0]["detections"] == []


def test_boxes_of_one_object_are_lost_from_the_table_or_drawn_in_silence(
    detector_run, detector, readable, capsys, tmp_path
):
    """By itself the drawing alone shows an object once and says so; on demand everything does."""
    picture = readable[0]
    everything = detector.detect(picture, LABELS, threshold=0)
    drawn = best_of_objects(everything, SAME_OBJECT_IOU)
    assert len(drawn) < len(everything)
    out = tmp_path / "out"
    _, text, err = detect(capsys, detector_run, picture, PROMPT, "--json", "--out", out)
    assert_same(detections_in(text), everything)
    assert f"{len(everything) - len(drawn)} of the boxes are not drawn" in err
    _, text, err = detect(capsys, detector_run, picture, PROMPT, "--json", "--out", out, "--agnostic-nms", "1")
    assert_same(detections_in(text), detector.detect(picture, LABELS, threshold=0, agnostic_nms_iou=1))
    assert "not drawn" not in err
    _, text, err = detect(capsys, detector_run, picture, PROMPT, "--json", "--out", out, "--agnostic-nms", "0.3")
    assert_same(detections_in(text), detector.detect(picture, LABELS, threshold=0, agnostic_nms_iou=0.3))
    assert "not drawn" not in err


def test_labels_of_a_file_and_phrases(detector_run, detector, readable, capsys, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join([*LABELS, ""]))
    expected = detector.detect(readable[0], LABELS, threshold=0)
    out = detect(capsys, detector_run, readable[0], "--labels", labels, "--json")[1]
    assert_same(detections_in(out), expected)
    sentence = "red circle. dog"
    expected = detector.ground(readable[0], sentence, ["dog"], threshold=0)
    for argv in ([readable[0], sentence, "--phrases", "dog"], ["--phrases=dog", readable[0], sentence]):
        out = detect(capsys, detector_run, *argv, "--json")[1]
        assert_same(detections_in(out), expected)


def test_bare_phrases_wherever_they_stand(detector_run, readable, capsys, monkeypatch):
    """Noun phrases are found; what the parser takes for the value is given back."""
    sentence = "a red circle beside two stars"
    spans = [("a red circle", (0, 12)), ("two stars", (20, 29))]
    monkeypatch.setattr("fiber_cli.data.phrases.noun_phrases", lambda text: spans if text == sentence else [])
    for argv in (
        [readable[0], sentence, "--json", "--phrases"],
        [readable[0], sentence, "--phrases", "--json"],
        [readable[0], "--phrases", sentence, "--json"],
        ["--phrases", readable[0], sentence, "--json"],
    ):
        code, out, err = detect(capsys, detector_run, *argv)
        assert code == 0, err
        assert {one.label for one in detections_in(out)} == {"a red circle", "two stars"}


@pytest.mark.parametrize("argv", [["{one}", "--phrases", "dog; red circle"], ["--phrases", "dog; red circle", "{one}"]])
def test_phrases_need_no_sentence(detector_run, detector, readable, capsys, argv):
    words = [word.format(one=readable[0]) for word in argv]
    code, out, err = detect(capsys, detector_run, *words, "--json")
    assert code == 0, err
    assert_same(detections_in(out), detector.detect(readable[0], ["dog", "red circle"], threshold=0))


def test_how_a_prompt_of_sentences_was_read_is_told(detector_run, readable, capsys):
    err = detect(capsys, detector_run, readable[0], "dr. pepper")[2]
    assert 'looking for "dr", "pepper"' in err
    assert "--labels" in err
    assert "looking for" not in detect(capsys, detector_run, readable[0], "dr. pepper . cat")[2]


@pytest.mark.parametrize(
    ("argv", "exit_code", "message"),
    [
        (["{one}"], 2, "give files, and behind them what to find"),
        (["cat"], 2, "give files, and behind them what to find"),
        (["{one}", "{folder}"], 2, "is a file or folder here"),
        (["{one}", "cat", "--chunk", "0"], 2, "--chunk 0"),
        (["{one}", "a cat", "--labels", "{folder}/none.txt", "--phrases"], 2, "give one of them"),
        (["{one}", ""], 1, "the prompt is empty"),
        (["{one}", "cat . " * 100 + "dog"], 1, "label 2, 'cat', is label 1 again"),
        (["{one}", "--labels", "{folder}/none.txt"], 1, "none.txt has no label"),
        (["{folder}/nothing.png", "cat"], 1, "nothing.png: no such file or folder"),
    ],
)
def test_wrong_usage_and_missing_files_are_told(detector_run, readable, capsys, tmp_path, argv, exit_code, message):
    (tmp_path / "none.txt").write_text("\n")
    words = [word.format(one=readable[0], folder=tmp_path) for word in argv]
    code, out, err = detect(capsys, detector_run, *words)
    assert code == exit_code, err
    assert message in " ".join(err.split())
    assert not out


def test_a_checkpoint_without_a_detector_and_no_checkpoint_are_told(runs, readable, capsys, tmp_path, monkeypatch):
    code, _, err = detect(capsys, runs["coarse"], readable[0], "cat")
    assert code == 1
    assert "without a detector" in err
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "detect", readable[0], "cat")
    assert code == 1
    assert "no run of task fine or detection or grounding or refexp lies below runs/" in err
