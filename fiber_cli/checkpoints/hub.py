"""Checkpoints from the Hugging Face hub: by name, through its own client, into its cache.

What is fetched is config.json, the weights as safetensors, the words and the tokenizer's data files: nothing else of a
repository, so that nothing of it is ever run. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to
the client. This module is loaded where a name is not here, and only then.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, try_to_load_from_cache

from fiber_cli import __version__
from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.digests import STATE_FOLDER, TOKENIZER_FOLDER, WEIGHTS_FILE, read_digests
from fiber_cli.checkpoints.hub_errors import first_line, in_words, may_pass, persistent
from fiber_cli.checkpoints.hub_names import FORMS, HubName
from fiber_cli.checkpoints.words import WORDS_FILE
from fiber_cli.distributed.collectives import is_main
from fiber_cli.errors import UserError
from fiber_cli.outputs import DIGESTS
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say
from fiber_cli.regular_files import read_regular

#: All that is fetched of a repository, as patterns.
PATTERNS = (CONFIG_FILE, WEIGHTS_FILE, WORDS_FILE, DIGESTS, f"{TOKENIZER_FOLDER}/*.json", f"{TOKENIZER_FOLDER}/*.txt")
#: Who asks, as the hub counts it.
CLIENT: dict[str, Any] = {"library_name": "fiber", "library_version": __version__}


def api() -> HfApi:
    """The client, which names fiber as the one that asks."""
    return HfApi(**CLIENT)


def fetch(name: HubName) -> Path:
    """The folder of a checkpoint in the hub's cache, brought up to date with what the hub has, or as it is where the
    hub cannot be asked, which is then said. Raises UserError that says what was looked for, and where."""
    try:
        folder = _current(name)
        if folder is None:
            folder = _fetched(name)
    except UserError:
        raise
    except Exception as error:  # the client's own, those of what it sends with, and of the cache's file system
        raise _neither(name, error) from error
    return folder


def _current(name: HubName) -> Path | None:
    """What the cache has of a checkpoint, if that is whole and what the hub has; also where the hub cannot be asked."""
    cached = _cached(name)
    try:
        info = persistent(lambda: api().model_info(name.repository, revision=_revision(name), timeout=_timeout()))
    except Exception as error:
        if cached is None or not (may_pass(error) or constants.HF_HUB_OFFLINE):
            raise
        if not constants.HF_HUB_OFFLINE and is_main():
            reason = first_line(error)
            say(f"{name}: {constants.ENDPOINT} cannot be asked ({reason}); taking {cached.name}, which is in its cache")
        return cached
    if cached is not None and cached.name == info.sha:
        return cached
    return None


def _cached(name: HubName) -> Path | None:
    """The folder of a checkpoint in the cache; None where that has none or a part of it."""
    config = try_to_load_from_cache(name.repository, CONFIG_FILE, revision=_revision(name))
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return None if missing_of(folder) else folder


def _fetched(name: HubName) -> Path:
    """Fetch a checkpoint, first what tells whether it is one."""
    revision = _revision(name)
    config = persistent(lambda: hf_hub_download(name.repository, CONFIG_FILE, revision=revision, **CLIENT))
    if not is_fibers(Path(config)):
        raise UserError(
            f"{constants.ENDPOINT}/{name.repository}: its {CONFIG_FILE} is not fiber's, so that it is no checkpoint of "
            "fiber; public backbones are named by model.swin and model.roberta"
        )
    folder = persistent(
        lambda: snapshot_download(name.repository, revision=revision, allow_patterns=list(PATTERNS), **CLIENT)
    )
    missing = missing_of(Path(folder))
    if missing:
        raise UserError(
            f"{constants.ENDPOINT}/{name.repository}: is not a whole checkpoint of fiber, it has no {missing}; name "
            "another revision as org/name@revision"
        )
    return Path(folder)


def missing_of(folder: Path) -> str | None:
    """A file that a checkpoint of a repository lacks; None where it is whole."""
    names = [CONFIG_FILE, WEIGHTS_FILE]
    if (folder / DIGESTS).is_file():
        names += [name for name in read_digests(folder) if not name.startswith(f"{STATE_FOLDER}/")]
    for name in names:
        if not (folder / name).is_file():
            return name
    if not (folder / TOKENIZER_FOLDER).is_dir():
        return f"{TOKENIZER_FOLDER}/"
    return None


def is_fibers(config: Path) -> bool:
    """Whether a config.json is one of fiber's checkpoints, of any version."""
    try:
        content = parse_json(read_regular(config))
    except ValueError:
        return False
    return isinstance(content, dict) and {"format", "model", "task"} <= content.keys()


def _revision(name: HubName) -> str:
    return name.revision or constants.DEFAULT_REVISION


def _timeout() -> float:
    """Seconds in which the hub must begin to answer."""
    return constants.HF_HUB_ETAG_TIMEOUT


def _neither(name: HubName, error: Exception) -> UserError:
    """That a name is neither a path here nor one of the hub that can be had."""
    looked_for = [f"{Path(str(name)).absolute()} does not exist"]
    if may_pass(error) or constants.HF_HUB_OFFLINE:
        looked_for.append(f"the hub's cache {constants.HF_HUB_CACHE} does not have it whole")
    looked_for.append(in_words(error, name))
    return UserError(f"{name}: {', and '.join(looked_for)}. Give {FORMS}")
