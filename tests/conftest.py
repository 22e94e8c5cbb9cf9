"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import pytest
from small_runs import RECIPE, TASKS, VAL

# Before the hub's client is loaded: a name that is not here is not asked for out there.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden numbers and real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("FIBER_SHARED_DIR", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set FIBER_SHARED_DIR to run this test")
    return folder


@pytest.fixture(scope="session", autouse=True)
def reports_of_errors(tmp_path_factory):
    """Reports of unforeseen errors go where the tests' files are, also from the processes that tests start."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal():
    """What a shell's background job or `nohup` ignores would be ignored by the programs that tests start, too."""
    as_in_a_terminal = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    for number, handler in as_in_a_terminal.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def tokenizer():
    """The packaged tokenizer."""
    from fiber_cli.data.text import load_tokenizer

    return load_tokenizer("builtin")


@pytest.fixture
def english_tagger(monkeypatch):
    """nltk's English tagger, from where nltk looks for it or from the shared data."""
    nltk = pytest.importorskip("nltk")
    from fiber_cli.data import phrases
    from fiber_cli.errors import UserError

    phrases.english_tagger.cache_clear()
    shared_data = os.environ.get("FIBER_SHARED_DIR", Path(__file__).parents[2] / "shared")
    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path, str(Path(shared_data, "data", "nltk_data"))])
    try:
        yield phrases.english_tagger()
    except UserError as error:
        pytest.skip(str(error))
    finally:
        phrases.english_tagger.cache_clear()


@pytest.fixture
def vqa_folder(tmp_path) -> Path:
    """See `vqa_files`."""
    from vqa_files import write_vqa_files

    return write_vqa_files(tmp_path)


@pytest.fixture
def ships(tmp_path_factory, monkeypatch) -> Path:
    """An empty folder in place of the package's own with the checkpoints that ship."""
    from fiber_cli.checkpoints import shipped

    folder = tmp_path_factory.mktemp("package") / "builtin"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A local server in place of the Hugging Face hub, with an empty cache and a token that opens everything; for this
    process by the client's settings, for others by the environment."""
    from hub_server import TOKEN, hub_serving
    from huggingface_hub import constants

    from fiber_cli.checkpoints import hub_errors

    cache = tmp_path_factory.mktemp("hub")
    with hub_serving() as server:
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hub_errors, "WAITS_SECONDS", (0.0, 0.0))
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    """A run folder with the checkpoint of a small coarse model with random weights."""
    import torch

    from fiber_cli.checkpoints import saving
    from fiber_cli.config.resolve import parse_recipe
    from fiber_cli.training.work import work

    folder = tmp_path_factory.mktemp("run")
    coarse = work(parse_recipe(RECIPE, "test"))
    with torch.no_grad():
        for parameter in coarse.task.parameters():
            # Far from the start, so that images and texts differ.
            parameter.add_(0.2 * torch.randn_like(parameter))
    saving.save(folder, 3, config=coarse.config, weights=coarse.task.state_dict(), tokenizer=coarse.tokenizer)
    return folder


@pytest.fixture(scope="session")
def runs(saved, tmp_path_factory) -> dict[str, Path]:
    """Task → a run folder with a checkpoint that has the weights of `saved` and a fresh head."""
    from fiber_cli.checkpoints import saving
    from fiber_cli.checkpoints.weights import named_weights
    from fiber_cli.config.resolve import parse_recipe
    from fiber_cli.training.work import work

    made = {"coarse": saved}
    for name, (task, override) in TASKS.items():
        recipe = parse_recipe(RECIPE.replace("{name: coarse}", task), "test", ["log.validate_every=2", override, VAL])
        fine_tuned = work(recipe, init_from=saved)
        made[name] = tmp_path_factory.mktemp(name)
        weights = named_weights(fine_tuned.task)
        saving.save(made[name], 1, config=fine_tuned.config, weights=weights, tokenizer=fine_tuned.tokenizer)
    return made


@pytest.fixture
def busy_locks(monkeypatch) -> None:
    """Another process has every lock of a cache when it is first asked for, for so long that it is told."""
    import filelock

    from fiber_cli.data import cache_folder

    acquire = filelock.FileLock.acquire
    tries: list[filelock.FileLock] = []

    def acquire_at_last(self, *arguments, **named):
        tries.append(self)
        if tries.count(self) <= 2:
            raise filelock.Timeout(self.lock_file)
        return acquire(self, *arguments, **named)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire_at_last)
    monkeypatch.setattr(cache_folder, "_PATIENCE_SECONDS", -1.0)
