"""First weights of a run: those of another, fitted, or public ones; what cannot fit is refused."""

import pytest
import torch
from small_runs import RECIPE

from fiber_cli.checkpoints import directory
from fiber_cli.checkpoints.position_bias import resize_position_bias
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.config.recipe import ModelSettings
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.training import initialise
from fiber_cli.training.work import work


def test_weights_move_to_another_image_size(saved, capsys):
    made = work(parse_recipe(RECIPE, "test", ["model.image_size=128"]), init_from=saved)
    old = load_weights(directory.resolve(saved))
    new = made.task.state_dict()
    table = "encoder.image.stages.0.blocks.0.attn.relative_position_bias_table"
    assert new[table].shape[0] > old[table].shape[0]
    window = made.task.encoder.config.image.window
    torch.testing.assert_close(new[table], resize_position_bias(old[table], window))
    assert torch.equal(new["mlm.dense.weight"], old["mlm.dense.weight"])
    resized = sum(new[name].shape != tensor.shape for name, tensor in old.items())
    told = capsys.readouterr().err
    assert f"{len(old)} tensors, of which {resized} position-bias tables were resized" in told
    assert resized > 0


def test_weights_of_other_sizes_are_refused(saved):
    with pytest.raises(UserError, match=r"shape: .* \(\d+, \d+\) in the weights"):
        work(parse_recipe(RECIPE, "test", ["model.hidden=48"]), init_from=saved)


def test_a_tokeniser_of_other_words_is_refused(saved, tmp_path):
    other = load_tokenizer("builtin")
    other.add_tokens(["zyzzyva"])
    other.save_pretrained(tmp_path / "other")
    recipe = parse_recipe(RECIPE, "test", [f"model.tokenizer={tmp_path / 'other'}"])
    with pytest.raises(UserError, match="its tokeniser is not the recipe's"):
        work(recipe, init_from=saved)


def test_public_weights_are_read_where_the_recipe_names_them(monkeypatch):
    read = []
    monkeypatch.setattr(initialise, "load_swin", lambda encoder, name: read.append(("swin", name)))
    monkeypatch.setattr(initialise, "load_roberta", lambda encoder, name: read.append(("roberta", name)))
    task = work(parse_recipe(RECIPE, "test")).task
    initialise.load_backbones(task, ModelSettings("tiny"))
    assert read == []
    initialise.load_backbones(task, ModelSettings("tiny", swin="a", roberta="b"))
    assert read == [("swin", "a"), ("roberta", "b")]
