"""A run that goes on over other data than it began with says so, once."""

import json

import pytest
from commands import command
from image_files import jpeg
from small_runs import RECIPE
from tar_files import shard_sample, write_tar

TOLD = "the data are others than before the stop"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two shards, and pictures with captions in a file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for shard in range(2):
        samples = [shard_sample(f"{shard}{i}", f"text {i}", (40 * i, 9, 9)) for i in range(6)]
        write_tar(tmp_path / f"shards/{shard:05d}.tar", [member for sample in samples for member in sample])
    (tmp_path / "images").mkdir()
    for i in range(8):
        (tmp_path / f"images/{i}.jpg").write_bytes(jpeg((30 * i, 9, 9)))
    write_captions(tmp_path, "text")
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


def write_captions(folder, word):
    images = [{"filename": f"{i}.jpg", "split": "train", "sentences": [{"raw": f"{word} {i}"}]} for i in range(8)]
    (folder / "dataset.json").write_text(json.dumps({"images": images}))


def go_on(capsys, folder, entry, steps) -> str:
    """What a run says that is longer than before."""
    settings = [f"optim.steps={steps}", "optim.schedule=constant", "optim.warmup=0", f"data.train=[{entry}]"]
    settings += ["runtime.micro_batch=4", "runtime.global_batch=4"]
    run = ["pretrain", "coarse", "--recipe", folder / "small.yaml", "--output", folder / "run", *settings]
    resume = ["--resume"] if (folder / "run").exists() else []
    code, _, err = command(capsys, *run, *resume)
    assert code == 0, err
    return err


def test_a_run_over_other_shards_goes_on_in_silence(folder, capsys):
    entry = f"{{kind: webdataset, shards: {folder}/shards}}"
    assert TOLD not in go_on(capsys, folder, entry, 1)
    assert TOLD not in go_on(capsys, folder, entry, 2)
    (folder / "shards/00001.tar").unlink()
    said = go_on(capsys, folder, entry, 3)
    assert f"{TOLD}, and the run goes on otherwise than without it: " in said
    assert "data.train[0]: the number of samples 12, now 6" in said
    assert TOLD not in go_on(capsys, folder, entry, 4)


def test_a_run_over_other_captions_goes_on_in_silence(folder, capsys):
    entry = f"{{kind: karpathy, json: {folder}/dataset.json, images: {folder}/images}}"
    assert TOLD not in go_on(capsys, folder, entry, 1)
    write_captions(folder, "word")
    assert "data.train[0]: the file dataset.json " in go_on(capsys, folder, entry, 2)


def test_a_run_of_a_version_that_noted_no_data_is_not_resumed(folder, capsys):
    entry = f"{{kind: webdataset, shards: {folder}/shards}}"
    go_on(capsys, folder, entry, 1)
    (state,) = folder.glob("run/checkpoints/step-*/state/run.json")
    content = json.loads(state.read_text())
    assert content.pop("data")
    (folder / "run/checkpoints/step-000001/SHA256SUMS").unlink()
    state.write_text(json.dumps(content))
    assert TOLD not in go_on(capsys, folder, entry, 2)
