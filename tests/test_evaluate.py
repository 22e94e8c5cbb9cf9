"""From a recipe to a task, from a checkpoint to results.json."""

import json

import numpy as np
import pytest
import torch

from fiber_cli import build, checkpoint, evaluate
from fiber_cli.data.scenes import ScenesSource
from fiber_cli.data.source import BadSample
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE
from fiber_cli.recipe import parse_recipe
from fiber_cli.retrieval import retrieval
from fiber_cli.tasks.coarse import CoarseTask

RECIPE = """
model:
  {preset: tiny, image_size: 64, text_length: 30, depths: [1, 2], image_heads: [2, 4], text_layers: 2,
   fusion_layers: 1}
task: {name: coarse}
data: {train: [{kind: scenes, count: 16}], workers: 0}
optim: {lr: 1e-3, steps: 4}
runtime: {micro_batch: 8, global_batch: 8}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with the checkpoint of a model with random weights."""
    folder = tmp_path_factory.mktemp("run")
    work = build.work(parse_recipe(RECIPE, "test"))
    with torch.no_grad():
        for parameter in work.task.parameters():
            # Far from the start, so that images and texts differ.
            parameter.add_(0.2 * torch.randn_like(parameter))
    checkpoint.save(folder, 3, config=work.config, weights=work.task.state_dict(), tokenizer=work.tokenizer)
    return folder


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
    task, tokenizer, config = build.load_task(saved)
    original = checkpoint.load_weights(checkpoint.resolve(saved))
    assert not task.training and config["preprocessing"] == {"image_size": [64, 64], "text_length": 30}
    assert task.state_dict().keys() == original.keys()
    assert all(torch.equal(value, original[name]) for name, value in task.state_dict().items())


def test_weights_move_to_another_image_size(saved):
    work = build.work(parse_recipe(RECIPE, "test", ["model.image_size=128"]), init_from=saved)
    old = checkpoint.load_weights(checkpoint.resolve(saved))
    new = work.task.state_dict()
    table = "encoder.image.stages.0.blocks.0.attn.relative_position_bias_table"
    assert new[table].shape[0] > old[table].shape[0]
    window = work.task.encoder.config.image.window
    torch.testing.assert_close(new[table], checkpoint.resize_position_bias(old[table], window))
    assert torch.equal(new["mlm.dense.weight"], old["mlm.dense.weight"])
    with pytest.raises(UserError, match=r"shape: .* \(\d+, \d+\) in the weights"):
        build.work(parse_recipe(RECIPE, "test", ["model.hidden=48"]), init_from=saved)


class Holes(ScenesSource):
    """Scenes of which number 2 cannot be read."""

    def image(self, i):
        if i == 2:
            raise BadSample("damaged")
        return super().image(i)


def brute_force(task, tokenizer, source, images):
    """recall@1 both ways, by one forward pass per image and text and a sort per query."""
    with torch.no_grad():
        pixels = [EvalTransform(64)(source.image(i)) for i in images]
        rows = [task.predict({"pixels": p[None], "index": torch.tensor([0])})["features"][0] for p in pixels]
        texts, owner = [], []
        for place, i in enumerate(images):
            for caption in source.captions(i):
                ids = torch.tensor([tokenizer(caption)["input_ids"][:30]])
                out = task.predict(
                    {"ids": ids, "mask": torch.ones_like(ids, dtype=bool), "index": ids[0, :1]}
                )
                texts.append(out["features"][0])
                owner.append(place)
    scores = (torch.stack(rows) @ torch.stack(texts).T).double().numpy()
    owner = np.array(owner)
    ir = np.mean(scores.argmax(0) == owner)
    tr = np.mean(owner[scores.argmax(1)] == np.arange(len(images)))
    return 100 * ir, 100 * tr


def test_results_are_those_of_brute_force_and_bad_images_are_told(saved, tmp_path, capsys):
    source = Holes("val", 7, image_size=64)
    options = {"dataset": "scenes", "split": "val", "mode": "itc", "batch": 3, "workers": 0}
    results = evaluate.run_eval([source], checkpoint=saved, output=tmp_path / "out", **options)
    task, tokenizer, _ = build.load_task(saved)
    ir, tr = brute_force(task, tokenizer, source, [0, 1, 3, 4, 5, 6])
    assert results["metrics"]["itc/ir@1"] == pytest.approx(ir)
    assert results["metrics"]["itc/tr@1"] == pytest.approx(tr)
    assert set(results["metrics"]) == {f"itc/{d}@{k}" for d in ("ir", "tr") for k in (1, 5, 10)}
    assert results["samples"] == 6 and [reason for _, reason in results["bad"]] == ["damaged"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {"dataset", "split", "mode", "checkpoint", "seconds", "version"} <= set(results)
    assert "left out: 1" in capsys.readouterr().out
    limited = evaluate.run_eval([source], checkpoint=saved, output=tmp_path / "out", limit=2, **options)
    assert limited["samples"] == 2


def test_unknown_modes_and_empty_data_are_refused(saved, tmp_path):
    options = {"dataset": "scenes", "split": "val", "batch": 3, "workers": 0, "checkpoint": saved}
    with pytest.raises(UserError, match="choose one of itc"):
        evaluate.run_eval([], mode="vqa", output=tmp_path, **options)
    with pytest.raises(UserError, match="no image with a text"):
        evaluate.run_eval([], mode="itc", output=tmp_path, **options)


class Shares:
    """An evaluation set whose shares overlap, as a padded sampler's would: every row comes twice."""

    n_images, n_texts, left_out = 2, 2, []
    text_image = np.array([0, 1])

    def loader(self, kind, *, rank, world, batch_size, workers):
        for index in ([0, 1], [1, 0]):
            yield {"index": torch.tensor(index), "bad": [], "truncated": 0}


class Identity(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(2))

    def predict(self, batch):
        return {"index": batch["index"], "features": self.weight[batch["index"]].detach()}


def test_a_row_that_comes_twice_counts_once_and_training_mode_returns():
    task = Identity().train()
    metrics, counts = retrieval(task, Shares(), batch_size=2, workers=0)
    assert (metrics["itc/ir@1"], metrics["itc/tr@1"]) == (100.0, 100.0)
    assert (counts["images"], counts["texts"]) == (2, 2)
    assert task.training
