"""From a directory to a task: what was saved predicts as before, and what a checkpoint cannot do is told."""

import json

import pytest
import torch
from small_retrieval import SMALL
from small_runs import TASKS as TASKS_IN_RUNS

from fiber_cli.checkpoints import directory, saving, shipped
from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.loading import commands_for, load, new_task
from fiber_cli.checkpoints.weights import named_weights
from fiber_cli.errors import UserError
from fiber_cli.tasks.abilities import Answering, Captioning, Detecting, Embedding, Matching
from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.vqa.settings import VqaSettings
from fiber_cli.tasks.vqa.task import VqaTask


def save(run_dir, tokenizer, small_letters=False, **settings):
    """A run with the checkpoint of a small coarse task of random weights; returns the task."""
    config = CheckpointConfig(SMALL, CoarseSettings("coarse", **settings), 20, None, "builtin", small_letters)
    task = new_task(TaskContext(config.task, config.model, tokenizer, config.text_length))
    saving.save(run_dir, 3, config=config.to_json(), weights=named_weights(task), tokenizer=tokenizer)
    return task.eval()


def test_a_checkpoint_gives_back_the_task(tmp_path, tokenizer):
    task = save(tmp_path, tokenizer)
    loaded = load(tmp_path)
    assert (loaded.name, loaded.path.name) == ("coarse", "step-000003")
    assert loaded.context.model == SMALL
    assert loaded.context.text_length == 20
    assert loaded.context.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert not loaded.task.training
    batch = {"pixels": torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)}
    with torch.no_grad():
        assert torch.equal(loaded.task.predict(batch), task.predict(batch))


def test_capitals_are_words_of_their_own_to_what_was_trained_on_small_letters(tmp_path, tokenizer, monkeypatch):
    def ids(folder):
        return load(folder).context.tokenizer("A Red STAR")["input_ids"]

    capitals, small = tokenizer("A Red STAR")["input_ids"], tokenizer("a red star")["input_ids"]
    assert capitals != small
    save(tmp_path / "any", tokenizer)
    assert ids(tmp_path / "any") == capitals
    save(tmp_path / "small", tokenizer, small_letters=True)
    assert ids(tmp_path / "small") == small
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "any" / "checkpoints")
    assert ids(tmp_path / "any" / "checkpoints" / "step-000003") == small


def test_fingerprints_tell_weights_apart(tmp_path, tokenizer):
    torch.manual_seed(0)
    save(tmp_path / "one", tokenizer)
    save(tmp_path / "two", tokenizer)
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one.fingerprint == load(tmp_path / "one").fingerprint
    assert one.fingerprint != two.fingerprint


def test_abilities_are_those_of_the_task_less_what_is_switched_off(tmp_path, tokenizer):
    save(tmp_path, tokenizer, itm=0.0)
    loaded = load(tmp_path)
    assert loaded.ability(Embedding) is loaded.task
    assert loaded.can(Embedding)
    assert not loaded.can(Matching)
    assert not loaded.can(Captioning)
    with pytest.raises(UserError, match=r"is a checkpoint of coarse, without an ITM head .*`fiber pretrain coarse`"):
        loaded.ability(Matching)
    with pytest.raises(UserError, match=r"without a captioner; use one of `fiber finetune caption`"):
        loaded.ability(Captioning)


def test_commands_are_those_that_train_the_ability():
    assert commands_for(Answering) == "`fiber finetune vqa` or `fiber finetune vqa_generated`"
    assert commands_for(Matching) == "`fiber pretrain coarse` or `fiber finetune retrieval`"


def test_a_vqa_checkpoint_without_its_answers_is_a_clear_error(tmp_path, tokenizer):
    config = CheckpointConfig(SMALL, VqaSettings("vqa"), 20, ("yes", "no"), "builtin").to_json()
    task = VqaTask(SMALL, labels=2)
    for labels, message in (
        (None, "does not describe a model of this version: a VQA task needs"),
        (["a"], "do not fit"),
    ):
        weights = named_weights(task)
        saving.save(tmp_path, 3, config=config | {"labels": labels}, weights=weights, tokenizer=tokenizer)
        with pytest.raises(UserError, match=message):
            load(tmp_path)


@pytest.mark.parametrize("run", [*TASKS_IN_RUNS])
def test_every_kind_of_checkpoint_gives_back_its_abilities_alone(runs, run):
    loaded = load(runs[run])
    for ability in (Embedding, Matching, Answering, Captioning, Detecting):
        declared_and_on = ability in loaded.declaration.abilities and ability not in loaded.task.switched_off
        assert loaded.can(ability) == declared_and_on
        if declared_and_on:
            assert loaded.ability(ability) is loaded.task
        else:
            with pytest.raises(UserError, match=rf"is a checkpoint of {run}, without .*; use one of `fiber "):
                loaded.ability(ability)


def test_commands_are_joined_in_words():
    assert commands_for(Detecting) == (
        "`fiber pretrain fine`, `fiber finetune detection`, `fiber finetune grounding` or `fiber finetune refexp`"
    )


def test_weights_that_do_not_fit_are_told(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    path = directory.resolve(tmp_path)
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"hidden": 24', '"hidden": 32'))
    (path / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="the weights do not fit the model"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("image", {"embed_dim": 10**9}),
        ("image", {"embed_dim": 2**15}),
        ("image", {"depths": [10**9, 2, 1]}),
        ("image", {"depths": [1] * 40, "heads": [1] * 40}),
        ("image", {"heads": [0, 4, 8]}),
        ("image", {"window": -4}),
        ("image", {"mlp_ratio": 1e308}),
        ("image", {"mlp_ratio": "4"}),
        ("text", {"layers": 10**12}),
        ("text", {"vocab": 10**15}),
        ("text", {"vocab": 2**24}),
        ("text", {"hidden": 2**16, "heads": 4}),
        ("text", {"hidden": 96.5}),
        ("text", {"positions": True}),
        ("text", {"norm_eps": float("nan")}),
        ("text", {"dropout": float("inf")}),
        ("model", {"hidden": 2**16}),
        ("model", {"hidden": 10**400}),
        ("model", {"image_size": [10**9, 10**9]}),
        ("model", {"image_size": []}),
        ("model", {"itc_pooler": "no"}),
        ("model", {"fusion_layers": 1.5}),
        ("task", {"queue_size": 10**12}),
        ("task", {"itc": -1}),
        ("task", {"itc": float("inf")}),
        ("preprocessing", {"text_length": 10**12}),
        ("preprocessing", {"text_length": -3}),
    ],
)
def test_a_config_of_absurd_sizes_takes_no_memory(tmp_path, tokenizer, section, changes):
    save(tmp_path, tokenizer)
    file = tmp_path / "checkpoints" / "step-000003" / "config.json"
    content = json.loads(file.read_text())
    where = content["model"][section] if section in ("image", "text") else content[section]
    where.update(changes)
    if "image_size" in changes:
        content["preprocessing"].update(changes)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=str(tmp_path)) as told:
        load(tmp_path)
    assert "Traceback" not in str(told.value)
