"""`python -m benchmarks.ablation`: which studies are run, and what is kept of them."""

import json
from types import SimpleNamespace

import pytest

from benchmarks import ablation


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands of `fiber`, in place of which a comparison is written; `state` is what a plan says of each run."""
    made = SimpleNamespace(run=[], state="new", commit="abc")

    def run(arguments, **options):
        words = arguments[3:]
        output = tmp_path / "runs" / words[words.index("--output") + 1].rpartition("/")[2]
        if "--dry-run" in words:
            return SimpleNamespace(returncode=0, stdout=f"{made.state}\t40 steps\n")
        made.run.append(words)
        output.mkdir(parents=True, exist_ok=True)
        for name in ("comparison.md", "comparison.png"):
            (output / name).write_text(name)
        (output / "comparison.json").write_text('{"variants": []}')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(ablation.subprocess, "run", run)
    monkeypatch.setattr(ablation, "commit", lambda: made.commit)
    return made


def study(tmp_path, monkeypatch, *arguments: str) -> None:
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr("sys.argv", ["ablation", *arguments, *folders])
    ablation.main()


def test_a_result_does_not_say_where_it_comes_from(tmp_path, monkeypatch, commands):
    study(tmp_path, monkeypatch, "--only", "pretraining", "--seeds", "0", "--variant", "no fusion", "optim.steps=3")
    (words,) = commands.run
    assert words[:3] == ["ablate", "ablation", "optim.steps=3"]
    assert words[-4:] == ["--seeds", "0", "--only", "no fusion"]
    kept = json.loads((tmp_path / "results" / "ablation_pretraining.json").read_text())
    assert kept["command"] == "python -m benchmarks.ablation --only pretraining optim.steps=3 --seeds 0"
    assert (kept["commits"], kept["variants"]) == (["abc"], [])
    assert (tmp_path / "results" / "ablation_pretraining.md").read_text() == "comparison.md"
    assert (tmp_path / "results" / "ablation_pretraining.png").is_file()


def test_a_drawing_is_taken_for_a_training(tmp_path, monkeypatch, commands):
    """Of the commits that a result names each trained or measured something."""
    study(tmp_path, monkeypatch)
    assert [words[1] for words in commands.run] == ["ablation", "tiny_caption"]
    commands.state, commands.commit = "begun", "def"
    study(tmp_path, monkeypatch, "--only", "caption")
    commands.state, commands.commit = "finished", "123"
    study(tmp_path, monkeypatch)
    results = tmp_path / "results"
    assert json.loads((results / "ablation_pretraining.json").read_text())["commits"] == ["abc"]
    assert json.loads((results / "ablation_caption.json").read_text())["commits"] == ["abc", "def"]
