"""Published files to ours and back: every bit of them, whatever wraps them and whatever they were trained for."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from published_states import SMALL, published_names, published_state
from safetensors.torch import load_file, save_file

from fiber_cli.checkpoints import directory
from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.published import back, file
from fiber_cli.checkpoints.published.back import convert_back
from fiber_cli.checkpoints.published.file import convert_file
from fiber_cli.checkpoints.published.stage import STAGES
from fiber_cli.checkpoints.published.unread import KEPT_FILE
from fiber_cli.checkpoints.weights import read_torch_file
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE
from fiber_cli.tasks import published_forms

QUEUE = {"image_queue": torch.zeros(16, 4), "queue_ptr": torch.zeros(1, dtype=torch.int64)}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(file, "BASE", SMALL)


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text('["yes", "no", "2"]')
    return path


def assert_same(back, state):
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == value.dtype, key
        assert torch.equal(back[key], value), key


def wrapped(state, stage):
    return {STAGES[stage].wrapper: state}


#: Those that differ in more than their names.
KINDS = [kind for kind in published_forms() if kind not in ("detection", "grounding", "refexp")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_loses_a_bit_on_the_way_there_and_back(small, answers, tmp_path, capsys, kind):
    _, form = published_forms()[kind]
    state = published_state(kind)
    extra = QUEUE if form.stage == "coarse" else {}
    torch.save(wrapped(state | extra, form.stage), tmp_path / "in.ckpt")
    convert_file(
        tmp_path / "in.ckpt",
        tmp_path / "out",
        task=kind,
        tokenizer="builtin",
        answers=answers if form.labels else None,
    )
    told = capsys.readouterr().err
    assert ("image_queue, queue_ptr: the queue of pre-training" in told) == bool(extra)
    assert "follows from the sizes of the model" in told
    convert_back(tmp_path / "out", tmp_path / "back.ckpt")
    content = torch.load(tmp_path / "back.ckpt", weights_only=True)
    assert list(content) == [STAGES[form.stage].wrapper]
    assert_same(content[STAGES[form.stage].wrapper], state)
    assert (tmp_path / "back.answers.json").exists() == bool(form.labels)


class Callback:
    """Of a trainer, as Lightning saves its own beside the weights."""

    def __init__(self):
        self.best = 3.0


class Options(dict):
    """A dictionary of a class of its own."""


def lightning(state):
    parameters = {"config": Callback(), "options": Options(depth=3), "seeds": np.arange(3), "rate": np.float64(0.1)}
    return {
        "epoch": 3,
        "state_dict": state,
        "callbacks": {Callback: {"best": 1.0}},
        "hyper_parameters": parameters,
        "given": argparse.Namespace(lr=0.1, folder=Path("runs")),
    }


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    "plain": lambda state: state,
    "plain, of several GPUs": lambda state: prefixed(state, "module."),
    "Lightning": lightning,
    "Lightning, a module of another": lambda state: lightning(prefixed(state, "model.")),
    "Lightning, GOLD's copy": lambda state: lightning(
        {**state, **prefixed(published_state("caption", seed=1), "copy_module.")}
    ),
    "maskrcnn-benchmark": lambda state: {
        "model": prefixed(state, "module."),
        "model_ema": prefixed(published_state("caption", seed=1), "module."),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
        "iteration": 5,
    },
    "one in another": lambda state: {"model": {"state_dict": prefixed(state, "module.model.")}},
    "DeepSpeed": lambda state: {"module": prefixed(state, "_forward_module."), "global_steps": 7},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_wrapper_hides_the_weights(small, tmp_path, wrapping):
    state = published_state("caption")
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "in.ckpt")
    convert_file(tmp_path / "in.ckpt", tmp_path / "out", task="caption", tokenizer="builtin")
    assert_same(read_torch_file(convert_back(tmp_path / "out", tmp_path / "back.ckpt")), state)


def test_other_forms_of_files_are_not_read_or_written(small, tmp_path):
    state = published_state("fine")
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "in.safetensors")
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("in.safetensors", "old.pth"):
        convert_file(tmp_path / name, tmp_path / name[:2], task="fine", tokenizer="builtin")
        assert_same(load_file(convert_back(tmp_path / name[:2], tmp_path / f"{name}.safetensors")), state)


def test_narrow_weights_come_back_wide(small, tmp_path):
    state = {}
    for key, value in published_state("refcoco").items():
        state[key] = value.half() if value.is_floating_point() else value
    torch.save({"model": state}, tmp_path / "in.pth")
    folder = convert_file(tmp_path / "in.pth", tmp_path / "out", task="refcoco", tokenizer="builtin")
    assert {value.dtype for value in load(folder).task.state_dict().values()} == {torch.float32}
    assert_same(read_torch_file(convert_back(tmp_path / "out", tmp_path / "back.pth")), state)


def test_wide_weights_are_cut(small, tmp_path):
    state = published_state("nlvr2")
    state["nlvr2_classifier.0.bias"] = state["nlvr2_classifier.0.bias"].double()
    torch.save(state, tmp_path / "in.ckpt")
    with pytest.raises(UserError, match=r"more than float32, .*: nlvr2_classifier\.0\.bias; save float32"):
        convert_file(tmp_path / "in.ckpt", tmp_path / "out", task="nlvr2", tokenizer="builtin")


def test_what_was_kept_is_put_into_other_weights(small, tmp_path, capsys):
    """Other weights, or none kept: what no pass reads has its first values, and ITM's copy is the row itself."""
    torch.save(published_state("retrieval-itm"), tmp_path / "in.ckpt")
    convert_file(tmp_path / "in.ckpt", tmp_path / "out", task="retrieval-itm", tokenizer="builtin")
    torch.save(published_state("retrieval-itm", seed=5), tmp_path / "other.ckpt")
    convert_file(tmp_path / "other.ckpt", tmp_path / "other", task="retrieval-itm", tokenizer="builtin")
    (tmp_path / "other" / KEPT_FILE).write_bytes((tmp_path / "out" / KEPT_FILE).read_bytes())
    back = read_torch_file(convert_back(tmp_path / "other", tmp_path / "back.ckpt"))
    assert torch.equal(back["rank_output.weight"], back["itm_score.fc.weight"][1:])
    assert not back["text_transformer.pooler.dense.weight"].any()
    assert "at first values, because no pass reads them" in capsys.readouterr().err
    (tmp_path / "out" / KEPT_FILE).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"published\.safetensors cannot be read"):
        convert_back(tmp_path / "out", tmp_path / "never.ckpt")


def test_a_second_conversion_finds_what_the_first_kept_in_its_way(small, tmp_path):
    torch.save(published_state("coarse"), tmp_path / "in.ckpt")
    for _ in range(2):
        convert_file(tmp_path / "in.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    (tmp_path / "out" / KEPT_FILE).write_bytes(b"mine")
    with pytest.raises(UserError, match=r"published\.safetensors, which fiber convert did not write"):
        convert_file(tmp_path / "in.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")


def test_a_file_of_the_users_or_the_checkpoint_itself_is_overwritten(small, tmp_path):
    torch.save(published_state("coarse"), tmp_path / "in.ckpt")
    convert_file(tmp_path / "in.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    (tmp_path / "mine.ckpt").write_text("mine")
    with pytest.raises(UserError, match="was not written by fiber"):
        convert_back(tmp_path / "out", tmp_path / "mine.ckpt")
    weights = directory.resolve(tmp_path / "out") / "model.safetensors"
    with pytest.raises(UserError, match="is read by this command"):
        convert_back(tmp_path / "out", weights, force=True)
    convert_back(tmp_path / "out", tmp_path / "mine.ckpt", force=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("caption", 576), ("detection", 384)])
def test_the_full_size_loses_a_bit(kind, size):
    """Of the base model, in memory: there and back every entry that ours has a place for is the same."""
    stage = STAGES[published_forms()[kind][1].stage]
    config = BASE.at_image_size((size, size))
    with torch.device("meta"):
        names, published = published_names(kind, config)
    state = {}
    generator = torch.Generator().manual_seed(0)
    for key, shape in published.items():
        state[key] = torch.empty(shape.shape).uniform_(-1, 1, generator=generator)
    back = stage.to_published(stage.from_published(state, config, names), config)
    unread = set(stage.unread(config, names))
    assert back.keys() == state.keys()
    for key in state.keys() - unread:
        assert torch.equal(back[key], state[key]), key


@pytest.mark.parametrize("setting", ["model.fusion_gate=false", "model.position_embedding=true", "task.form=fused"])
def test_weights_go_back_that_the_published_code_computes_otherwise_with(small, tmp_path, monkeypatch, setting):
    torch.save(wrapped(published_state("caption"), "coarse"), tmp_path / "in.ckpt")
    run = convert_file(tmp_path / "in.ckpt", tmp_path / "run", task="caption", tokenizer="builtin")
    config = back.read_config(directory.resolve(run))
    model = config.model
    if setting == "model.fusion_gate=false":
        config = dataclasses.replace(config, model=dataclasses.replace(model, fusion_gate=False))
    elif setting == "model.position_embedding=true":
        image = dataclasses.replace(model.image, position_embedding=True)
        config = dataclasses.replace(config, model=dataclasses.replace(model, image=image))
    else:
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, form="fused"))
    monkeypatch.setattr(back, "read_config", lambda path: config)
    with pytest.raises(UserError, match=f"was trained with {setting}, which the published code does not have"):
        convert_back(run, tmp_path / "out.ckpt")
    assert not (tmp_path / "out.ckpt").exists()
