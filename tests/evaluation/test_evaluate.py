"""From a recipe to a task, from a checkpoint to results.json."""

import json

import numpy as np
import pytest
import torch
from small_runs import RECIPE, TASKS, VAL

from fiber_cli.training import work as build
from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.checkpoints.position_bias import resize_position_bias
from fiber_cli.checkpoints.weights import load_weights, named_weights
from fiber_cli.evaluation import evaluate
from fiber_cli.tasks.evalset import Blind
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.source import BadSample
from fiber_cli.data.text import load_tokenizer
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.checkpoints.loading import load
from fiber_cli.model.config import BASE
from fiber_cli.tasks.prediction import predict_all
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.config.settings import METRICS
from fiber_cli.tasks.coarse.task import CoarseTask


def test_parts_of_the_base_model_have_the_published_sizes():
    with torch.device("meta"):
        counts = build.count_parameters(CoarseTask(BASE))
    assert counts["fusion (image side)"] == 12_607_494
    # The published code has, and never uses, 6 LayerNorms and 6 gates more.
    assert counts["fusion (text side)"] == 13_397_004 - 6 * (2 * 768 + 1)
    assert counts["total"] == sum(v for k, v in counts.items() if k != "total")


def test_recipe_sizes_reach_the_model():
    work = build.work(parse_recipe(RECIPE, "test"))
    config = work.task.encoder.config
    assert (config.image.depths, config.image.heads, config.text.layers) == ((1, 2), (2, 4), 2)
    assert (config.image_size, config.fusion_layers) == ((64, 64), 1)
    assert config.text.vocab == len(work.tokenizer)
    assert (work.steps, work.steps_per_epoch) == (4, 2)
    batch = next(iter(work.batches(0)))
    assert batch["pixels"].shape == (8, 3, 64, 64) and batch["ids"].shape == (8, 30)


def test_text_longer_than_the_positions_is_refused():
    with pytest.raises(UserError, match="text_length=2000.*has positions for"):
        build.work(parse_recipe(RECIPE, "test", ["model.text_length=2000"]))


def test_epochs_become_steps():
    work = build.work(parse_recipe(RECIPE, "test", ["optim.steps=null", "optim.epochs=3"]))
    assert work.steps == 6


def test_a_checkpoint_gives_back_the_task(saved):
    task, tokenizer, config, _ = load(saved)
    original = load_weights(checkpoint.resolve(saved))
    assert not task.training and config["preprocessing"] == {"image_size": [64, 64], "text_length": 30}
    assert task.state_dict().keys() == original.keys()
    assert all(torch.equal(value, original[name]) for name, value in task.state_dict().items())


def test_weights_move_to_another_image_size(saved):
    work = build.work(parse_recipe(RECIPE, "test", ["model.image_size=128"]), init_from=saved)
    old = load_weights(checkpoint.resolve(saved))
    new = work.task.state_dict()
    table = "encoder.image.stages.0.blocks.0.attn.relative_position_bias_table"
    assert new[table].shape[0] > old[table].shape[0]
    window = work.task.encoder.config.image.window
    torch.testing.assert_close(new[table], resize_position_bias(old[table], window))
    assert torch.equal(new["mlm.dense.weight"], old["mlm.dense.weight"])
    with pytest.raises(UserError, match=r"shape: .* \(\d+, \d+\) in the weights"):
        build.work(parse_recipe(RECIPE, "test", ["model.hidden=48"]), init_from=saved)


class Holes(ScenesSource):
    """Scenes of which number 2 cannot be read."""

    def image(self, i, at_least=0):
        if i == 2:
            raise BadSample("damaged")
        return super().image(i, at_least)


def brute_force(task, tokenizer, source, images):
    """recall@1 both ways, by one forward pass per image and text and a sort per query."""
    with torch.no_grad():
        pixels = [EvalTransform(64)(source.image(i)) for i in images]
        rows = [task.predict({"pixels": p[None]})[0] for p in pixels]
        texts, owner = [], []
        for place, i in enumerate(images):
            for caption in source.captions(i):
                tokens = tokenizer(caption)["input_ids"]
                ids = torch.tensor([tokens if len(tokens) <= 30 else tokens[:29] + tokens[-1:]])
                texts.append(task.predict({"ids": ids, "mask": torch.ones_like(ids, dtype=bool)})[0])
                owner.append(place)
    scores = (torch.stack(rows) @ torch.stack(texts).T).double().numpy()
    owner = np.array(owner)
    ir = np.mean(scores.argmax(0) == owner)
    tr = np.mean(owner[scores.argmax(1)] == np.arange(len(images)))
    return 100 * ir, 100 * tr


def test_results_are_those_of_brute_force_and_bad_images_are_told(saved, tmp_path, capsys):
    source = Holes("val", 7, image_size=64)
    options = {"dataset": "scenes", "split": "val", "mode": "itc", "batch": 3, "workers": 0}
    loaded = load(saved)
    results = evaluate.run_eval([source], loaded=loaded, output=tmp_path / "out", **options)
    ir, tr = brute_force(loaded.task, loaded.tokenizer, source, [0, 1, 3, 4, 5, 6])
    assert results["metrics"]["itc/ir@1"] == pytest.approx(ir)
    assert results["metrics"]["itc/tr@1"] == pytest.approx(tr)
    assert set(results["metrics"]) == {f"itc/{d}@{k}" for d in ("ir", "tr") for k in (1, 5, 10)}
    assert results["samples"] == 6 and [reason for _, reason in results["bad"]] == ["damaged"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {"dataset", "split", "mode", "checkpoint", "seconds", "version"} <= set(results)
    assert "left out: 1" in capsys.readouterr().out
    limited = evaluate.run_eval([source], loaded=loaded, output=tmp_path / "out", limit=2, **options)
    assert limited["samples"] == 2


def test_data_that_is_empty_and_modes_that_do_not_fit_are_refused(saved, runs, tmp_path):
    options = {"dataset": "scenes", "split": "val", "batch": 3, "workers": 0, "output": tmp_path}
    with pytest.raises(UserError, match="no image with a text"):
        evaluate.run_eval([], mode="itc", loaded=load(saved), **options)
    with pytest.raises(UserError, match="--mode itc is for retrieval"):
        evaluate.run_eval([ScenesSource("val", 2)], mode="itc", loaded=load(runs["vqa"]), **options)
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate.run_eval([Broken("val", 2)], loaded=load(runs["vqa"]), **options)


class Shares:
    """An evaluation set whose shares overlap, as a padded sampler's would: every row comes twice."""

    left_out = []

    def loader(self, *, rank, world, batch_size, workers):
        for index in ([0, 1], [1, 0]):
            yield {"index": torch.tensor(index), "bad": [], "truncated": 1}


class Identity(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(2))
        self.modes = []

    def predict(self, batch):
        self.modes.append(self.training)
        return self.weight[batch["index"]].detach()


def test_a_row_that_comes_twice_counts_once_and_training_mode_returns():
    task = Identity().train()
    rows, bad, truncated = predict_all(task, Shares(), batch_size=2, workers=0)
    assert {number: row.tolist() for number, row in rows.items()} == {0: [1, 0], 1: [0, 1]}
    assert (bad, truncated) == ([], 2)
    assert task.training and task.modes == [False, False]


class Broken(ScenesSource):
    """Scenes none of which can be read."""

    def image(self, i, at_least=0):
        raise BadSample("damaged")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_starts_from_coarse_weights_trains_and_validates(saved, name, capsys):
    """Forward and backward of a batch, and the metrics that the recipe's keep_best may name."""
    recipe = parse_recipe(RECIPE.replace("{name: coarse}", TASKS[name][0]), "test", ["log.validate_every=2", VAL])
    work = build.work(recipe, init_from=saved)
    old = load_weights(checkpoint.resolve(saved))
    told = capsys.readouterr().err.splitlines()
    new, dropped = (set(told[n].partition(": ")[2].split(", ")) - {"none"} for n in (-2, -1))
    own = named_weights(work.task)
    assert new == own.keys() - old.keys() and dropped == old.keys() - own.keys()
    assert all(torch.equal(own[key], old[key]) for key in own.keys() & old.keys())
    losses = work.task.train()(next(iter(work.batches(0))) | {"seed": 1, "step": 0})
    losses["loss"].backward()
    with_gradient = {key for key, p in work.task.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(key.startswith(work.task.NEW) for key in with_gradient) or name == "caption"
    metrics = work.validate(work.task)
    assert set(METRICS[name]) & metrics.keys() and all(0 <= value <= 1000 for value in metrics.values())


@pytest.mark.parametrize("name", TASKS)
def test_results_of_every_task(runs, name, tmp_path, capsys):
    options = {"dataset": "scenes", "split": "val", "batch": 4, "workers": 0, "output": tmp_path}
    source = HolesEverywhere("val", 6, image_size=64)
    results = evaluate.run_eval([source], loaded=load(runs[name]), **options)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(results)) and written["mode"] == {"retrieval": "itm"}.get(name, name)
    assert {reason for _, reason in written["bad"]} == {"damaged"} and written["samples"] > 0
    assert set(METRICS[name]) & written["metrics"].keys()
    files = {"vqa": "predictions.json", "nlvr2": "predictions.csv", "retrieval": "rankings.json"}
    assert (tmp_path / files.get(name, "captions.json")).stat().st_size > 10
    assert "left out" in capsys.readouterr().out


def test_blind_exchanges_images_and_nothing_else(runs, saved, tmp_path):
    source = ScenesSource("val", 6, image_size=64)
    loaded = load(runs["vqa"])
    evalset = evaluate.evaluation_set(loaded.config, [source], loaded.tokenizer)
    exchanged = Blind(evalset)
    for index in (0, len(evalset) - 1):
        own, other = evalset.read(index), evalset.read((index + len(evalset) // 2) % len(evalset))
        item = exchanged.read(index)
        assert torch.equal(item["ids"], own["ids"]) and torch.equal(item["pixels"], other["pixels"])
    options = {"dataset": "scenes", "split": "val", "batch": 8, "workers": 0, "output": tmp_path, "blind": True}
    metrics = evaluate.run_eval([source], loaded=loaded, **options)["metrics"]
    assert {"vqa/accuracy", "blind/vqa/accuracy"} <= metrics.keys()
    with pytest.raises(UserError, match="--blind"):
        evaluate.run_eval([source], loaded=load(saved), **options)


class HolesEverywhere(Holes):
    def images(self, i, at_least=0):
        if i == 2:
            raise BadSample("damaged")
        return super().images(i, at_least)


def test_a_tokeniser_of_other_words_is_refused(saved, tmp_path):
    other = load_tokenizer("builtin")
    other.add_tokens(["zyzzyva"])
    other.save_pretrained(tmp_path / "other")
    recipe = parse_recipe(RECIPE, "test", [f"model.tokenizer={tmp_path / 'other'}"])
    with pytest.raises(UserError, match="its tokeniser is not the recipe's"):
        build.work(recipe, init_from=saved)
