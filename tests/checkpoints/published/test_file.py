"""Published files to checkpoint directories: the weights come back, and what does not fit is said."""

import pytest
import torch

from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.published import coarse, file
from fiber_cli.checkpoints.published.file import convert_file
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
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
