"""A checkpoint is loaded as it was written, or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from fiber_cli.checkpoints import digests, saving
from fiber_cli.errors import UserError


class Tokenizer:
    def save_pretrained(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "vocab.json").write_text("{}")


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with every kind of file."""

    def write_state(folder):
        (folder / "deepspeed").mkdir()
        (folder / "deepspeed" / "shard.pt").write_bytes(bytes(1000))
        (folder / "run.json").write_text("{}")

    weights = {"head": torch.ones(50)}
    config = {"task": {"name": "toy"}}
    return saving.save(tmp_path, 4, config=config, weights=weights, tokenizer=Tokenizer(), write_state=write_state)


FOR_USE = ["config.json", "model.safetensors", "tokenizer/vocab.json"]
FOR_RESUMING = ["state/deepspeed/shard.pt", "state/run.json"]


def test_the_list_is_not_what_sha256sum_reads(checkpoint):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=checkpoint, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{name}: OK" for name in [*FOR_USE[:2], *FOR_RESUMING, FOR_USE[2]]]


def test_an_untouched_checkpoint_is_refused(checkpoint, capsys):
    digests.check(checkpoint)
    digests.check_together(checkpoint)
    (checkpoint / "tokenizer" / ".DS_Store").touch()
    digests.check(checkpoint)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", [*FOR_USE, *FOR_RESUMING])
def test_a_flipped_bit_goes_unnoticed(checkpoint, name, place, bit):
    file = checkpoint / name
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    told = f"{name} is not as it was written; copy the whole checkpoint again, .*latest"
    with pytest.raises(UserError, match=told):
        digests.check_together(checkpoint)
    if name in FOR_USE:
        with pytest.raises(UserError, match=told):
            digests.check(checkpoint)
    else:
        digests.check(checkpoint)


def test_a_damaged_one_in_the_hub_s_cache_is_to_be_copied_or_changed(checkpoint, tmp_path):
    cached = tmp_path / "hub" / "models--org--name" / "snapshots" / ("a" * 40)
    shutil.copytree(checkpoint, cached)
    (cached / FOR_USE[0]).write_bytes(b"x")
    with pytest.raises(UserError, match=r"; delete .*/models--org--name, and it is fetched again; if that .* the hub$"):
        digests.check(cached)


@pytest.mark.parametrize("name", [*FOR_USE, *FOR_RESUMING])
def test_a_missing_file_goes_unnoticed(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        digests.check_together(checkpoint)


@pytest.mark.parametrize("name", ["tokenizer/added_tokens.json", "state/deepspeed/other.pt"])
def test_a_file_that_was_not_written_with_it_is_read(checkpoint, name):
    (checkpoint / name).write_text("{}")
    with pytest.raises(UserError, match=f"{name} is not in SHA256SUMS"):
        digests.check_together(checkpoint)


def test_a_copy_without_state_cannot_be_used(checkpoint):
    shutil.rmtree(checkpoint / "state")
    digests.check(checkpoint)
    with pytest.raises(UserError, match=r"state/deepspeed/shard\.pt is missing"):
        digests.check_together(checkpoint)


LINE = "0" * 64 + "  config.json\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        LINE[1:].encode(),
        LINE.replace("config.json", "../config.json").encode(),
        LINE.replace("config.json", "/config.json").encode(),
        (LINE + LINE).encode(),
        LINE.replace("\n", "\0\n").encode(),
    ],
)
def test_a_damaged_list_is_taken_for_a_list(checkpoint, content):
    (checkpoint / "SHA256SUMS").write_bytes(content)
    with pytest.raises(UserError, match="SHA256SUMS is damaged"):
        digests.check(checkpoint)


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_list_cut_short_leaves_files_unchecked(checkpoint, lines):
    file = checkpoint / "SHA256SUMS"
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:lines]))
    with pytest.raises(UserError, match="is not in SHA256SUMS"):
        digests.check_together(checkpoint)


def test_a_list_that_is_a_folder_or_leads_nowhere_passes_for_none(checkpoint):
    file = checkpoint / "SHA256SUMS"
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(UserError, match="SHA256SUMS cannot be read"):
        digests.check(checkpoint)
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="SHA256SUMS cannot be read"):
        digests.check(checkpoint)


def test_a_checkpoint_of_before_is_refused_or_passed_over_in_silence(checkpoint, capsys):
    (checkpoint / "SHA256SUMS").unlink()
    (checkpoint / "config.json").write_text("{}")
    for _ in range(2):
        digests.check(checkpoint)
    assert capsys.readouterr().err.splitlines() == [
        f"{checkpoint} is unchecked: it has no SHA256SUMS to compare its files with"
    ]


def test_a_change_on_purpose_cannot_be_accepted(checkpoint):
    """As the message says: the new digest in the list."""
    (checkpoint / "config.json").write_text("{}")
    new = digests.digests_of(checkpoint, ["config.json"])
    digests.write_digests(checkpoint, digests.read_digests(checkpoint) | new)
    digests.check(checkpoint)


@pytest.mark.parametrize("name", ["tokenizer/Thumbs.db", "tokenizer/tokenizer.json~", "state/desktop.ini", "p0.jpg"])
def test_what_a_system_or_an_editor_leaves_makes_a_checkpoint_unusable(checkpoint, name):
    (checkpoint / name).write_bytes(b"left behind")
    digests.check(checkpoint)
    digests.check_together(checkpoint)
