"""Checkpoint directories: whole or not at all, found by any of their names, pruned with care."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from fiber_cli.checkpoints import directory, saving, writing
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.errors import UserError


class Tokenizer:
    def save_pretrained(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "vocab.json").write_text("{}")


def save(run_dir, step, **options):
    defaults = {"config": {"task": {"name": "toy"}}, "weights": {"head": torch.ones(2)}, "tokenizer": Tokenizer()}
    return saving.save(run_dir, step, **defaults | options)


def test_a_checkpoint_holds_all_that_was_given(tmp_path):
    path = save(tmp_path, 400, write_state=lambda folder: (folder / "shard").write_text("x"))
    assert path == tmp_path / "checkpoints" / "step-000400"
    content = ["SHA256SUMS", "config.json", "model.safetensors", "state", "tokenizer"]
    assert sorted(file.name for file in path.iterdir()) == content
    assert (path / "state" / "shard").read_text() == "x"
    assert json.loads((path / "config.json").read_text()) == {"task": {"name": "toy"}}
    assert torch.equal(load_weights(path)["head"], torch.ones(2))


def test_every_way_to_name_a_checkpoint(tmp_path):
    save(tmp_path, 4)
    path = save(tmp_path, 8)
    folder = tmp_path / "checkpoints"
    for name in (path, folder, tmp_path, folder / "latest"):
        assert directory.resolve(name) == path
    directory.replace(folder / "best", "step-000004")
    assert directory.resolve(folder / "best") == folder / "step-000004"


def keep_best(run_dir, best, latest):
    """Steps of a run whose recipe keeps the best."""
    for step in sorted({best, latest}):
        save(run_dir, step)
    directory.replace(run_dir / "checkpoints" / "best", f"{directory.step_name(best)}\n")
    (run_dir / "recipe.yaml").write_text("log: {keep_best: itc/ir@1}")


def test_a_run_stands_for_its_latest_although_it_keeps_a_best(tmp_path):
    keep_best(tmp_path, best=4, latest=8)
    folder = tmp_path / "checkpoints"
    for name in (tmp_path, folder):
        choice = directory.choose(name)
        assert str(choice) == f"{folder}/step-000004, the best by itc/ir@1; --latest takes step-000008"
        choice = directory.choose(name, latest=True)
        assert str(choice) == f"{folder}/step-000008, the latest; the best by itc/ir@1 is step-000004"
    assert str(directory.choose(folder / "latest")) == f"{folder}/step-000008, the latest"
    assert str(directory.choose(folder / "best")) == f"{folder}/step-000004, the best"
    assert str(directory.choose(folder / "step-000008")) == f"{folder}/step-000008"


def test_the_reason_does_not_say_what_was_chosen(tmp_path):
    keep_best(tmp_path / "one", best=8, latest=8)
    assert directory.choose(tmp_path / "one").reason == "the best by itc/ir@1, and the latest"
    save(tmp_path / "other", 4)
    assert directory.choose(tmp_path / "other").reason == "the latest"
    keep_best(tmp_path / "bare", best=4, latest=8)
    (tmp_path / "bare" / "recipe.yaml").unlink()
    assert directory.choose(tmp_path / "bare").reason == "the best; --latest takes step-000008"


def test_a_run_without_latest_stands_for_its_best_or_its_newest_step(tmp_path):
    keep_best(tmp_path, best=4, latest=12)
    folder = tmp_path / "checkpoints"
    (folder / "latest").unlink()
    (folder / "step-notes").mkdir()
    (folder / "step-notes" / "config.json").write_text("{}")
    for name in (tmp_path, folder):
        choice = directory.choose(name)
        assert str(choice) == f"{folder}/step-000004, the best by itc/ir@1; --latest takes step-000012"
        choice = directory.choose(name, latest=True)
        assert str(choice) == f"{folder}/step-000012, the latest; the best by itc/ir@1 is step-000004"
    (folder / "best").unlink()
    for name in (tmp_path, folder):
        assert str(directory.choose(name)) == f"{folder}/step-000012, the latest"
    save(tmp_path, 4)
    (folder / "latest").unlink()
    assert directory.choose(tmp_path).path == folder / "step-000012"  # the newest is the one of most steps


@pytest.mark.parametrize("content", [b"\xff", b"", b" \n", b"step-000004\0", b"step\n-000004", "ÿ".encode("latin-1")])
@pytest.mark.parametrize("pointer", ["latest", "best"])
def test_a_damaged_pointer_is_told_with_what_it_can_name(tmp_path, pointer, content):
    save(tmp_path, 4)
    save(tmp_path, 8)
    file = tmp_path / "checkpoints" / pointer
    file.write_bytes(content)
    for name in (tmp_path, file):
        with pytest.raises(UserError) as caught:
            directory.resolve(name)
        assert str(caught.value).startswith(f"{file} is damaged (")
        assert str(caught.value).endswith("complete checkpoints: step-000004, step-000008")


def test_a_file_is_told_to_be_converted(tmp_path):
    (tmp_path / "published.ckpt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"published.ckpt is a file; `fiber convert .*published.ckpt FOLDER`"):
        directory.resolve(tmp_path / "published.ckpt")


def test_pruning_takes_the_best_for_the_latest(tmp_path):
    keep_best(tmp_path, best=4, latest=12)
    save(tmp_path, 8)
    directory.replace(tmp_path / "checkpoints" / "latest", "step-000008\n")
    writing.prune(tmp_path, 1, "step-000004")
    assert [path.name for path in directory.steps(tmp_path)] == ["step-000004", "step-000008", "step-000012"]


@pytest.mark.parametrize("pointer", ["latest", "best"])
def test_a_pointer_that_is_no_file_is_passed_over(tmp_path, pointer):
    save(tmp_path, 4)
    file = tmp_path / "checkpoints" / pointer
    file.unlink(missing_ok=True)
    file.mkdir()
    with pytest.raises(UserError, match=f"{pointer} cannot be read: Is a directory; .*step-000004"):
        directory.resolve(tmp_path)
    file.rmdir()
    file.symlink_to("nothing")
    with pytest.raises(UserError, match=f"{pointer} cannot be read: No such file"):
        directory.resolve(tmp_path)


@pytest.mark.parametrize("content", ["../step-000004", "/step-000004", "step" * 100, "s" * 5000])
def test_a_pointer_leads_out_of_its_folder(tmp_path, content):
    save(tmp_path, 4)
    (tmp_path / "checkpoints" / "latest").write_text(content)
    with pytest.raises(UserError, match=r"latest is damaged \(it names no checkpoint\)"):
        directory.resolve(tmp_path)


def test_copies_and_other_things_beside_checkpoints_pass_for_some(tmp_path):
    path = save(tmp_path, 4)
    folder = path.parent
    for name in ("step-000004 copy", "step-000004.bak", "step-٤", "step-"):
        shutil.copytree(path, folder / name)
    (folder / "step-000008").write_text("a file")
    (folder / "step-000012").mkdir()
    (folder / "step-000016").symlink_to("nothing")
    (folder / "latest").unlink()
    assert directory.steps(tmp_path) == [path]
    assert directory.resolve(tmp_path) == path


def test_pruning_deletes_what_is_somebody_elses(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    folder = tmp_path / "checkpoints"
    kept = tmp_path / "kept"
    shutil.copytree(folder / "step-000001", kept)
    shutil.rmtree(folder / "step-000001")
    (folder / "step-000001").symlink_to(kept)
    shutil.copytree(folder / "step-000002", folder / "step-000002 copy")
    (folder / ".step-mine.tmp").mkdir()
    (folder / ".step-000009.tmp").write_text("left by a kill")
    writing.prune(tmp_path, 1, None)
    assert (kept / "config.json").is_file()
    names = [".step-mine.tmp", "latest", "step-000002 copy", "step-000003"]
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("digests", [True, False], ids=["", "of before"])
def test_pruning_deletes_a_users_file_inside_a_checkpoint(tmp_path, capsys, digests):
    old = save(tmp_path, 1, write_state=lambda folder: (folder / "shard.pt").write_text("x"))
    save(tmp_path, 2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").write_text("another's")
    (old / "linked").symlink_to(elsewhere)
    (old / "mine").mkdir()
    (old / "mine" / "notes.txt").write_text("mine")
    (old / "empty").mkdir()
    if not digests:
        (old / "SHA256SUMS").unlink()
    writing.prune(tmp_path, 1, None)
    left = {path.relative_to(old).as_posix() for path in old.rglob("*")}
    assert left == {"linked", "mine", "mine/notes.txt"}
    assert (elsewhere / "model.safetensors").is_file()
    assert f"{old} is no more, but for what fiber did not write: linked, mine/notes.txt" in capsys.readouterr().err
    assert [path.name for path in directory.steps(tmp_path)] == ["step-000002"]
    writing.prune(tmp_path, 1, None)
    assert capsys.readouterr().err == ""


def test_a_step_that_is_made_again_deletes_a_users_file(tmp_path):
    folder = save(tmp_path, 1)
    (folder / "notes.txt").write_text("mine")
    for _ in range(2):
        assert directory.resolve(save(tmp_path, 1)) == folder
        (folder / "notes.txt").write_text("mine too")
    kept = [folder.with_name(f"step-000001.kept-{number}") / "notes.txt" for number in (1, 2)]
    assert [file.read_text() for file in kept] == ["mine", "mine too"]
    assert directory.steps(tmp_path) == [folder]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_checkpoint_is_a_clear_error(tmp_path, name):
    with pytest.raises(UserError, match="step directory"):
        directory.resolve(tmp_path / name)


def test_latest_that_names_nothing_lists_what_is_there(tmp_path):
    save(tmp_path, 4)
    directory.replace(tmp_path / "checkpoints" / "latest", "step-000009")
    with pytest.raises(UserError, match=r"names step-000009.*step-000004"):
        directory.resolve(tmp_path)


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


class FullTokenizer:
    save_pretrained = staticmethod(full_disk)


class RustTokenizer:
    """The library's errors are of no kind."""

    @staticmethod
    def save_pretrained(folder):
        raise Exception("No space left on device (os error 28)")


def full_torch(folder):
    raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")


FULL = [{"tokenizer": FullTokenizer()}, {"tokenizer": RustTokenizer()}, {"write_state": full_disk}]


@pytest.mark.parametrize("full", [*FULL, {"write_state": full_torch}])
def test_no_space_left_leaves_the_earlier_checkpoint(tmp_path, full):
    earlier = save(tmp_path, 4)
    before = (earlier / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"step 8 could not be written: No space left on device.*--resume"):
        save(tmp_path, 8, **full)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-000004"]
    assert directory.resolve(tmp_path) == earlier
    assert (earlier / "model.safetensors").read_bytes() == before


def test_latest_moves_after_the_checkpoint_is_in_its_place(tmp_path, monkeypatch):
    earlier = save(tmp_path, 4)
    monkeypatch.setattr(directory.Path, "rename", full_disk)
    with pytest.raises(UserError, match="could not be written"):
        save(tmp_path, 8)
    assert directory.resolve(tmp_path) == earlier
    assert directory.steps(tmp_path) == [earlier]


def test_a_kill_while_writing_leaves_no_checkpoint_that_looks_whole(tmp_path):
    earlier = save(tmp_path, 4)

    def kill(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 8, write_state=kill)
    assert directory.steps(tmp_path) == [earlier]
    assert directory.resolve(tmp_path) == earlier
    # The next one goes over what was left.
    assert directory.resolve(save(tmp_path, 8).parent).name == "step-000008"


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in (1, 2, 3, 10, 20):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / ".step-000030.tmp").mkdir()
    writing.prune(tmp_path, 2, "step-000002")
    assert [path.name for path in directory.steps(tmp_path)] == ["step-000002", "step-000010", "step-000020"]
    assert not list((tmp_path / "checkpoints").glob(".step*"))
    writing.prune(tmp_path, 1, None)
    assert [path.name for path in directory.steps(tmp_path)] == ["step-000020"]


def test_a_run_trains_before_its_folder_is_refused_for_its_name(tmp_path):
    directory.check_name(tmp_path / "new\nline\x1b")
    with pytest.raises(UserError, match=r"caf\\udce9: not UTF-8, as the path of checkpoints must be"):
        directory.check_name(tmp_path / "caf\udce9")
