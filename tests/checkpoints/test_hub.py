"""Checkpoints of the hub, from a local server that speaks its protocol: what is fetched, when, and what is said where
it cannot be."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from hub_server import Repository
from huggingface_hub import constants
from run_folders import make_run

from fiber_cli.checkpoints import hub as hub_module
from fiber_cli.checkpoints.digests import digests_of, files_of, write_digests
from fiber_cli.checkpoints.directory import choose
from fiber_cli.checkpoints.hub import fetch
from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.errors import UserError

NAME = HubName("org/name")
#: What lies in repositories and is nobody's business here.
OTHERS = {
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"raise SystemExit",
    "state/mp.pt": b"pickle",
    "README.md": b"#",
}
OTHERS |= {"tokenizer/tokenizer.py": b"raise SystemExit", ".gitattributes": b""}


@pytest.fixture
def files(tmp_path):
    """The files of a checkpoint that looks whole."""
    checkpoint = make_run(tmp_path, "vqa", labels=("yes", "no")) / "checkpoints" / "step-000001"
    (checkpoint / "words.txt").write_text("no\nyes\n")
    write_digests(checkpoint, digests_of(checkpoint, files_of(checkpoint, state=False)))
    return {path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in checkpoint.rglob("*.*")} | {
        "SHA256SUMS": (checkpoint / "SHA256SUMS").read_bytes()
    }


@pytest.fixture
def repository(hub, files, tmp_path, monkeypatch):
    """org/name on the local hub, with files that are none of a checkpoint."""
    hub.repositories["org/name"] = Repository()
    hub.repositories["org/name"].commit(files | OTHERS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return hub.repositories["org/name"]


def without_digests(files, **changed):
    """Files of a checkpoint that nothing compares, some changed."""
    others = {name: content for name, content in files.items() if name != "SHA256SUMS"}
    return others | changed


def names_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_checkpoint_is_not_of_is_fetched(repository, files):
    folder = fetch(NAME)
    assert names_below(folder) == set(files)
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert folder.name == repository.sha("main")


def test_a_name_becomes_a_checkpoint_directory(repository):
    choice = choose("org/name")
    assert choice.path.name == repository.sha("main")
    assert str(choice) == f"org/name@{repository.sha('main')}, from the hub"


def test_what_is_cached_is_fetched_again(hub, repository):
    folder = fetch(NAME)
    hub.asked.clear()
    assert fetch(NAME) == folder
    assert hub.asked == ["GET /api/models/org/name/revision/main"]


def test_a_new_commit_is_not_taken_or_an_old_one_not_kept(repository, files):
    first = fetch(NAME)
    old = repository.sha("main")
    repository.commit(without_digests(files, **{"words.txt": b"no\nperhaps\nyes\n"}))
    second = fetch(NAME)
    assert (first.name, second.name) == (old, repository.sha("main"))
    assert (second / "words.txt").read_bytes() == b"no\nperhaps\nyes\n"
    assert fetch(HubName("org/name", old)) == first


def test_a_branch_is_taken_for_the_main_one(repository, files):
    repository.commit(without_digests(files, **{"words.txt": b"other\n"}), "refs/pr/1")
    repository.branches["main"] = next(iter(repository.commits))
    assert (fetch(HubName("org/name", "refs/pr/1")) / "words.txt").read_bytes() == b"other\n"
    assert (fetch(NAME) / "words.txt").read_bytes() == b"no\nyes\n"


def test_what_is_here_does_not_come_first(hub, repository, files):
    for name in ("org/name", "org/name@v1"):
        local = Path(name)
        local.mkdir(parents=True)
        with pytest.raises(UserError, match=f"{name} holds no checkpoint"):
            choose(name)
        for file, content in files.items():
            (local / file).parent.mkdir(exist_ok=True)
            (local / file).write_bytes(content)
        assert choose(name) == (local, "")
        shutil.rmtree("org")
    with pytest.raises(UserError, match="does not exist"):
        choose("./org/name")
    assert not hub.asked


def test_a_cut_body_is_not_gone_on_with(hub, repository, files, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10)  # what has come of one is lost with the connection
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.cuts["/cdn/"] = [20, 30]
    folder = fetch(NAME)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert [asked for asked in hub.ranges if asked] == ["bytes=20-", "bytes=50-"]


def test_a_body_that_is_always_cut_is_half_a_checkpoint(hub, repository, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.cuts["/cdn/"] = [0] * 100
    with pytest.raises(
        UserError, match=r"org/name: .*here/org/name does not exist, and .*whole, and http.* cannot be reached"
    ):
        fetch(NAME)
    hub.cuts.clear()
    assert (fetch(NAME) / "model.safetensors").read_bytes() == files["model.safetensors"]


@pytest.mark.parametrize("part", ["/api/models", "/tree/", "/resolve/main/config.json", "/cdn/"])
def test_one_failure_of_the_hub_ends_it(hub, repository, files, part):
    hub.failures[part] = [503]
    assert names_below(fetch(NAME)) == set(files)


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({}, "org/other", r"has no model org/other, or a private one: log in with `hf auth login`, or set HF_TOKEN"),
        ({}, "org/name@v9", r"/org/name has no branch, tag or commit v9"),
        ({"private": True}, "org/name", r"has no model org/name, or a private one: log in"),
        ({"gated": True}, "org/name", r"/org/name is gated: ask for access there, then log in"),
    ],
)
def test_what_cannot_be_had_does_not_say_why(hub, repository, monkeypatch, change, name, message):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    for setting, value in change.items():
        setattr(repository, setting, value)
    with pytest.raises(
        UserError, match=rf"^{name}: .*/here/{name} does not exist, and http://127.0.0.1:\d+.*{message}"
    ):
        choose(name)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([401], "answers HTTP 401 .*: the token does not open it, or there is none"),
        ([403], "answers HTTP 403 .*: the token does not open it"),
        ([404], r"has no model org/name \(HTTP 404\)"),
        ([500] * 9, "answers HTTP 500 .*; try again later"),
        ([429] * 9, "answers HTTP 429 .*; try again later"),
        ([418], "answers HTTP 418 "),
    ],
)
def test_refusals_are_no_sentences(hub, repository, codes, message):
    hub.failures["/api/models"] = codes
    with pytest.raises(UserError, match=message) as caught:
        fetch(NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hub_is", ["offline", "gone", "ill", "cut"])
@pytest.mark.parametrize("revision", [None, "v1"])
def test_the_cache_is_not_enough_without_the_hub(hub, repository, monkeypatch, capsys, hub_is, revision):
    repository.branches["v1"] = repository.branches["main"]
    folder = fetch(HubName("org/name", revision))
    capsys.readouterr()
    if hub_is == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif hub_is == "gone":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    elif hub_is == "ill":
        hub.failures["/api/models"] = [502] * 9
    else:
        hub.cuts["/api/models"] = [3] * 9
    assert fetch(HubName("org/name", revision)) == folder
    told = capsys.readouterr().err
    assert (f"taking {folder.name}, which is in its cache" in told) == (hub_is != "offline")


def test_offline_what_was_never_fetched_is_asked_for(hub, repository, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"the hub's cache .* does not have it whole, and the hub is not asked, as HF_HUB_"
    ):
        fetch(NAME)
    assert not hub.asked


def test_a_part_in_the_cache_is_taken_for_a_checkpoint(hub, repository, files, monkeypatch):
    folder = fetch(NAME)
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert (fetch(NAME) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_an_unreachable_hub_and_no_cache_say_nothing_of_the_path(repository, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"/here/runs/tinny does not exist, .*, and http://127.0.0.1:9 cannot be reached \(C"
    ):
        choose("runs/tinny")


@pytest.mark.parametrize("config", [b"{}", b'{"model_type": "swin"}', b"[]", b"{", b"\xff"])
def test_another_library_s_weights_are_fetched(hub, repository, files, config):
    repository.commit(files | {"config.json": config})
    with pytest.raises(UserError, match=r"/org/name: its config.json is not fiber's, .* model.swin and model.roberta"):
        fetch(NAME)
    assert not [asked for asked in hub.asked if "safetensors" in asked]


@pytest.mark.parametrize("missing", ["model.safetensors", "words.txt", "tokenizer/tokenizer.json", "config.json"])
def test_half_a_checkpoint_is_one(repository, files, missing):
    repository.commit({name: content for name, content in files.items() if name != missing})
    wanted = f"has no {missing}; name another revision"
    if missing == "config.json":
        wanted = "is no checkpoint of fiber: Entry Not Found for url"
    with pytest.raises(UserError, match=wanted):
        fetch(NAME)


def test_a_full_disk_is_no_sentence(repository, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "blob")

    monkeypatch.setattr(hub_module, "snapshot_download", full)
    with pytest.raises(
        UserError, match=r"the hub's cache, cannot be written \(No space left on device: free some space"
    ):
        fetch(NAME)


def test_formats_of_any_version_are_fiber_s(repository, files):
    config = json.loads(files["config.json"]) | {"format": 99}
    repository.commit(without_digests(files, **{"config.json": json.dumps(config).encode()}))
    assert fetch(NAME).name == repository.sha("main")
