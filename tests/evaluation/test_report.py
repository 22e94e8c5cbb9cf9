"""Results on disk and on screen."""

import errno
import json
import os

import pytest

from fiber_cli.errors import UserError
from fiber_cli.evaluation.report import check_results, table, write_results
from fiber_cli.outputs import LEDGER, Outputs

RESULTS = {
    "dataset": "scenes",
    "split": "val",
    "mode": "rerank",
    "metrics": {},
    "samples": 6,
    "bad": [],
    "truncated": 0,
    "notes": [],
    "seconds": 1.25,
}


def test_recalls_stand_in_a_row_for_each_way_and_direction():
    metrics = {}
    for way in ("itc", "rerank-50"):
        for direction in ("ir", "tr"):
            for k in (1, 5, 10):
                metrics[f"{way}/{direction}@{k}"] = float(k if direction == "ir" else 10 * k)
    lines = table({**RESULTS, "metrics": metrics, "images": 6, "texts": 30}).splitlines()
    assert lines == [
        "scenes val, rerank: 6 images, 30 texts, 1.25 s",
        "  itc         image retrieval (IR)  @1   1.00   @5   5.00   @10  10.00",
        "  itc         text retrieval (TR)   @1  10.00   @5  50.00   @10 100.00",
        "  rerank-50   image retrieval (IR)  @1   1.00   @5   5.00   @10  10.00",
        "  rerank-50   text retrieval (TR)   @1  10.00   @5  50.00   @10 100.00",
    ]


def test_other_metrics_bad_items_and_notes_are_told():
    results = {
        **RESULTS,
        "mode": "vqa",
        "metrics": {"vqa/accuracy": 50.0, "blind/vqa/accuracy": 12.345},
        "bad": [("scenes/1", "damaged"), ("scenes/2", "gone")],
        "truncated": 3,
        "notes": ["2 questions have no annotations: predicted only"],
    }
    assert table(results).splitlines() == [
        "scenes val, vqa: 6 samples, 1.25 s",
        "  vqa/accuracy                        50.00",
        "  blind/vqa/accuracy                  12.35",
        "  left out: 2, such as scenes/1: damaged",
        "  3 texts were cut at the model's text length",
        "  2 questions have no annotations: predicted only",
    ]
    assert results["metrics"] == {"vqa/accuracy": 50.0, "blind/vqa/accuracy": 12.345}


def test_files_are_text_as_it_is_or_json(tmp_path):
    files = {"predictions.csv": "a,True\n", "sets/one/detections.json": [{"score": 0.5, "label": "é"}]}
    write_results(tmp_path / "new" / "folder", RESULTS, files)
    folder = tmp_path / "new" / "folder"
    assert json.loads((folder / "results.json").read_text()) == RESULTS
    assert (folder / "predictions.csv").read_text() == "a,True\n"
    written = (folder / "sets/one/detections.json").read_text(encoding="utf-8")
    assert json.loads(written) == files["sets/one/detections.json"]
    assert "é" in written
    assert written.endswith("]\n")


def test_a_name_splits_a_line_or_is_no_text(tmp_path):
    bad = [["odd\n/caf\udce9.png", "no such file"]]
    odd = {**RESULTS, "dataset": "odd\n\x1b", "bad": bad, "notes": ["a\nb"], "metrics": {"se\nt/ap": 1.0}}
    lines = table(odd).split("\n")
    assert lines[0].startswith("odd\\n\\x1b ")
    assert lines[1].split() == ["se\\nt/ap", "1.00"]
    assert "  left out: 1, such as odd\\n/caf\\udce9.png: no such file" in lines
    assert "  a\\nb" in lines
    write_results(tmp_path, odd, {"a.csv": "caf\udce9,1\n"})
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == odd
    assert (tmp_path / "a.csv").read_text() == "caf\\udce9,1\n"


FILES = {"predictions.json": [1], "sets/one/detections.json": [2]}


def written(folder):
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file() and path.name != LEDGER}


def test_earlier_results_stay_or_a_users_file_goes(tmp_path):
    write_results(tmp_path, RESULTS, FILES)
    write_results(tmp_path, RESULTS | {"samples": 7}, FILES)
    assert json.loads((tmp_path / "results.json").read_text())["samples"] == 7
    for name in ("results.json", "predictions.json", "sets/one/detections.json"):
        ours = (tmp_path / name).read_text()
        (tmp_path / name).write_text("a user's file")
        before = written(tmp_path)
        with pytest.raises(UserError, match="is there already"):
            check_results(tmp_path, FILES, Outputs())
        with pytest.raises(UserError, match="is there already"):
            write_results(tmp_path, RESULTS, FILES)
        assert written(tmp_path) == before
        (tmp_path / name).write_text(ours)
    (tmp_path / "results.json").write_text("a user's file")
    write_results(tmp_path, RESULTS, FILES, Outputs(force=True))
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS


@pytest.mark.parametrize("failing", ["predictions.json", "detections.json", "results.json"])
def test_a_failure_mixes_two_evaluations(tmp_path, monkeypatch, failing):
    """Wherever the disk is full: all of the earlier one, and no other file."""
    write_results(tmp_path, RESULTS, FILES)
    before = written(tmp_path)

    def full(pending, *, kept):
        if pending.file.name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outputs = Outputs()
    monkeypatch.setattr(outputs, "_finish", full)
    with pytest.raises(UserError, match=rf"{failing}: cannot be written \(No space"):
        write_results(tmp_path, RESULTS | {"samples": 7}, {name: "new" for name in FILES}, outputs)
    assert written(tmp_path) == before


def test_files_of_an_earlier_evaluation_of_another_task_stay_or_a_users_go(tmp_path):
    earlier = {"captions.json": [], "changed.json": [], "set/rows.csv": "a"}
    write_results(tmp_path, RESULTS | {"files": sorted(earlier)}, earlier)
    (tmp_path / "changed.json").write_text("by hand")
    (tmp_path / "notes.txt").write_text("mine")
    write_results(tmp_path, RESULTS | {"files": ["detections.json"]}, {"detections.json": []})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.name[0] != "."}
    assert left == {"detections.json", "results.json", "changed.json", "notes.txt"}
    # One that tells of no files, as of before, costs none.
    write_results(tmp_path, RESULTS, {})
    write_results(tmp_path, RESULTS, {"captions.json": []})
    assert (tmp_path / "captions.json").is_file()


def test_results_of_the_version_before_are_taken_for_a_users(tmp_path):
    for name in ("results.json", "predictions.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="is there already"):
        write_results(tmp_path, RESULTS, FILES)
    of_0_1 = RESULTS | {"checkpoint": "run", "version": "0.1.0"}
    (tmp_path / "results.json").write_text(json.dumps(of_0_1))
    write_results(tmp_path, RESULTS, FILES)
    assert (tmp_path / "predictions.json").read_text() == "[\n  1\n]\n"
