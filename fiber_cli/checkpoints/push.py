"""A checkpoint to the Hugging Face hub, with a model card: what using it needs and nothing else, over nothing that
fiber did not write."""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from fiber_cli.checkpoints.card import CARD, CardFacts, is_unchanged, model_card
from fiber_cli.checkpoints.config import CONFIG_FILE, read_config
from fiber_cli.checkpoints.digests import (
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    check,
    digests_of,
    files_of,
    read_digests,
    write_digests,
)
from fiber_cli.checkpoints.directory import Choice
from fiber_cli.checkpoints.hub import CLIENT, api, is_fibers
from fiber_cli.checkpoints.hub_errors import in_words, persistent
from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.checkpoints.run_facts import reduced, run_facts
from fiber_cli.checkpoints.shipped import parameters
from fiber_cli.checkpoints.words import WORDS_FILE
from fiber_cli.errors import UserError, first_names
from fiber_cli.outputs import DIGESTS, sha256_of
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import dump_json

#: Of a tokenizer's settings, where it lay when it was written.
_PLACES = ("name_or_path",)
#: Answers for what is not there; the hub gives the first to whoever has no token.
_NOT_THERE = (401, 404)


class Destination(NamedTuple):
    """Where a checkpoint is pushed to and how. name: with the branch, None for the main one; private: whether a new
    repository is; message: of the commit; force: whether files that fiber did not write are replaced; keep_card:
    whether a README.md that is there stays."""

    name: HubName
    private: bool = False
    message: str | None = None
    force: bool = False
    keep_card: bool = False

    @property
    def page(self) -> str:
        return f"{constants.ENDPOINT}/{self.name.repository}"


class Pushed(NamedTuple):
    """commit: of the hub; url: its page; is_new: whether anything was changed."""

    commit: str
    url: str
    is_new: bool


class _There(NamedTuple):
    """What a repository has where it is pushed to. commit: None where there is no repository; files: by their paths;
    has_branch: whether the branch is there, and not only the main one."""

    commit: str | None
    files: dict[str, RepoFile]
    is_private: bool
    has_branch: bool


def stage(choice: Choice, folder: Path, name: HubName, licence: str | None) -> dict[str, Path]:
    """What is pushed of a checkpoint, by the paths there: its own files, and those that are not as they lie here, such
    as the card, in `folder`. No place of the user's files is in them. Raises UserError for a damaged checkpoint."""
    checkpoint = choice.path
    checked = check(checkpoint)
    config = read_config(checkpoint)
    files = {file: checkpoint / file for file in files_of(checkpoint, state=False)}
    content = config.to_json()
    content["tokenizer"] = reduced(content["tokenizer"])
    files[CONFIG_FILE] = _written(folder / CONFIG_FILE, dump_json(content, indent=2) + "\n")
    settings = f"{TOKENIZER_FOLDER}/tokenizer_config.json"
    if settings in files:
        files[settings] = _written(folder / settings, _without_places(files[settings]))
    digests = {}
    for file, path in files.items():
        # What is pushed as it lies here has just been read from the first byte to the last.
        is_checked = file in checked and path == checkpoint / file
        digests[file] = checked[file] if is_checked else sha256_of(path)
    write_digests(folder, digests)
    files[DIGESTS] = folder / DIGESTS
    facts = CardFacts(
        name,
        config,
        run_facts(checkpoint.resolve()),
        licence,
        parameters(checkpoint / WEIGHTS_FILE),
        has_words=WORDS_FILE in files,
    )
    files[CARD] = _written(folder / CARD, model_card(facts))
    return files


def _written(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")
    return file


def _without_places(settings: Path) -> str:
    """The settings of a tokenizer without the place where it lay."""
    content = parse_json(read_regular(settings))
    kept = {name: value for name, value in content.items() if name not in _PLACES}
    return dump_json(kept, indent=2) + "\n"


def push(files: Mapping[str, Path], destination: Destination) -> Pushed:
    """Commit files, by their paths there, to a repository, which is made where there is none. Files of an earlier push
    that are no more are removed; others stay. Raises UserError where something is in the way that fiber did not write,
    where it is not allowed, and where the hub cannot be had."""
    try:
        return _push(files, destination)
    except UserError:
        raise
    except Exception as error:  # the client's own, and those of what it sends with
        cause: BaseException = error
        if isinstance(error, RuntimeError):  # of an upload, around what went wrong
            cause = error.__cause__ or error
        raise UserError(f"{destination.name}: nothing is pushed: {in_words(cause, destination.name)}") from error


def _push(files: Mapping[str, Path], destination: Destination) -> Pushed:
    name = destination.name
    there = _look(destination)
    written = set(files)
    if destination.keep_card and CARD in there.files:
        written.discard(CARD)
    stale: set[str] = set()
    if there.commit is not None:
        stale = _check_replaceable(there, written, destination)
    client = api()
    if there.commit is None:
        # One that is there after all has not been looked at.
        persistent(lambda: client.create_repo(name.repository, private=destination.private))
    if name.revision is not None and not there.has_branch:
        persistent(lambda: client.create_branch(name.repository, branch=name.revision or "", exist_ok=True))
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for file in sorted(written):
        operations.append(CommitOperationAdd(file, files[file]))
    for file in sorted(stale):
        operations.append(CommitOperationDelete(file))
    commit = client.create_commit(
        name.repository,
        operations,
        commit_message=destination.message or "Push a checkpoint of fiber",
        revision=name.revision,
        parent_commit=there.commit,
    )
    return Pushed(commit.oid, commit.commit_url, commit.oid != there.commit)


def _look(destination: Destination) -> _There:
    """What is there. UserError for a repository that others can read where a private one is asked for."""
    client = api()
    repository, branch = destination.name
    info = _info(client, repository, branch)
    has_branch = info is not None
    if info is None and branch is not None:
        info = _info(client, repository, None)
    if info is None:
        return _There(None, {}, destination.private, has_branch=branch is None)
    if destination.private and not info.private:
        raise UserError(
            f"{destination.page} is there and public; --private is for new repositories: make it private in its "
            "settings, or push to another name"
        )
    entries = persistent(lambda: list(client.list_repo_tree(repository, recursive=True, revision=info.sha)))
    files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    return _There(info.sha, files, bool(info.private), has_branch)


def _info(client: HfApi, repository: str, branch: str | None) -> ModelInfo | None:
    """What the hub says of a repository or a branch; None where there is none for this user."""
    try:
        return persistent(lambda: client.model_info(repository, revision=branch))
    except HfHubHTTPError as error:
        if error.response.status_code in _NOT_THERE:
            return None
        raise


def _check_replaceable(there: _There, written: Collection[str], destination: Destination) -> set[str]:
    """The files of an earlier push that are no more. UserError where one that would be replaced is not as fiber wrote
    it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        earlier = _earlier_push(there, folder, destination)
        stale = (earlier.keys() & there.files.keys()) - {*written, CARD}
        if destination.force:
            return stale
        touched = sorted((there.files.keys() & set(written)) | stale)
        foreign = [file for file in touched if not _is_fibers(there, file, earlier, folder, destination)]
    if foreign:
        kept = ""
        if CARD in foreign:
            kept = f" --keep-card leaves {CARD} as it is,"
        raise UserError(
            f"{destination.page} has {first_names(foreign)}, which fiber did not write or which was changed since;"
            f"{kept} --force replaces them all, or push to another name, or to a branch with --revision"
        )
    return stale


def _earlier_push(there: _There, folder: Path, destination: Destination) -> Mapping[str, str]:
    """The digests of the files that fiber wrote, by their paths; none where it wrote none."""
    if not {CONFIG_FILE, DIGESTS} <= there.files.keys():
        return {}
    config = _fetch(there, CONFIG_FILE, folder, destination)
    _fetch(there, DIGESTS, folder, destination)
    try:
        if is_fibers(config):
            return read_digests(folder)
    except UserError:
        pass  # a file of that name that is none of fiber's
    return {}


def _is_fibers(there: _There, file: str, earlier: Mapping[str, str], folder: Path, destination: Destination) -> bool:
    """Whether a file of a repository is as fiber pushed it."""
    if file == DIGESTS:
        return bool(earlier)
    large = there.files[file].lfs
    if large is not None:
        return earlier.get(file) == large.sha256
    if file != CARD and file not in earlier:
        return False
    local = _fetch(there, file, folder, destination)
    if file == CARD:
        return is_unchanged(local.read_bytes().decode("utf-8", "replace"))
    return digests_of(folder, [file])[file] == earlier[file]


def _fetch(there: _There, file: str, folder: Path, destination: Destination) -> Path:
    """A small file of a repository, outside the client's cache."""
    repository, commit = destination.name.repository, there.commit
    return Path(persistent(lambda: hf_hub_download(repository, file, revision=commit, local_dir=folder, **CLIENT)))
