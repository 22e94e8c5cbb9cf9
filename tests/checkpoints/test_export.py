"""A checkpoint for others: whole, without state, in half the room, and over nothing of a user's."""

import hashlib
import shutil

import pytest
import torch
from safetensors.torch import load_file

from fiber_cli.checkpoints import export as module
from fiber_cli.checkpoints.directory import choose
from fiber_cli.checkpoints.export import export, float16
from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.checkpoints.words import read_words, write_words
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs

FILES = {"config.json", "model.safetensors", "tokenizer", "SHA256SUMS"}


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("half", "dtype"), [(False, torch.float32), (True, torch.float16)])
def test_the_directory_is_a_checkpoint_without_what_resuming_needs(saved, tmp_path, half, dtype):
    exported = export(saved, tmp_path / "new" / "model", half=half)
    assert names(tmp_path / "new") == {"model"}
    assert names(exported.out) == FILES
    assert exported.source == saved / "checkpoints" / "step-000003"
    tensors = load_file(exported.out / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {dtype}
    for line in (exported.out / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        content = (exported.out / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest == exported.digests[name]
    assert choose(exported.out) == (exported.out, "")


def test_words_of_training_go_with_it_or_are_unknown(saved, tmp_path):
    source = saved / "checkpoints" / "step-000003"
    known = read_words(source)
    exported = export(saved, tmp_path / "as-it-is")
    assert read_words(exported.out) == known
    copy = shutil.copytree(source, tmp_path / "copy")
    (copy / "SHA256SUMS").unlink(missing_ok=True)
    write_words(copy, {"star", "moon"})
    exported = export(copy, tmp_path / "with-words")
    assert read_words(exported.out) == {"star", "moon"}
    assert "words.txt" in exported.digests


@pytest.mark.parametrize("name", ["coarse", "vqa", "caption"])
def test_weights_as_float16_compute_in_float32_what_they_did(runs, tmp_path, name):
    export(runs[name], tmp_path / "whole")
    export(runs[name], tmp_path / "half", half=True)
    whole, half = load(tmp_path / "whole"), load(tmp_path / "half")
    originals = dict(whole.task.named_parameters())
    for parameter_name, value in half.task.named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, originals[parameter_name].half().float())
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        stems = [model.task.encoder.image_stem(pixels / 255).map for model in (whole, half)]
    assert stems[1].dtype == torch.float32
    assert 0 < torch.dist(stems[0], stems[1]) < 0.01 * stems[0].norm()
    assert half.config == whole.config


def test_an_export_replaces_an_earlier_one_and_nothing_else(saved, runs, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    export(saved, out)
    export(runs["vqa"], out, half=True)
    assert load(out).name == "vqa"
    assert names(tmp_path) == {"model"}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is no checkpoint without state as fiber wrote it"):
        export(saved, out)
    (out / "notes.txt").unlink()
    (out / "config.json").write_text((out / "config.json").read_text() + " ")
    with pytest.raises(UserError, match="is no checkpoint without state as fiber wrote it"):
        export(saved, out)
    export(saved, out, outputs=Outputs(force=True))
    assert load(out).name == "coarse"


def test_a_run_or_the_checkpoint_itself_is_never_replaced(saved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    (run / "checkpoints" / "step-000003" / "state" / "engine.pt").write_bytes(b"state")
    for out in (run, run / "checkpoints", run / "checkpoints" / "step-000003"):
        with pytest.raises(UserError, match="holds the checkpoint that is exported"):
            export(run, out, outputs=Outputs(force=True))
    with pytest.raises(UserError, match="is there already"):
        export(saved, run)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(UserError, match="is no folder"):
            export(saved, tmp_path / name)


def test_what_fails_leaves_what_was_there(saved, tmp_path, monkeypatch):
    out = export(saved, tmp_path / "model").out
    before = (out / "model.safetensors").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_digests", full)
    with pytest.raises(UserError, match="No space left"):
        export(saved, out, half=True)
    assert names(tmp_path) == {"model"}
    assert (out / "model.safetensors").read_bytes() == before


def test_damaged_checkpoints_and_numbers_past_float16_are_refused(saved, tmp_path):
    with pytest.raises(UserError, match="b has numbers that float16 cannot hold"):
        float16({"a": torch.ones(2), "b": torch.tensor([1.0, 1e6])})
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    file = run / "checkpoints" / "step-000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="is not as it was written"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_whole_numbers_stay_as_they_are():
    counts = torch.tensor([3, 2**40])
    assert torch.equal(float16({"count": counts})["count"], counts)


def test_an_export_starts_a_run_as_its_source_does(saved, tmp_path):
    out = export(saved, tmp_path / "half", half=True).out
    for name, value in load_weights(out).items():
        assert value.dtype == torch.float32, name
