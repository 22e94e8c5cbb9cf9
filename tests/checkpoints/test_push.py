"""Checkpoints to the hub: what is pushed, over what, and what is said where it cannot be."""

import json
from pathlib import Path

import pytest
from hub_server import CUT, Repository
from huggingface_hub import constants
from run_folders import CELLS, make_run

from fiber_cli.checkpoints import push as push_module
from fiber_cli.checkpoints.card import is_unchanged
from fiber_cli.checkpoints.digests import digests_of, files_of, write_digests
from fiber_cli.checkpoints.directory import choose
from fiber_cli.checkpoints.hub import fetch
from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.checkpoints.push import Destination, push, stage
from fiber_cli.errors import UserError

NAME = HubName("me/cells")
PUSHED = {
    "config.json",
    "model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "words.txt",
}
PUSHED |= {"SHA256SUMS", "README.md"}


@pytest.fixture
def run(tmp_path):
    """A run with what must stay at home: state, data, places of files."""
    run = make_run(tmp_path, "detection", CELLS, root=tmp_path / "secret", labels=("cell", "nucleus"))
    checkpoint = run / "checkpoints" / "step-000001"
    (checkpoint / "state").mkdir()
    (checkpoint / "state" / "mp.pt").write_bytes(b"pickle")
    (checkpoint / "words.txt").write_text("cell\n")
    (checkpoint / ".DS_Store").write_bytes(b"x")
    (checkpoint / "notes.txt").write_bytes(b"mine")
    place = str(tmp_path / "secret" / "tokenizer")
    (checkpoint / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"name_or_path": place, "a": 1}))
    config = json.loads((checkpoint / "config.json").read_text()) | {"tokenizer": place}
    (checkpoint / "config.json").write_text(json.dumps(config))
    digest(checkpoint)
    return run


def digest(checkpoint):
    write_digests(checkpoint, digests_of(checkpoint, files_of(checkpoint, state=True)))


def push_run(run, tmp_path, name=NAME, **options):
    """Stage and push a run, as the command does."""
    folder = tmp_path / f"stage-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    files = stage(choose(run), folder, name, "mit")
    return push(files, Destination(name, **options))


def files_on(hub, branch="main"):
    return hub.repositories["me/cells"].files(branch)


def test_more_or_less_than_using_it_needs_is_pushed(hub, run, tmp_path):
    pushed = push_run(run, tmp_path, message="first")
    files = files_on(hub)
    assert set(files) == PUSHED | {".gitattributes"}
    assert pushed == (hub.repositories["me/cells"].sha("main"), f"{hub.address}/me/cells/commit/{pushed.commit}", True)
    assert hub.repositories["me/cells"].messages[-1] == "first"
    assert not hub.repositories["me/cells"].private
    assert is_unchanged(files["README.md"].decode())
    for content in files.values():
        assert str(tmp_path).encode() not in content
        assert b"secret" not in content
    assert json.loads(files["tokenizer/tokenizer_config.json"]) == {"a": 1}
    assert json.loads(files["config.json"])["tokenizer"] == "tokenizer"


def test_what_was_just_compared_is_read_again(run, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(push_module, "sha256_of", lambda file: read.append(file.name) or "0" * 64)
    checkpoint = choose(run).path
    compared = digests_of(checkpoint, files_of(checkpoint, state=False))
    stage(choose(run), tmp_path, NAME, None)
    assert sorted(read) == ["config.json", "tokenizer_config.json"]  # what is rewritten
    pushed = dict(line.split("  ")[::-1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    assert pushed["model.safetensors"] == compared["model.safetensors"]
    (checkpoint / "SHA256SUMS").unlink()
    stage(choose(run), tmp_path, NAME, None)
    assert "model.safetensors" in read


def test_what_is_pushed_is_not_what_is_fetched(hub, run, tmp_path, monkeypatch):
    push_run(run, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    choice = choose("me/cells")
    weights = run / "checkpoints" / "step-000001" / "model.safetensors"
    assert (choice.path / "model.safetensors").read_bytes() == weights.read_bytes()
    assert not (choice.path / "state").exists()


def test_a_second_push_is_refused_or_leaves_old_files(hub, run, tmp_path):
    first = push_run(run, tmp_path)
    again = push_run(run, tmp_path)
    assert (again.commit, again.is_new) == (first.commit, False)
    checkpoint = run / "checkpoints" / "step-000001"
    (checkpoint / "words.txt").unlink()
    digest(checkpoint)
    hub.repositories["me/cells"].commit(files_on(hub) | {"demo.png": b"mine", "LICENSE": b"mine"})
    third = push_run(run, tmp_path)
    assert third.is_new
    assert set(files_on(hub)) == (PUSHED - {"words.txt"}) | {".gitattributes", "demo.png", "LICENSE"}
    assert fetch(NAME).name == third.commit


@pytest.mark.parametrize("changed", ["README.md", "config.json", "model.safetensors", "words.txt", "SHA256SUMS"])
def test_what_somebody_changed_is_overwritten(hub, run, tmp_path, changed):
    push_run(run, tmp_path)
    before = hub.repositories["me/cells"].commit(files_on(hub) | {changed: b"changed\n"})
    with pytest.raises(
        UserError, match=rf"/me/cells has .*{changed}.*, which fiber did not write or which was changed"
    ):
        push_run(run, tmp_path)
    assert hub.repositories["me/cells"].sha("main") == before
    assert push_run(run, tmp_path, force=True).is_new
    assert files_on(hub)[changed] != b"changed\n"


def test_a_card_that_somebody_wrote_cannot_be_kept(hub, run, tmp_path):
    hub.repositories["me/cells"] = Repository()
    hub.repositories["me/cells"].commit({"README.md": b"# Mine\n"})
    with pytest.raises(UserError, match=r"has README.md, .*; --keep-card leaves README.md as it is, --force replaces"):
        push_run(run, tmp_path)
    push_run(run, tmp_path, keep_card=True)
    assert files_on(hub)["README.md"] == b"# Mine\n"
    assert files_on(hub).keys() >= PUSHED


@pytest.mark.parametrize("digests", [None, b"none", b""])
def test_another_library_s_model_is_overwritten(hub, run, tmp_path, digests):
    files = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights", "vocab.txt": b""}
    if digests is not None:
        files["SHA256SUMS"] = digests
    hub.repositories["me/cells"] = Repository()
    hub.repositories["me/cells"].commit(files)
    with pytest.raises(UserError, match=r"config.json, model.safetensors, which fiber did not write"):
        push_run(run, tmp_path)
    push_run(run, tmp_path, force=True)
    assert files_on(hub)["vocab.txt"] == b""
    assert fetch(NAME).is_dir()


def test_a_branch_is_pushed_to_the_main_one(hub, run, tmp_path):
    push_run(run, tmp_path)
    main = hub.repositories["me/cells"].sha("main")
    (run / "checkpoints" / "step-000001" / "words.txt").write_text("other\n")
    digest(run / "checkpoints" / "step-000001")
    branch = HubName("me/cells", "v2")
    for _ in range(2):
        push_run(run, tmp_path, branch)
    assert hub.repositories["me/cells"].sha("main") == main
    assert files_on(hub, "v2")["words.txt"] == b"other\n"
    assert b"--checkpoint me/cells@v2" in files_on(hub, "v2")["README.md"]
    push_run(run, tmp_path, HubName("me/new", "v2"))
    assert set(hub.repositories["me/new"].files()) == {".gitattributes"}


def test_a_private_repository_is_public(hub, run, tmp_path):
    push_run(run, tmp_path, private=True)
    assert hub.repositories["me/cells"].private
    push_run(run, tmp_path, private=True)
    hub.repositories["me/cells"].private = False
    with pytest.raises(UserError, match="is there and public; --private is for new repositories"):
        push_run(run, tmp_path, private=True)


def test_a_commit_in_between_is_lost(hub, run, tmp_path, monkeypatch):
    push_run(run, tmp_path)
    (run / "checkpoints" / "step-000001" / "words.txt").write_text("other\n")
    digest(run / "checkpoints" / "step-000001")
    check = push_module._check_replaceable

    def others_first(*arguments):
        stale = check(*arguments)
        hub.repositories["me/cells"].commit(files_on(hub) | {"new": b""})
        return stale

    monkeypatch.setattr(push_module, "_check_replaceable", others_first)
    with pytest.raises(UserError, match=r"HTTP 412 .*A commit has happened since"):
        push_run(run, tmp_path)


def test_without_a_token_nothing_is_told(hub, run, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    with pytest.raises(UserError, match=r"nothing is pushed: .* HTTP 401 .*: the token does not open it, or there is"):
        push_run(run, tmp_path)
    assert not hub.repositories


@pytest.mark.parametrize("part", ["/preupload", "/objects/batch", "/commit/", "/repos/create", "/validate-yaml"])
def test_a_refusal_has_a_traceback(hub, run, tmp_path, part):
    hub.failures[part] = [403]
    with pytest.raises(UserError, match=r"^me/cells: nothing is pushed: .* HTTP 403 .*hf auth login") as caught:
        push_run(run, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_ill_storage_or_no_hub_has_a_traceback(hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.failures["/lfs/"] = [500] * 99
    with pytest.raises(UserError, match=r"nothing is pushed: .* HTTP 500 .*; try again later"):
        push_run(run, tmp_path)
    assert set(files_on(hub)) == {".gitattributes"}
    hub.failures["/lfs/"] = [503]
    assert push_run(run, tmp_path).is_new
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"nothing is pushed: http://127.0.0.1:9 cannot be reached"):
        push_run(run, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nothing is pushed: the hub is not asked, as HF_HUB_OFFLINE is set$"):
        push_run(run, tmp_path)


def test_a_server_without_the_hub_s_own_codes_is_not_pushed_to(hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr("hub_server.Request.codes", False)
    push_run(run, tmp_path)
    push_run(run, tmp_path, HubName("me/cells", "v2"))
    assert set(hub.repositories["me/cells"].branches) == {"main", "v2"}
    with pytest.raises(UserError, match=r"has no model me/none \(HTTP 404\)"):
        fetch(HubName("me/none"))


def test_a_repository_that_cannot_be_looked_at_is_overwritten(hub, run, tmp_path):
    push_run(run, tmp_path)
    before = hub.repositories["me/cells"].sha("main")
    hub.failures["/api/models/me/cells"] = [401]
    with pytest.raises(UserError, match=r"nothing is pushed: .* HTTP 409 .*already created"):
        push_run(run, tmp_path, force=True)
    assert hub.repositories["me/cells"].sha("main") == before


def test_a_cut_connection_loses_what_was_sent(hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.failures = {"/lfs/": [CUT], "/preupload": [CUT], "/repos/create": [CUT], "/api/models/me": [CUT]}
    assert push_run(run, tmp_path).is_new
    (run / "checkpoints" / "step-000001" / "words.txt").write_text("other\n")
    digest(run / "checkpoints" / "step-000001")
    hub.failures = {"/commit/": [CUT] * 9}
    with pytest.raises(UserError, match=r"nothing is pushed: .* cannot be reached \(RemoteProtocolError"):
        push_run(run, tmp_path)
    hub.failures = {}
    assert push_run(run, tmp_path).is_new
    assert files_on(hub)["words.txt"] == b"other\n"


def test_a_damaged_checkpoint_is_pushed(hub, run, tmp_path):
    Path(run, "checkpoints", "step-000001", "words.txt").write_text("changed\n")
    with pytest.raises(UserError, match=r"words.txt is not as it was written"):
        push_run(run, tmp_path)
    assert not hub.asked
