"""`fiber eval` and `fiber rerank DATASET` over inputs, a user's files, links and their own; and on a full disk."""

import json
import os
import re
import shutil

import pytest
from commands import command
from file_size_limit import files_up_to

from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.outputs import LEDGER, LOCK

CONTENT = b"a user's file"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The current folder with captions of four pictures in data/captions.json."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "images").mkdir(parents=True)
    source = ScenesSource("val", 4, image_size=64)
    images = []
    for number in range(4):
        source.image(number).save(tmp_path / f"data/images/{number}.png")
        sentences = [{"raw": text} for text in source.captions(number)[:2]]
        images.append({"filename": f"{number}.png", "split": "test", "imgid": number, "sentences": sentences})
    (tmp_path / "data" / "captions.json").write_text(json.dumps({"images": images}))
    return tmp_path


def evaluate(capsys, run, *argv, verb="eval", dataset="data/captions.json"):
    return command(capsys, verb, dataset, "--checkpoint", run, "--workers", "0", *argv)


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (LEDGER, LOCK)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def no_models(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a model was read before the outputs were looked at")

    monkeypatch.setattr("fiber_cli.checkpoints.loading.load", refuse)


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize("make", [shutil.move, os.link, lambda source, link: os.symlink(os.path.abspath(source), link)])
@pytest.mark.parametrize("verb", ["eval", "rerank"])
def test_the_data_are_replaced_by_their_results(saved, data, capsys, monkeypatch, verb, make, force):
    (data / "out").mkdir()
    make("data/captions.json", "out/results.json")
    no_models(monkeypatch)
    before = contents(data)
    words = ("--output", "./out", "--images", "data/images", *force)
    code, _, err = evaluate(capsys, saved, *words, verb=verb, dataset="out/results.json")
    assert code == 1
    assert err.count("\n") == 1
    assert "out/results.json: is read by this command and would be overwritten" in err
    assert contents(data) == before


@pytest.mark.parametrize("name", ["results.json", "rankings.json", ".pairs/key"])
def test_a_users_file_is_replaced_by_results(saved, data, capsys, name):
    victim = data / "out" / name
    victim.parent.mkdir(parents=True)
    victim.write_bytes(CONTENT)
    words = ("--mode", "itc+itm", "--output", "out")
    code, _, err = evaluate(capsys, saved, *words)
    assert code == 1
    assert f"out/{name}: is there already" in err or "out/.pairs: is where pair scores are kept" in err
    assert contents(data / "out") == {name: CONTENT}
    if name != ".pairs/key":
        assert evaluate(capsys, saved, *words, "--force")[0] == 0
        assert set(contents(data / "out")) == {"results.json", "rankings.json"}


def test_a_second_evaluation_is_refused_or_leaves_part_of_the_first(saved, data, capsys):
    assert evaluate(capsys, saved, "--output", "out")[0] == 0
    first = contents(data / "out")
    code, _, err = evaluate(capsys, saved, "--output", "out", "--limit", "3")
    assert code == 0, err
    assert contents(data / "out").keys() == first.keys()
    assert json.loads((data / "out" / "results.json").read_bytes())["samples"] == 3
    (data / "out" / "rankings.json").write_bytes(CONTENT)
    code, _, err = evaluate(capsys, saved, "--output", "out")
    assert (code, "out/rankings.json: is there already" in err) == (1, True)


def test_results_without_room_are_mixed_with_earlier_ones_or_leave_something(saved, data, capsys):
    """At ten limits of a file's size, which stand for those of a disk."""
    words = ("--mode", "itm", "--output")
    assert evaluate(capsys, saved, *words, "out")[0] == 0
    before = contents(data)
    for size in (0, 1, 10, 30, 100, 200, 300, 400, 500, 1000):
        with files_up_to(size):
            for name in ("out", "new"):
                code, _, err = evaluate(capsys, saved, *words, name, "--limit", "3")
                assert code == 1, (size, err)
                assert re.match(
                    rf"fiber: {name}(/.*)?: cannot be written( into)? \(File too large", err.splitlines()[-1]
                )
        assert contents(data) == before
