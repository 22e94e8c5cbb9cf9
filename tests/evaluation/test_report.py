"""Results on disk and on screen."""

import json

from fiber_cli.evaluation.report import table, write_results

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
