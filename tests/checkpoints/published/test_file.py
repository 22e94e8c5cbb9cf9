"""Published files to checkpoint directories: the weights come back, and what does not fit is said."""

import pytest
import torch

from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.published import coarse, file
from fiber_cli.checkpoints.published.file import convert_file
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.outputs import LEDGER
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.vqa.task import VqaTask

#: As deep as the base model, and narrow.
SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(2, 2, 18, 2), heads=(1, 2, 4, 8), window=2),
    text=TextConfig(hidden=24, heads=2, intermediate=32, vocab=30, positions=20),
    hidden=16,
    image_size=(64, 64),
)


def save_published(task, path):
    torch.save({"state_dict": coarse.to_published(task.state_dict(), SMALL)}, path)


def test_files_of_another_form_or_size_are_clear_errors(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a published coarse-stage"):
        convert_file(tmp_path / "other.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    save_published(CoarseTask(SMALL), tmp_path / "small.ckpt")
    with pytest.raises(UserError, match="not of the base model's sizes"):
        convert_file(tmp_path / "small.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    assert not (tmp_path / "out").exists()


def test_a_published_coarse_file_becomes_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "BASE", SMALL)
    task = CoarseTask(SMALL)
    save_published(task, tmp_path / "small.ckpt")
    folder = convert_file(tmp_path / "small.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    loaded = load(folder)
    assert loaded.context.model == SMALL
    for name, weight in task.state_dict().items():
        assert torch.equal(loaded.task.state_dict()[name], weight), name


def test_vqa_needs_as_many_answers_as_the_classifier_has(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "BASE", SMALL)
    save_published(VqaTask(SMALL, labels=2), tmp_path / "vqa.ckpt")
    options = {"task": "vqa", "tokenizer": "builtin"}
    with pytest.raises(UserError, match="needs its vocabulary"):
        convert_file(tmp_path / "vqa.ckpt", tmp_path / "out", **options)
    (tmp_path / "answers.json").write_text('["yes", "no", "two"]')
    with pytest.raises(UserError, match=r"has 3 answers, the classifier of .* has 2"):
        convert_file(tmp_path / "vqa.ckpt", tmp_path / "out", answers=tmp_path / "answers.json", **options)
    (tmp_path / "answers.json").write_text('["yes", "no"]')
    folder = convert_file(tmp_path / "vqa.ckpt", tmp_path / "out", answers=tmp_path / "answers.json", **options)
    assert load(folder).context.labels == ("yes", "no")


@pytest.mark.slow
def test_a_published_fine_file_becomes_a_checkpoint(fine_keys, fine_dtypes, tmp_path):
    """Of the base model's size, in the published form: the folder says how to use the weights."""
    state = {}
    for key, shape in fine_keys["keys"].items():
        state[f"module.{key}"] = torch.zeros(shape, dtype=fine_dtypes[key])
    torch.save({"model": state}, tmp_path / "fine.pth")
    with pytest.raises(UserError, match="not a published coarse-stage"):
        convert_file(tmp_path / "fine.pth", tmp_path / "out", task="coarse", tokenizer="builtin")
    loaded = load(convert_file(tmp_path / "fine.pth", tmp_path / "out", task="refexp", tokenizer="builtin"))
    settings, model = loaded.context.settings, loaded.context.model
    assert (loaded.name, settings.short_sides[-1], settings.longest_side) == ("refexp", 800, 1333)
    assert settings.names_as_published
    assert loaded.context.text_length == 256
    assert model.image.fixed_window
    assert not model.norm_image_query


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published file of a small model."""
    monkeypatch.setattr(file, "BASE", SMALL)
    save_published(CoarseTask(SMALL), tmp_path / "small.ckpt")
    return tmp_path / "small.ckpt"


def convert(published, output, tokenizer="builtin", **options):
    return convert_file(published, output, task="coarse", tokenizer=str(tokenizer), **options)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LEDGER}


def test_an_earlier_conversion_is_not_replaced_or_a_changed_one_is(published, tmp_path):
    out = tmp_path / "out"
    convert(published, out)
    first = contents(out)
    save_published(CoarseTask(SMALL), published)
    folder = convert(published, out)
    assert contents(out).keys() == first.keys()
    assert contents(out) != first
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
    before = contents(out)
    with pytest.raises(UserError, match=r"config\.json, which fiber convert did not write"):
        convert(published, out)
    assert contents(out) == before
    convert(published, out, force=True)
    assert load(folder).context.model == SMALL


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/latest", "checkpoints/step-000000/config.json"])
def test_a_users_file_is_replaced_by_a_conversion(published, tmp_path, name):
    victim = tmp_path / "out" / name
    victim.parent.mkdir(parents=True)
    victim.write_text("a user's file")
    with pytest.raises(UserError, match="did not write"):
        convert(published, tmp_path / "out")
    assert contents(tmp_path / "out") == {victim: b"a user's file"}
    convert(published, tmp_path / "out", force=True)
    assert victim.name != "notes.txt" or victim.read_text() == "a user's file"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name",
    ["recipe.yaml", "metrics.jsonl", "checkpoints/step-000400/config.json", "checkpoints/step-000000/state/0.pt"],
)
def test_a_run_is_replaced_by_a_conversion(published, tmp_path, name, force):
    kept = tmp_path / "out" / name
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(UserError, match="holds a training run"):
        convert(published, tmp_path / "out", force=force)
    assert contents(tmp_path / "out") == {kept: b"{}"}


def test_a_conversion_replaces_what_it_reads(published, tmp_path):
    step = convert(published, tmp_path / "out")
    before = contents(tmp_path / "out")
    for force in (False, True):
        with pytest.raises(UserError, match="is read by this command"):
            convert(published, tmp_path / "out", step / "tokenizer", force=force)
    with pytest.raises(UserError, match="is a file"):
        convert(published, published, force=True)
    assert contents(tmp_path / "out") == before


def test_a_conversion_without_room_leaves_something_or_loses_the_earlier_one(published, tmp_path):
    resource = pytest.importorskip("resource")
    convert(published, tmp_path / "out")
    before = contents(tmp_path / "out")
    save_published(CoarseTask(SMALL), published)
    for size in (0, 1, 10, 100, 1000, 2000, 10_000, 50_000, 100_000, 150_000):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            for name in ("out", "new/out"):
                with pytest.raises(UserError, match=rf"{name}: cannot be written \(File too large"):
                    convert(published, tmp_path / name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert contents(tmp_path / "out") == before
        assert {path.name for path in (tmp_path / "out").iterdir()} == {LEDGER, "checkpoints"}
        assert not (tmp_path / "new").exists()
